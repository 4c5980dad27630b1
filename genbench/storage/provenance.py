"""Provenance of a run: versions, commit, machine, command."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from genbench import __version__

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "torchvision", "POT", "torch-fidelity", "numpy", "scipy")


def provenance(device: torch.device, command: str) -> dict[str, object]:
    """Facts that stand in run.json, the command that makes the run among them; none of them is part of a run's key."""
    import torch

    return {
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


def command_line() -> str:
    """The command of this process as one would type it again."""
    return shlex.join(["genbench", *sys.argv[1:]])
