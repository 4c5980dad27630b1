"""What a Ray actor does: it holds the plug-ins and the images, and does one run after another.

Arguments and results are JSON texts, bytes and numpy arrays.
"""

from __future__ import annotations

import json
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genbench.api import Images
from genbench.errors import StoreError
from genbench.execution.messages import checked_name, images_of, read_folder
from genbench.execution.worker import WorkerContext, checked_run


class RayActor:
    """One slot of a cluster."""

    def __init__(
        self,
        brief: str,
        facts: str,
        arrays: Sequence[Any],
        plugins: Sequence[tuple[str, str]],
        token: tuple[str, str],
    ) -> None:
        """Load the plug-ins from their texts and put the images on the device.

        `arrays` holds the reference to them: as an argument of its own it would be lost to an actor that is restarted.
        """
        told: dict[str, Any] = json.loads(brief)
        self._scratch = tempfile.TemporaryDirectory(prefix="genbench-")
        folder = Path(self._scratch.name)
        files = []
        for index, (name, text) in enumerate(plugins):
            file = folder / "plugins" / str(index) / checked_name(name)
            file.parent.mkdir(parents=True)
            file.write_text(text, encoding="utf-8")
            files.append(str(file))
        if told["device"].startswith("cuda"):
            told["device"] = "cuda"  # Ray shows an actor the GPU that it was given
        seen = Path(told["store"]) / token[0]
        self._shares = seen.is_file() and seen.read_text(encoding="utf-8") == token[1]
        self._store = Path(told["store"]) if self._shares else folder / "runs"
        self._stopping = threading.Event()
        self._news: list[tuple[str, str, str]] = []
        self._something = threading.Condition()
        self._idle = True
        place = images(json.loads(facts), fetched(arrays[0]))
        self._workplace = WorkerContext({**told, "plugins": files}, place, self._stopping.is_set, held=True)

    def shares(self) -> bool:
        """Whether this machine sees the command's folder of runs."""
        return self._shares

    def stop(self) -> None:
        """Have the run at work save its state and end."""
        self._stopping.set()

    def poll(self, seconds: float) -> list[tuple[str, str, str]]:
        """The news since the last call, waited for so long at most, and no longer than the run goes on."""
        with self._something:
            self._something.wait_for(lambda: self._idle or bool(self._news), timeout=seconds)
            news, self._news = self._news, []
        return news

    def do(self, name: str, record: str, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Do a run, from the files of its folder where this machine does not see it; its end, and its files there."""
        self._idle = False
        run = checked_run(json.loads(record), name)
        folder = self._store / run.name
        if not self._shares:
            for relative, content in files.items():
                path = folder / checked_name(relative)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        end = self._workplace.do(json.loads(record), self._tell, self._store)
        returned = None if self._shares else read_folder(folder, ("lock",))
        with self._something:
            self._idle = True
            self._something.notify_all()
        return {**end, "news": self.poll(0.0), "files": returned}

    def _tell(self, name: str, kind: str, facts: Mapping[str, Any]) -> None:
        with self._something:
            self._news.append((name, kind, json.dumps(facts)))
            self._something.notify_all()


def fetched(reference: Any) -> Mapping[str, np.ndarray[Any, Any]]:
    """What a reference refers to: mapped where it lies on this machine, brought here once where it does not."""
    import ray

    found: Mapping[str, np.ndarray[Any, Any]] = ray.get(reference)
    return found


def images(facts: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> Images:
    """The dataset of arrays in Ray's shared memory, not copied; they cannot be written to."""
    if set(arrays) != set(facts["tensors"]):
        raise StoreError(f"the images came as {sorted(arrays)}, not as {sorted(facts['tensors'])}")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return images_of(facts, {name: torch.from_numpy(array) for name, array in arrays.items()})
