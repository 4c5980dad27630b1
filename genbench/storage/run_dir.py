"""Run folders: their files, their state, and one run's records read once. A run is trained where its weights exist.

run.json              written first: the run, its provenance
log.jsonl             a line for each log point of the training
checkpoint.safetensors  from which an interrupted training resumes; removed when it is done
training.json         the cost of the training
weights.safetensors   the trained model
results.safetensors   of a model that was trained elsewhere, instead of weights: its samples, reconstructions, codes
fitted.json           of a control, instead of weights: it is fitted again wherever it is needed
metrics.json          measurements, by the key of the metric's component
failure.json          the cause of the last failure; removed when an attempt succeeds
imported.json         of a run from a bundle: which one, and whether its weights came along
snapshots/IMAGES.safetensors   the weights after so many images
snapshots.json        measurements of the snapshots on the validation split, by the count of images
tuned.json            of a run whose options were chosen by a search: the search in short
selected.json         the snapshot that each selecting metric chose, and its measurements on the test split
samples.png, reconstructions.png
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from genbench.errors import StoreError, one_line
from genbench.experiment.run import Run, run_of_record
from genbench.storage.schema import (
    SCHEMA,
    FailureRecord,
    FittedRecord,
    ImportRecord,
    MetricRecord,
    MetricsFile,
    Provenance,
    RunFile,
    Scalar,
    SearchesFile,
    SearchRecord,
    SelectionRecord,
    SelectionsFile,
    SnapshotRecord,
    SnapshotsFile,
    TrainingRecord,
    TunedFile,
    read_file,
)
from genbench.utils.io import PART, TEMPORARY_FILES, disk_full_error, write_json

RUN, LOG, CHECKPOINT, WEIGHTS = "run.json", "log.jsonl", "checkpoint.safetensors", "weights.safetensors"
TRAINING, FITTED, METRICS, FAILURE = "training.json", "fitted.json", "metrics.json", "failure.json"
SAMPLES, RECONSTRUCTIONS = "samples.png", "reconstructions.png"
IMPORTED = "imported.json"
RESULTS = "results.safetensors"
DEFAULTS = "defaults"
"""The fact in a run's provenance that holds the default of each option which has another value, by NAME.OPTION."""

SNAPSHOT_FOLDER, SNAPSHOTS, SELECTED, TUNED = "snapshots", "snapshots.json", "selected.json", "tuned.json"

TUNED_REMEDY = "move this file away and repeat `genbench tune`, which writes it anew"
TUNING = "tuning.json"
"""The file in a folder of runs, beside them, that holds the searches of `genbench tune` whose trials lie there."""

State = Literal["new", "interrupted", "trained", "failed"]


def state_of(names: Iterable[str]) -> State:
    """The state of a training by the names of the folder's files; "failed" where the last attempt failed."""
    files = frozenset(names)
    if not files.isdisjoint((WEIGHTS, FITTED, RESULTS, IMPORTED)):
        return "trained"
    if FAILURE in files:
        return "failed"
    return "interrupted" if CHECKPOINT in files else "new"


