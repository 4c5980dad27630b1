"""Provenance of a run: versions, commit, machine, command."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from genbench import __version__
from genbench.errors import StoreError, shell_word
from genbench.storage.run_dir import RUN
from genbench.storage.schema import RunFile, read_file
from genbench.utils.plugin_code import plugin_options

if TYPE_CHECKING:
    import torch

    from genbench.experiment.run import Run
    from genbench.registry.listing import ComponentNames, Kind

PACKAGES = ("torch", "torchvision", "POT", "torch-fidelity", "numpy", "scipy")


def provenance(device: torch.device, command: str) -> dict[str, object]:
    """Facts that stand in run.json, the command that makes the run among them; none of them is part of a run's key."""
    import torch

    return {
        "started": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "command": command,
        "genbench": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "device": describe(device),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def describe(device: torch.device) -> str:
    """The device in words."""
    import torch  # a report asks for its own command alone

    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"{device.type} ({_processor()}, {torch.get_num_threads()} threads)"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the source tree that runs, "-dirty" where it was changed; "" outside a checkout."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        result = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=12"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def command_line(arguments: list[str] | None = None) -> str:
    """The command as one would type it again."""
    words = ["genbench", *(sys.argv[1:] if arguments is None else arguments)]
    return " ".join(map(shell_word, words))


@dataclass(frozen=True)
class MissingComponents:
    """Components of runs that no plug-in provides, in words, and the plug-in files that the runs were trained with."""

    components: tuple[str, ...]
    files: tuple[str, ...]

    def describe(self, names: Sequence[str]) -> str:
        """One line for all runs of these names: what they need, and the command that names their files again."""
        needing, past = (
            (f"{names[0]} needs", "it was trained")
            if len(names) == 1
            else (f"{names[0]} and {len(names) - 1} more need", "they were trained")
        )
        need = f"{needing} {' and '.join(self.components)}"
        if not self.files:
            return f"{need}, and no plug-in provides that now (`genbench list plugins`): install its plug-in"
        trained = f"{need}; {past} with {plugin_options(self.files)}"
        program = Path(sys.argv[0]).parts[-2:]
        if program[-1:] != ("genbench",) and program != ("genbench", "__main__.py"):  # a notebook
            return f"{trained}: name it again"
        named = {Path(file) for file in plugin_files(shlex.join(arguments()))}
        absent = [file for file in self.files if Path(file) not in named]
        if not absent:
            return f"{trained}, which no longer provides that: restore it, or train anew with genbench run"
        options = [word for file in absent for word in ("--plugin", file)]
        return f"{trained}: name it again: {command_line([*arguments(), *options])}"


def missing_components(run: Run, folder: Path, registry: ComponentNames) -> MissingComponents | None:
    """What a run needs and no plug-in provides; None where nothing is missing."""
    kinds: dict[Kind, str] = {run.role: run.model.name, "prior": run.prior.name, "network": run.network.name}
    kinds["dataset"] = run.dataset.name
    missing = tuple(f"the {kind} '{name}'" for kind, name in kinds.items() if name not in registry.names(kind))
    if not missing:
        return None
    command = read_file(folder / RUN, RunFile).provenance.get("command", "")
    return MissingComponents(missing, tuple(plugin_files(command if isinstance(command, str) else "")))


def check_components(run: Run, folder: Path, registry: ComponentNames) -> None:
    """Raise `StoreError` for a run with a component that no plug-in provides; it names the file that the run had."""
    if (missing := missing_components(run, folder, registry)) is not None:
        raise StoreError(missing.describe([run.name]))


def plugin_files(command: str) -> list[str]:
    """The values of --plugin in a recorded command."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    after = [value for option, value in pairwise(words) if option == "--plugin"]
    return [*after, *(word.removeprefix("--plugin=") for word in words if word.startswith("--plugin="))]


def arguments() -> list[str]:
    """The command line after the program's name."""
    return sys.argv[1:]
