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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from genbench import records
from genbench.errors import StoreError, one_line
from genbench.files import LEFT, PART, full_disk, write_json
from genbench.moments import selections, snapshots
from genbench.records import SCHEMA

RUN, LOG, CHECKPOINT, WEIGHTS = "run.json", "log.jsonl", "checkpoint.safetensors", "weights.safetensors"
TRAINING, FITTED, METRICS, FAILURE = "training.json", "fitted.json", "metrics.json", "failure.json"
SAMPLES, RECONSTRUCTIONS = "samples.png", "reconstructions.png"
IMPORTED = "imported.json"

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
        for pattern in LEFT:
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
        found = dict(records.read(self.path / RUN, records.RUN))
        if self.has(IMPORTED):
            origin = records.read(self.path / IMPORTED, records.IMPORTED)
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
        return dict(records.read(self.path / TRAINING, records.TRAINING))

    def measurements(self) -> dict[str, Any]:
        """What was measured, by the key of the metric's choice: {"metric", "options", "numbers", "error"}."""
        if not self.has(METRICS):
            return {}
        return dict(records.read(self.path / METRICS, records.MEASUREMENTS)["measurements"])

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
        found = records.read(self.path / FAILURE, records.FAILURE)
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


@dataclass(frozen=True)
class _Listed(RunFolder):
    """A run folder with the names of its files, asked for once: a question for each name takes ten times as long."""

    names: frozenset[str]

    def has(self, name: str) -> bool:
        """Whether there was such a file."""
        return name in self.names


def _listed(path: Path) -> _Listed:
    """The folder, listed; `StoreError` where it cannot be. A link counts where it leads somewhere."""
    try:
        with os.scandir(path) as entries:
            found = frozenset(entry.name for entry in entries if not entry.is_symlink() or Path(entry).exists())
    except OSError as error:
        raise StoreError(f"{path} cannot be listed: {error.strerror or error}") from None
    return _Listed(path, found)


@dataclass(frozen=True)
class ReadFolder(RunFolder):
    """A run folder whose records were read and found whole, once: later changes of the files do not show."""

    read_state: State
    read_record: dict[str, Any]
    read_training: dict[str, Any]
    read_measurements: dict[str, Any]
    read_failure: str

    @property
    def state(self) -> State:
        """As it was."""
        return self.read_state

    def record(self) -> dict[str, Any]:
        """As it was."""
        return self.read_record

    def training(self) -> dict[str, Any]:
        """As it was; where there was none it is read, which says so."""
        return self.read_training or super().training()

    def measurements(self) -> dict[str, Any]:
        """As they were."""
        return self.read_measurements

    def failure(self) -> str:
        """As it was."""
        return self.read_failure


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
    problems, hows = [], dict[str, Any]()
    for folder in folders:
        try:
            good.append(_read(folder, hows))
        except StoreError as error:
            problems.append(one_line(error, limit=4000))
    return good, problems


def _read(folder: RunFolder, hows: dict[str, Any]) -> ReadFolder:
    """The folder with its records; equal protocols are one object, or 10,000 runs would take a gigabyte."""
    folder = _listed(folder.path)
    state = folder.state
    snapshots(folder), selections(folder)
    if folder.has(FITTED):
        records.read(folder.path / FITTED, records.FITTED)
    measurements = folder.measurements()
    for entry in measurements.values():
        for number in entry["numbers"]:
            known = hows.setdefault(number["protocol"], number["how"])
            if known == number["how"]:
                number["how"] = known
    training = folder.training() if state == "trained" else {}
    return ReadFolder(folder.path, state, folder.record(), training, measurements, folder.failure())


def protocols(folders: Iterable[RunFolder]) -> dict[str, dict[str, Any]]:
    """The fields of every protocol that occurs, by its hash."""
    return {number["protocol"]: number["how"] for folder in folders for number in _numbers(folder)}


def _numbers(folder: RunFolder) -> Iterator[dict[str, Any]]:
    moments = (*snapshots(folder).values(), *selections(folder).values())
    for measurements in (folder.measurements(), *(moment["measurements"] for moment in moments)):
        for measured in measurements.values():
            yield from measured.get("numbers", [])