# ---------------------------------------------------------------- writing


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, for the process that works on it: its files as they are now."""

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
        """The state of the training."""
        return state_of(name for name in (WEIGHTS, FITTED, RESULTS, IMPORTED, FAILURE, CHECKPOINT) if self.has(name))

    def begin(self, run: Mapping[str, Any], provenance: Mapping[str, Any]) -> Provenance:
        """Write run.json, first of all, and return its provenance; that of an older one of the same run is kept.

        For the process that holds the folder: the half-written files of a killed process are removed.
        """
        for pattern in TEMPORARY_FILES:
            for leftover in self.path.glob(f"**/{pattern}"):
                leftover.unlink()
        if not self.has(RUN):
            write_json(self.path / RUN, {"schema": SCHEMA, "run": run, "provenance": provenance})
        written = read_file(self.path / RUN, RunFile)
        if run_of_record(msgspec.to_builtins(written.run)).key != run_of_record(run).key:
            raise StoreError(f"{self.path / RUN} describes another run: move the folder away")
        return written.provenance

    def weights(self) -> Path:
        """The file of the trained weights; `StoreError` where they did not come along with an imported run."""
        path = self.path / WEIGHTS
        if not path.exists() and self.has(IMPORTED):
            raise StoreError(
                f"{self.path} was imported without its weights: measure it where it was trained, ask for a bundle with"
                " weights, or move the folder away to train it here"
            )
        return path

    def results(self) -> Path:
        """The file of results from elsewhere; `StoreError` where it did not come along with an imported run."""
        path = self.path / RESULTS
        if not path.exists() and self.has(IMPORTED):
            raise StoreError(
                f"{self.path} was imported without its samples: measure it where it was scored, or ask for a bundle"
                " with weights"
            )
        return path

    def snapshot_weights(self, images: int) -> Path:
        """The file of the weights after so many images."""
        return self.path / SNAPSHOT_FOLDER / f"{images:010d}.safetensors"

    def training(self) -> TrainingRecord:
        """The cost of the training."""
        return read_file(self.path / TRAINING, TrainingRecord)

    def save_training(self, cost: Mapping[str, Any]) -> None:
        """Write training.json: the fields of a `TrainingStats`."""
        write_json(self.path / TRAINING, {"schema": SCHEMA, **cost})

    def save_fitted(self, key: str, content: str) -> None:
        """Write fitted.json: the key of the control's run, the hash of the images to which it was fitted."""
        write_json(self.path / FITTED, {"schema": SCHEMA, "key": key, "content": content})

    def measurements(self) -> dict[str, MetricRecord]:
        """The measurements, by the key of the metric's component."""
        return read_file(self.path / METRICS, MetricsFile).measurements if self.has(METRICS) else {}

    def save_measurements(self, measurements: Mapping[str, MetricRecord]) -> None:
        """Replace metrics.json."""
        self._write(METRICS, measurements=measurements)

    def snapshots(self) -> dict[str, SnapshotRecord]:
        """The measurements of the snapshots, by the count of images."""
        return read_file(self.path / SNAPSHOTS, SnapshotsFile).snapshots if self.has(SNAPSHOTS) else {}

    def save_snapshots(self, snapshots: Mapping[str, SnapshotRecord]) -> None:
        """Replace snapshots.json, snapshots in their order."""
        self._write(SNAPSHOTS, snapshots={key: snapshots[key] for key in sorted(snapshots, key=int)})

    def selections(self) -> dict[str, SelectionRecord]:
        """The selected snapshots, by the key of the selecting metric's component."""
        return read_file(self.path / SELECTED, SelectionsFile).selections if self.has(SELECTED) else {}

    def save_selections(self, selections: Mapping[str, SelectionRecord]) -> None:
        """Replace selected.json."""
        self._write(SELECTED, selections=selections)

    def save_tuned(self, tuned: TunedFile) -> None:
        """Write tuned.json."""
        write_json(self.path / TUNED, msgspec.to_builtins(tuned))

    def _write(self, name: str, **content: Mapping[str, Any]) -> None:
        write_json(self.path / name, {"schema": SCHEMA, **msgspec.to_builtins(content)})

    def fail(self, failure: FailureRecord) -> None:
        """Record the cause of a failed attempt."""
        write_json(self.path / FAILURE, msgspec.to_builtins(failure))

    def failure(self) -> FailureRecord | None:
        """The cause of the last attempt's failure; None where it did not fail."""
        return read_file(self.path / FAILURE, FailureRecord) if self.has(FAILURE) else None

    def clear_failure(self) -> None:
        """Remove the record of a failure, for a new attempt."""
        (self.path / FAILURE).unlink(missing_ok=True)

    def log(self, line: Mapping[str, Any]) -> None:
        """Append a line to the log."""
        try:
            with (self.path / LOG).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise disk_full_error(self.path / LOG, error) or error from None


# ---------------------------------------------------------------- reading


class LogPoint(msgspec.Struct, frozen=True):
    """A line of log.jsonl, as `genbench.training.loop.TrainState` writes it; fields that it lacks are passed over.

    `images` counts the images shown, `seconds` the time of training, `rate` is images per second, and `terms` are means
    since the last log point: the loss of each optimizer by its name, and the model's loss terms.
    """

    step: int
    images: int
    seconds: float
    rate: float
    terms: dict[str, float]


def read_log(path: Path) -> list[LogPoint]:
    """The log points of a run folder in the order of their steps; of a step that was trained twice the later one.

    A resumed training goes on from its last checkpoint. A line that cannot be read (the last one of a killed process)
    is left out.
    """
    points: list[LogPoint] = []
    try:
        lines = (path / LOG).read_bytes().splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            point = msgspec.json.decode(line, type=LogPoint)
        except msgspec.MsgspecError:
            continue
        while points and points[-1].step >= point.step:
            points.pop()
        points.append(point)
    return points


Protocols = dict[str, dict[str, Scalar]]
"""The fields of protocols by their hash."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """All that a run folder's JSON files say, as they were when it was read.

    `training` is None where the run is not trained, or was trained elsewhere; `failure` is the cause of the last
    failure in one line, or "".
    """

    path: Path
    files: frozenset[str]
    run: Run
    provenance: Provenance
    state: State
    training: TrainingRecord | None
    measurements: Mapping[str, MetricRecord]
    snapshots: Mapping[str, SnapshotRecord]
    selections: Mapping[str, SelectionRecord]
    failure: str
    imported: ImportRecord | None
    tuned: TunedFile | None = None

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    @property
    def is_trained(self) -> bool:
        """Whether its training is done, here or elsewhere."""
        return self.state == "trained"

    @property
    def started(self) -> str:
        """The time at which the run was begun, as ISO 8601 in UTC; "" where the record has none."""
        text = self.provenance.get("started")
        try:
            return text if isinstance(text, str) and datetime.fromisoformat(text).tzinfo else ""
        except ValueError:
            return ""

    @property
    def folder(self) -> RunFolder:
        """The folder that was read."""
        return RunFolder(self.path)

    def has(self, name: str) -> bool:
        """Whether there was such a file."""
        return name in self.files


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """All run folders at or below the folders, each once, sorted by name; `StoreError` for a folder without runs."""
    remedy = "train something with `genbench run`, or name another folder"
    runs: dict[tuple[int, int], Path] = {}
    for folder in folders:
        if not folder.exists():
            raise StoreError(f"there is no folder {folder}: {remedy}")
        if not folder.is_dir():
            raise StoreError(f"{folder} is a file: name a folder of runs")
        below = list(_below(folder))
        if not below:
            raise StoreError(f"{folder} holds no runs: {remedy}")
        for path in below:
            stat = path.stat()
            runs[stat.st_dev, stat.st_ino] = path
    return sorted(runs.values(), key=lambda path: path.name)


def _below(top: Path) -> Iterator[Path]:
    """The run folders at or below; a run holds no run, and a folder whose name ends in PART is a killed import's."""
    for root, folders, files in os.walk(top):
        if RUN in files or RUN in folders:  # a folder of that name is damage that reading will tell
            folders.clear()
            yield Path(root)
        folders[:] = sorted(folder for folder in folders if not folder.endswith(PART))


