"""Kills a study at random times, again and again, and says whether it always ends with an undisturbed one's rows.

    python tests/support/killing.py --kills 50 --folder FOLDER [--seed 0]

A study here is two commands: a run of models, seeds, snapshots and a control on images that must be decoded, and the
export of its report. Each attempt is a forked child that does what the last one left undone. Half of the attempts die
at a random time, the others at a random file operation (as it opens, renames or removes something below the folder),
so that a death between writing and renaming is as likely as any. An attempt that lives to its end must have made the
rows of the undisturbed study, and the next one begins with nothing. Prints a JSON object: the deaths by what was going
on, the studies completed, and the differences found, of which there must be none.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import mmap
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from genbench.cli.main import main as command
from genbench.registry.loader import load
from genbench.training import loop

PHASES = (
    ("save_checkpoint", "checkpointing"),
    ("save_weights", "saving weights"),
    ("save_snapshot", "saving a snapshot"),
    ("train", "training"),
    ("measure", "measuring"),
    ("save_pictures", "saving pictures"),
    ("load", "decoding"),
    ("fitted", "fitting a control"),
    ("plan", "planning"),
    ("run_all", "between two parts of a run"),
    ("write_report", "exporting"),
    ("show_table", "reporting"),
    ("report_runs", "reporting"),
)
"""Functions of the core and what is going on while one of them is on the stack, the innermost first."""
MODULES = "modules.txt"
TIMES = {"seconds", "flops"}
"""Columns that no two runs share."""
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir"}


@dataclass(frozen=True)
class Death:
    """When a child must die: at the n-th file operation, or after some seconds; never where both are None."""

    operation: int | None = None
    seconds: float | None = None


def phase(frame: FrameType | None) -> str:
    """What is going on, by the functions of genbench on the stack."""
    names = set()
    while frame is not None:
        if "genbench" in frame.f_code.co_filename:
            names.add(frame.f_code.co_name)
        frame = frame.f_back
    return next((phase_name for name, phase_name in PHASES if name in names), "starting")


def study(folder: Path, images: Path) -> list[list[str]]:
    """The two commands, without the program's name."""
    runs = folder / "runs"
    options = (
        "--prior normal --latent-dim 2 --network mlp --seeds 2 --images 160 --batch 20 --snapshots 2 --device cpu"
        " --metrics reconstruction,latent-w2,sharpness --snapshot-metrics reconstruction --controls pca"
        " --set latent-w2.n=20 --set latent-w2.blocks=4 --set latent-w2.replicates=2 --set sharpness.n=20"
    )
    data = [
        "--dataset",
        "folder",
        "--set",
        f"folder.path={images}",
        "--set",
        "folder.validation=0.2",
        "--set",
        "folder.size=16",
        "--data-root",
        str(folder),
        "--out",
        str(runs),
    ]
    return [
        ["run", "swae", "wae-gan", *options.split(), *data],
        ["report", str(runs), "--export", str(folder / "export")],
    ]


def attempt(commands: Sequence[Sequence[str]], folder: Path, death: Death) -> tuple[int, str, int]:
    """Fork a child that does the commands: how it ended (0; 9 killed), what was going on then, its file operations."""
    shared = mmap.mmap(-1, 128)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = live(commands, folder, death, shared)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    phase_name = shared[:100].rstrip(b"\0").decode()
    code = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    return code, phase_name, int.from_bytes(shared[120:128], "little")


def live(commands: Sequence[Sequence[str]], folder: Path, death: Death, shared: mmap.mmap) -> int:
    """Do the commands, and die when it is time."""
    count, main_thread, prefix = 0, threading.main_thread().ident, str(folder)

    def die(frame: FrameType | None) -> None:
        shared[:100] = phase(frame).encode().ljust(100, b"\0")
        os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in EVENTS and str(arguments[0]).startswith(prefix):
            count += 1
            shared[120:128] = count.to_bytes(8, "little")
            if count == death.operation:
                die(sys._getframe())

    sys.addaudithook(audit)
    if death.seconds is not None:

        def wait() -> None:
            time.sleep(death.seconds or 0.0)
            die(sys._current_frames().get(main_thread or 0))

        threading.Thread(target=wait, daemon=True).start()
    log = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1), os.dup2(log, 2)
    for arguments in commands:
        try:
            if status := command(list(arguments), standalone_mode=False):
                return int(status)
        except SystemExit as end:
            if end.code:
                return int(end.code)
    (folder / MODULES).write_text("\n".join(sys.modules), encoding="utf-8")
    return 0


