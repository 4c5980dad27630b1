"""Run folders: what is in one, and what state it is in. "Done" means that a file exists. No torch.

run.json              written first: the run, its provenance
log.jsonl             a line for each log point of the training
checkpoint.safetensors  from which an interrupted training resumes; gone when it is done
training.json         what training cost
weights.safetensors   the trained model
fitted.json           of a control, in the place of weights: it is fitted anew wherever it is needed, to the same end
metrics.json          measurements, by the metric's choice
failure.json          why the last attempt failed; gone when an attempt succeeds
imported.json         of a run that came in a bundle: from which, and whether its weights came along
snapshots/, snapshots.json, selected.json   what was kept, measured and selected on the way: see `moments`
samples.png, reconstructions.png
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from genbench.errors import StoreError, one_line
from genbench.storage import schema as records
from genbench.storage.moments import SELECTED, SNAPSHOTS, selections, snapshots
from genbench.storage.schema import SCHEMA, Check
from genbench.utils.io import HALF_WRITTEN, PART, full_disk, write_json

RUN, LOG, CHECKPOINT, WEIGHTS = "run.json", "log.jsonl", "checkpoint.safetensors", "weights.safetensors"
TRAINING, FITTED, METRICS, FAILURE = "training.json", "fitted.json", "metrics.json", "failure.json"
SAMPLES, RECONSTRUCTIONS = "samples.png", "reconstructions.png"
IMPORTED = "imported.json"
MOMENTS = {SNAPSHOTS: "snapshots", SELECTED: "selections"}
"""The files of moments, each of which holds measurements, and the field that they are in."""

State = Literal["new", "interrupted", "trained", "failed"]


@dataclass(frozen=True)
class RunFolder:
    """One run's folder."""

    path: Path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.path / name).exists()

    def read(self, name: str, check: Check) -> Mapping[str, Any]:
        """What one of the JSON files holds; `StoreError` where it is damaged or missing."""
        return records.read(self.path / name, check)

    def forget(self) -> None:
        """Give back the memory of what was read, if it was kept; what is asked for afterwards is read again."""

    @property
    def state(self) -> State:
        """How far the training is; "failed" is an attempt that raised and has not been repeated."""
        if any(map(self.has, (WEIGHTS, FITTED, IMPORTED))):
            return "trained"
        if self.has(FAILURE):
            return "failed"
        return "interrupted" if self.has(CHECKPOINT) else "new"

    def begin(self, record: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
        """Write run.json, first of all; an older one of the same run keeps its provenance.

        For whoever holds the folder: what a killed process had half written is removed.
        """
        for pattern in HALF_WRITTEN:
            for left in self.path.glob(f"**/{pattern}"):
                left.unlink()
        if self.has(RUN):
            if self.record()["run"] != json.loads(json.dumps(record)):
                raise StoreError(f"{self.path / RUN} describes another run: move the folder away")
            return
        write_json(self.path / RUN, {"schema": SCHEMA, "run": record, "provenance": provenance})

    def record(self) -> dict[str, Any]:
        """The parsed run.json; `StoreError` where it is of another schema or not a run's.

        The provenance of an imported run says so: its run.json stays byte for byte what its author wrote.
        """
        found = dict(self.read(RUN, records.RUN))
        if self.has(IMPORTED):
            origin = self.read(IMPORTED, records.IMPORTED)
            told = {name: origin[name] for name in ("bundle", "sha256", "weights")}
            found["provenance"] = {**found["provenance"], "imported": told}
        return found

    def weights(self) -> Path:
        """The file of the trained weights; `StoreError` where they did not come along with an imported run."""
        path = self.path / WEIGHTS
        if not path.exists() and self.has(IMPORTED):
            raise StoreError(
                f"{self.path} was imported without its weights: measure it where it was trained, ask for a bundle with"
                " weights, or move the folder away to train it here"
            )
        return path

    def training(self) -> dict[str, Any]:
        """What training cost: seconds, images, parameters, peak_memory."""
        return dict(self.read(TRAINING, records.TRAINING))

    def measurements(self) -> dict[str, Any]:
        """What was measured, by the key of the metric's choice: {"metric", "options", "numbers", "error"}."""
        if not self.has(METRICS):
            return {}
        return dict(self.read(METRICS, records.MEASUREMENTS)["measurements"])

    def save_measurements(self, measurements: Mapping[str, Any]) -> None:
        """Replace metrics.json."""
        write_json(self.path / METRICS, {"schema": SCHEMA, "measurements": measurements})

    def fail(self, kind: str, message: str, trace: str) -> None:
        """Record why an attempt failed."""
        write_json(self.path / FAILURE, {"schema": SCHEMA, "kind": kind, "message": message, "trace": trace})

    def failure(self) -> str:
        """The cause of the last failure in one line, or ""."""
        if not self.has(FAILURE):
            return ""
        found = self.read(FAILURE, records.FAILURE)
        return f"{found['kind']}: {found['message']}"

    def forget_failure(self) -> None:
        """A new attempt begins."""
        (self.path / FAILURE).unlink(missing_ok=True)

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to the log."""
        try:
            with (self.path / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise full_disk(self.path / LOG, error) or error from None


WORDS = ("unit", "protocol", "component", "role", "label")
"""Of a number, what is text."""
CHOICES = ("dataset", "model", "prior", "network")
"""Of a run, what is a choice."""


@dataclass(frozen=True)
class OnceFolder(RunFolder):
    """A run folder that is listed once and each of whose files is read once: later changes do not show."""

    names: frozenset[str]
    shared: dict[Any, Any]
    """What folders have in common, by what tells it apart: protocols by their hash, options, words, the machine. Of
    10,000 runs it would take 1.2 GiB once for each."""
    found: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        """Whether there was such a file."""
        return name in self.names

    def read(self, name: str, check: Check) -> Mapping[str, Any]:
        """As it was when it was first asked for."""
        if name not in self.found:
            found = self.found[name] = super().read(name, check)
            if name == RUN:
                self._share_run(found)
            if name == METRICS:
                self._share_numbers(found)
            for moment in found[MOMENTS[name]].values() if name in MOMENTS else ():
                self._share_numbers(moment)
        return self.found[name]

    def forget(self) -> None:
        """Give back the memory of what was read."""
        self.found.clear()

    def _share_run(self, found: Any) -> None:
        run = found["run"]
        for kind in CHOICES:
            run[kind] = self.shared.setdefault(repr(run[kind]), run[kind])  # 1 and 1.0 are equal, and another choice
        known = self.shared.setdefault(RUN, found["provenance"])
        if known == found["provenance"]:
            found["provenance"] = known

    def _share_numbers(self, holder: Mapping[str, Any]) -> None:
        words = self.shared.setdefault(WORDS, {})
        for key, entry in holder["measurements"].items():
            known = self.shared.setdefault(("options", key), entry["options"])
            if known == entry["options"]:
                entry["options"] = known
            for number in entry["numbers"]:
                for name in WORDS:
                    word = number[name]
                    number[name] = words.setdefault(word, word)
                known = self.shared.setdefault(number["protocol"], number["how"])
                if known == number["how"]:
                    number["how"] = known


def once(path: Path, shared: dict[Any, Any]) -> OnceFolder:
    """The folder, listed; empty where there is none. `StoreError` where it cannot be listed.

    A link counts where it leads somewhere.
    """
    names: frozenset[str] = frozenset()
    try:
        with os.scandir(path) as entries:
            names = frozenset(entry.name for entry in entries if not entry.is_symlink() or Path(entry).exists())
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoreError(f"{path} cannot be listed: {error.strerror or error}") from None
    return OnceFolder(path, names, shared)


def find(places: Iterable[Path]) -> list[RunFolder]:
    """All run folders at or below the places, sorted by name; `StoreError` where a place holds none."""
    found: dict[tuple[int, int], RunFolder] = {}
    for place in places:
        if not place.exists():
            raise StoreError(f"there is no folder {place}: train something with `genbench run`, or name another folder")
        below = list(_below(place))
        if not below:
            raise StoreError(f"{place} holds no runs: train something with `genbench run`, or name another folder")
        for path in below:
            facts = path.stat()
            found[facts.st_dev, facts.st_ino] = RunFolder(path)
    return sorted(found.values(), key=lambda folder: folder.name)


def _below(place: Path) -> Iterator[Path]:
    """The run folders at or below; a run holds no run, and what ends in PART a killed import has left."""
    for root, folders, files in os.walk(place):
        if RUN in files:
            folders.clear()
            yield Path(root)
        folders[:] = sorted(folder for folder in folders if not folder.endswith(PART))


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is looked for within: it would walk over all records again and again, and there is none.

    A quarter of the time of a report over 10,000 runs.
    """
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@uncollected()
def readable(folders: Iterable[RunFolder]) -> tuple[list[RunFolder], list[str]]:
    """The folders whose records hold, read, and what is wrong with the others: one must not hide the rest."""
    good: list[RunFolder] = []
    problems, shared = [], dict[Any, Any]()
    for folder in folders:
        try:
            good.append(_whole(folder if isinstance(folder, OnceFolder) else once(folder.path, shared)))
        except StoreError as error:
            problems.append(one_line(error, limit=4000))
    return good, problems


def _whole(folder: OnceFolder) -> OnceFolder:
    """The folder, once all of its records were read."""
    snapshots(folder), selections(folder), folder.measurements()
    if folder.has(FITTED):
        folder.read(FITTED, records.FITTED)
    if folder.state == "trained":
        folder.training()
    folder.record(), folder.failure()
    return folder


def protocols(folders: Iterable[RunFolder]) -> dict[str, dict[str, Any]]:
    """The fields of every protocol that occurs, by its hash."""
    found: dict[str, dict[str, Any]] = {}
    for folder in folders:
        moments = (*snapshots(folder).values(), *selections(folder).values())
        for measured in (folder.measurements(), *(moment["measurements"] for moment in moments)):
            found |= {number["protocol"]: number["how"] for number in _numbers(measured)}
    return found


def _numbers(measured: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in measured.values():
        yield from entry["numbers"]
