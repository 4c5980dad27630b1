"""Provenance of a run: versions, commit, machine, command."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from genbench import __version__
from genbench.errors import StoreError, printable
from genbench.storage.run_dir import RUN
from genbench.storage.schema import RunFile, read_file

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
    return " ".join(shlex.quote(word) if word == printable(word) else _bytes_quoted(word) for word in words)


def _bytes_quoted(word: str) -> str:
    """A word with bytes that are not UTF-8, as bash and zsh read it: $'caf\\xe9'."""
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped)}'"


def check_components(run: Run, folder: Path, registry: ComponentNames) -> None:
    """Raise `StoreError` for a run with a component that no plug-in provides; it names the file that the run had."""
    kinds: dict[Kind, str] = {run.role: run.model.name, "prior": run.prior.name, "network": run.network.name}
    kinds["dataset"] = run.dataset.name
    missing = [f"the {kind} '{name}'" for kind, name in kinds.items() if name not in registry.names(kind)]
    if not missing:
        return
    command = read_file(folder / RUN, RunFile).provenance.get("command", "")
    files = plugin_files(command if isinstance(command, str) else "")
    need = f"{run.name} needs {' and '.join(missing)}"
    if not files:
        raise StoreError(f"{need}, and no plug-in provides that now (`genbench list plugins`): install its plug-in")
    options = [word for file in files for word in ("--plugin", file)]
    program = Path(sys.argv[0]).parts[-2:]
    is_command = program[-1:] == ("genbench",) or program == ("genbench", "__main__.py")  # not a notebook
    again = f": {command_line([*arguments(), *options])}" if is_command else ""
    raise StoreError(f"{need}; it was trained with {shlex.join(options)}: name it again{again}")


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