def import_again(names: Sequence[str]) -> None:
    """Import what a whole study has imported, so that the attempts to come, which are forks, need not."""
    for name in names:
        with suppress(Exception):  # some modules are made by others, and have no name to import
            importlib.import_module(name)


def rows(folder: Path) -> list[dict[str, str]]:
    """The exported rows without what depends on the clock."""
    with (folder / "export" / "rows.csv").open(encoding="utf-8", newline="") as file:
        return [{name: value for name, value in row.items() if name not in TIMES} for row in csv.DictReader(file)]


def left_behind(folder: Path) -> list[str]:
    """Files that a whole study would not leave: parts, checkpoints, failures."""
    leftovers = [path for path in folder.rglob("*") if path.name.startswith(".") or path.name.startswith("checkpoint")]
    return sorted(str(path.relative_to(folder)) for path in [*leftovers, *folder.rglob("failure.json")])


def draw_images(folder: Path) -> Path:
    """200 small grey images of random bars."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    for index in range(200):
        row, column = torch.randint(0, 20, (2,), generator=generator).tolist()
        picture = torch.zeros(28, 28, dtype=torch.uint8)
        picture[row : row + 8, column : column + 3] = 200 + index % 50
        Image.fromarray(picture.numpy()).save(folder / f"{index:03d}.png")
    return folder


def fresh(folder: Path) -> Path:
    """An empty folder, its cache included."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.environ["GENBENCH_CACHE"] = os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    return folder


def kill_repeatedly(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill `kills` attempts; what happened."""
    images = draw_images(fresh(folder) / "images")
    whole = fresh(folder / "whole")
    began = time.perf_counter()
    code, _, operations = attempt(study(whole, images), whole, Death())
    seconds = time.perf_counter() - began
    if code:
        raise SystemExit(f"the undisturbed study failed: {(whole / 'output.txt').read_text()}")
    expected, leftovers = rows(whole), left_behind(whole)
    import_again((whole / MODULES).read_text(encoding="utf-8").split())
    draw, deaths, wrong, completed = random.Random(seed), Counter[str](), list[str](), 0
    work = fresh(folder / "work")
    while sum(deaths.values()) < kills:
        by_time = draw.random() < 0.5
        death = Death(seconds=draw.uniform(0, seconds)) if by_time else Death(operation=draw.randint(1, operations))
        code, phase_name, _ = attempt(study(work, images), work, death)
        if code == signal.SIGKILL:
            deaths[phase_name] += 1
            if sum(deaths.values()) < kills:
                continue
            code, _, _ = attempt(study(work, images), work, Death())
        output = (work / "output.txt").read_text(encoding="utf-8", errors="replace")
        if code:
            wrong.append(f"status {code}: {output[-400:]}")
        elif rows(work) != expected:
            pairs = [(a, b) for a, b in zip(rows(work), expected, strict=False) if a != b]
            wrong.append(f"rows differ: {len(rows(work))} of {len(expected)}, {pairs[:1]}")
        elif left_behind(work) != leftovers:
            wrong.append(f"left behind: {left_behind(work)}, {leftovers} without a death")
        completed += 1
        work = fresh(folder / "work")
    return {"kills": sum(deaths.values()), "deaths": dict(deaths.most_common()), "completed": completed, "wrong": wrong}


def save_without_rendering(_: Figure, target: IO[bytes], *, format: str, **options: object) -> None:
    """Takes the place of `Figure.savefig`: most of an export would be the rendering of its figures."""
    if format == "png":
        Image.new("L", (1, 1)).save(target, "png")
    else:
        target.write({"pdf": b"%PDF-", "svg": b"<svg/>"}[format])


def main() -> None:
    """Read the command line, kill, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    load()  # imported once, so that few deaths fall on imports
    Figure.savefig = save_without_rendering  # type: ignore[method-assign]
    quick = {"log_seconds": 0.0, "save_seconds": 0.0}  # a checkpoint after every step
    loop.TrainConfig.__init__.__kwdefaults__ = quick
    print(json.dumps(kill_repeatedly(asked.folder.resolve(), asked.kills, asked.seed), indent=1))


if __name__ == "__main__":
    main()