def read_run(path: Path, protocols: Protocols | None = None) -> RunRecord:
    """Read all records of a run folder; `StoreError` for the first file that is missing, damaged or foreign.

    `protocols` are those read before. Numbers of several runs share them, so that 10,000 runs fit into memory.
    """
    names = _names(path)
    written = read_file(path / RUN, RunFile)
    run = run_of_record(msgspec.to_builtins(written.run))
    provenance, imported = written.provenance, None
    if IMPORTED in names:
        # run.json stays byte for byte as its author wrote it.
        imported = read_file(path / IMPORTED, ImportRecord)
        origin: dict[str, Scalar] = {name: getattr(imported, name) for name in ("bundle", "sha256", "weights")}
        provenance = {**provenance, "imported": origin}
    if FITTED in names:
        read_file(path / FITTED, FittedRecord)
    state = state_of(names)
    known_cost = state == "trained" and run.role != "external"
    training = read_file(path / TRAINING, TrainingRecord) if known_cost else None
    measurements = read_file(path / METRICS, MetricsFile).measurements if METRICS in names else {}
    snapshots = read_file(path / SNAPSHOTS, SnapshotsFile).snapshots if SNAPSHOTS in names else {}
    selections = read_file(path / SELECTED, SelectionsFile).selections if SELECTED in names else {}
    tuned = read_file(path / TUNED, TunedFile, TUNED_REMEDY) if TUNED in names else None
    failure = ""
    if FAILURE in names:
        failure = read_file(path / FAILURE, FailureRecord).line
    known = {} if protocols is None else protocols
    for measured in (measurements, *(entry.measurements for entry in (*snapshots.values(), *selections.values()))):
        _share_protocols(measured, known)
    return RunRecord(
        path,
        names,
        run,
        provenance,
        state,
        training,
        measurements,
        snapshots,
        selections,
        failure,
        imported,
        tuned,
    )


def _names(path: Path) -> frozenset[str]:
    """The names in a folder; a link counts where it leads somewhere."""
    try:
        with os.scandir(path) as entries:
            return frozenset(entry.name for entry in entries if not entry.is_symlink() or Path(entry).exists())
    except FileNotFoundError:
        return frozenset()
    except OSError as error:
        raise StoreError(f"{path} cannot be listed: {error.strerror or error}") from None


def _share_protocols(measured: Mapping[str, MetricRecord], known: Protocols) -> None:
    for metric in measured.values():
        for number in metric.numbers:
            fields = known.setdefault(number.protocol, number.how)
            if fields == number.how:
                msgspec.structs.force_setattr(number, "how", fields)


def read_runs(paths: Iterable[Path]) -> tuple[list[RunRecord], list[str]]:
    """The records of the readable runs, and a line for each run that cannot be read."""
    records: list[RunRecord] = []
    problems: list[str] = []
    protocols: Protocols = {}
    for path in paths:
        try:
            records.append(read_run(path, protocols))
        except StoreError as error:
            problems.append(one_line(error, limit=4000))
    return records, problems


# ---------------------------------------------------------------- searches, beside the runs


def read_searches(store: Path) -> dict[str, SearchRecord]:
    """The searches of a folder of runs by their keys; `StoreError` where the file is damaged."""
    path = store / TUNING
    remedy = "move this file away and repeat `genbench tune`, which finds the trials that are here and chooses anew"
    return read_file(path, SearchesFile, remedy).searches if os.path.lexists(path) else {}


def save_searches(store: Path, searches: Mapping[str, SearchRecord]) -> None:
    """Add searches to those of a folder of runs."""
    content = {**read_searches(store), **searches}
    write_json(store / TUNING, {"schema": SCHEMA, "searches": msgspec.to_builtins(content)})


def searches_of(records: Iterable[RunRecord]) -> dict[str, SearchRecord]:
    """The searches that chose the options of some runs, by their keys, as far as they lie beside the runs."""
    keys = {record.tuned.search: record.path.parent for record in records if record.tuned is not None}
    stored = {store: read_searches(store) for store in dict.fromkeys(keys.values())}
    return {key: stored[store][key] for key, store in keys.items() if key in stored[store]}
