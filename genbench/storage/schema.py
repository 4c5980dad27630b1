"""The contents of a run folder's JSON files as typed records, checked as they are decoded.

A file that is damaged, is of another schema or has a field too many is refused in one line that names it.
Numbers are finite because JSON has no others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from genbench.errors import StoreError, one_line
from genbench.experiment.run import Precision, Role
from genbench.utils.io import JSON_BYTES, LARGEST, LARGEST_INT, read_bytes

SCHEMA: Literal[4] = 4
"""The schema that is written. One with 3 lacks `originals` and `paths` of components, and is read."""

Scalar = str | bool | int | float | None
"""The value of an option, of a protocol's field or of a fact about the machine."""
Count = Annotated[int, Meta(ge=0, le=LARGEST_INT)]
Real = Annotated[float, Meta(ge=-LARGEST, le=LARGEST)]
Positive = Annotated[float, Meta(ge=0, le=LARGEST)]
Probability = Annotated[float, Meta(ge=0, le=1)]
Decimal = Annotated[str, Meta(pattern=r"^[0-9]{1,18}$")]
"""A count of images as the key of a JSON object."""


class Record(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """A part of a file. Records hold no cycles, so the garbage collector need not follow them."""


class StoredFile(Record, frozen=True):
    """A file, which begins with the number of its schema."""

    schema: Literal[3, 4]


# ---------------------------------------------------------------- run.json


class StoredComponent(Record, frozen=True, omit_defaults=True):
    """A component's fields as `genbench.experiment.run.Component.plain` writes them, options by name."""

    name: str
    options: dict[str, Scalar]
    fingerprint: str
    originals: str = ""
    paths: tuple[str, ...] = ()


class StoredRun(Record, frozen=True, omit_defaults=True):
    """A run's fields as `genbench.experiment.run.Run.record` writes them."""

    dataset: StoredComponent
    model: StoredComponent
    prior: StoredComponent
    network: StoredComponent
    latent_dim: Count
    seed: Count
    images: Count
    batch: Count
    role: Role
    precision: Precision = "float32"
    results: str = ""


Provenance = dict[str, Scalar | dict[str, Scalar]]


class RunFile(StoredFile, frozen=True):
    """run.json."""

    run: StoredRun
    provenance: Provenance


# ---------------------------------------------------------------- the other files about a run


class TrainingRecord(StoredFile, frozen=True):
    """training.json: the fields of `genbench.api.TrainingStats`."""

    seconds: Positive
    images: Count
    parameters: Count
    device: str
    threads: Count
    peak_memory: Count | None
    flops: Positive | None
    precision: str = "float32"
    memory_format: str = "contiguous"
    step: str = "eager"
    batch: Count = 0
    jobs: Count = 1
    ensemble: Annotated[int, Meta(ge=1, le=LARGEST_INT)] = 1

    def __post_init__(self) -> None:
        """Records from before the field was there end `step` with ", ensemble of K"."""
        step, _, members = self.step.partition(", ensemble of ")
        if members.isdecimal() and 0 < len(members) < 10 and int(members) > 0:
            msgspec.structs.force_setattr(self, "step", step)
            msgspec.structs.force_setattr(self, "ensemble", int(members))


class FittedRecord(StoredFile, frozen=True):
    """fitted.json: the control's run and the images to which it was fitted."""

    key: str
    content: str


class FailureRecord(StoredFile, frozen=True):
    """failure.json."""

    kind: str
    message: str
    trace: str
    where: str = ""
    """The line of a plug-in, `infovae.py:43, in training_step`."""

    @property
    def line(self) -> str:
        """The failure in one line."""
        return f"{self.where}: {self.kind}: {self.message}".removeprefix(": ")


class ImportRecord(StoredFile, frozen=True):
    """imported.json: the bundle's name and hash, and whether the weights came along."""

    bundle: str
    sha256: str
    weights: bool


# ---------------------------------------------------------------- metrics.json, snapshots.json, selected.json


class StoredMeasurement(Record, frozen=True, omit_defaults=True):
    """The fields of a `genbench.api.Measurement`, its protocol's hash and, as `how`, its protocol's fields."""

    value: Real
    unit: str
    higher_is_better: bool | None
    n: Count
    protocol: str
    component: str
    role: str
    floor: Real | None
    label: str
    floor_sd: Positive | None
    se: Positive | None
    low: Real | None
    high: Real | None
    p_value: Probability | None
    minimum_detectable_effect: Positive | None
    how: dict[str, Scalar]
    caution: str = ""
    chance: Real | None = None
    chance_sd: Positive | None = None


def fields_key(how: Mapping[str, Scalar]) -> str:
    """The hash of a protocol's fields, as `genbench.api.EvalProtocol.key` has it."""
    return hashlib.sha256(json.dumps(dict(how), sort_keys=True).encode()).hexdigest()[:8]


class MetricRecord(Record, frozen=True, omit_defaults=True):
    """One metric under one choice of options: its numbers, or why it has none, and the seconds that it took.

    `trace` is the traceback of an error that is not in genbench's words. `fit_seconds` are those of its sampler's fit,
    which every metric with this sampler repeats; they are not among the `seconds`. `shared_seconds` are, and were spent
    on what other runs use as well. In the `background` it was measured while another run was trained.
    """

    metric: str
    options: dict[str, Scalar]
    split: str
    error: str = ""
    inapplicable: str = ""
    numbers: tuple[StoredMeasurement, ...] = ()
    seconds: Positive | None = None
    trace: str = ""
    fit_seconds: Positive | None = None
    shared_seconds: Positive | None = None
    background: bool = False

    def __post_init__(self) -> None:
        if len({number.component for number in self.numbers}) < len(self.numbers):
            raise ValueError("a metric has two numbers of one component")


Measurements = dict[str, MetricRecord]
"""By the key of the metric's component."""


class MetricsFile(StoredFile, frozen=True):
    """metrics.json."""

    measurements: Measurements


class SnapshotRecord(Record, frozen=True):
    """A snapshot: the cost of the training so far, and its measurements on the validation split."""

    step: Count
    images: Count
    seconds: Positive
    flops: Positive | None
    measurements: Measurements


class SnapshotsFile(StoredFile, frozen=True):
    """snapshots.json, by the count of images."""

    snapshots: dict[Decimal, SnapshotRecord]


class SelectionRecord(SnapshotRecord, frozen=True):
    """A selected snapshot: the number that selected it among `candidates`, and its measurements on the test split."""

    by: str
    component: str
    value: Real
    higher_is_better: bool
    protocol: str
    candidates: Count


class SelectionsFile(StoredFile, frozen=True):
    """selected.json, by the key of the selecting metric's component."""

    selections: dict[str, SelectionRecord]


# ---------------------------------------------------------------- searches for options


class StoredSearch(Record, frozen=True, omit_defaults=True):
    """The values of an option that were searched: a `genbench.api.Search`."""

    scale: Literal["log", "linear", "choice"]
    low: Real | None = None
    high: Real | None = None
    values: tuple[Scalar, ...] = ()

    @property
    def words(self) -> str:
        """The values in words: `1 to 1000 (log)`, `imq|rbf`."""
        if self.scale == "choice":
            return "|".join(str(value).lower() if isinstance(value, bool) else f"{value}" for value in self.values)
        return f"{self.low:g} to {self.high:g}" + " (log)" * (self.scale == "log")


class TrialRecord(Record, frozen=True):
    """One trial: the options that were searched, its run, and its validation value; None where it failed.

    `seconds` and `flops` are the cost of its training. A trial that successive halving stopped has no value: `early` is
    its value after `stopped` images.
    """

    options: dict[str, Scalar]
    run: str
    value: Real | None
    problem: str = ""
    seconds: Positive | None = None
    flops: Positive | None = None
    stopped: Count = 0
    early: Real | None = None


class SearchRecord(Record, frozen=True):
    """The search for one model's options; trials in the order in which they were asked for, the first the default.

    `run` is the first trial's. `chosen` is the place of the best trial. `by` says what models have alike.
    """

    model: str
    run: StoredRun
    algorithm: str
    seed: Count
    by: str
    space: dict[str, StoredSearch]
    metric: str
    metric_options: dict[str, Scalar]
    higher_is_better: bool
    protocol: str
    trials: tuple[TrialRecord, ...]
    chosen: Count


class SearchesFile(StoredFile, frozen=True):
    """tuning.json in a folder of runs: searches by their keys."""

    searches: dict[str, SearchRecord]


class TunedFile(StoredFile, frozen=True):
    """tuned.json of a run whose options were chosen by a search: its key, and the search in short.

    `options` are those that were searched, as chosen; `value` is their validation value, `default` that of the first
    trial. `failed` and `stopped` count trials that are no candidates: a genbench that recorded no `space` did not count
    them.
    """

    search: str
    algorithm: str
    by: str
    trials: Count
    metric: str
    value: Real
    default: Real | None
    options: dict[str, Scalar]
    space: dict[str, StoredSearch] = {}
    failed: Count = 0
    stopped: Count = 0


def space_words(space: Mapping[str, StoredSearch]) -> str:
    """A space in words: `weight 1 to 1000 (log), kernel imq|rbf`."""
    return ", ".join(f"{name} {search.words}" for name, search in space.items())


# ---------------------------------------------------------------- reading

T = TypeVar("T", bound=StoredFile)
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {}


class _AnySchema(Struct):
    """What every file of genbench has, whatever its schema."""

    schema: msgspec.Raw


def read_file(path: Path, kind: type[T], remedy: str = "") -> T:
    """The record in a run folder's JSON file; `StoreError` where the file is missing, damaged or of another schema.

    `remedy` says what to do with one that is damaged, in place of moving its run away.
    """
    remedy = remedy or f"move the folder {path.parent} away"
    try:
        data = read_bytes(path, JSON_BYTES)
    except FileNotFoundError:
        raise StoreError(f"{path} is missing; {remedy}") from None
    except OSError as error:
        raise StoreError(f"{path} cannot be read as JSON: {error.strerror or error}; {remedy}") from None
    try:
        return decode(data, kind, path)
    except StoreError as error:
        another_schema = "has schema" in str(error)  # then the remedy is another version
        raise error if another_schema else StoreError(f"{error}; {remedy}") from None


def decode(data: bytes, kind: type[T], name: Path | str) -> T:
    """The record in the bytes of such a file; `name` is the file's name in errors."""
    decoder = _DECODERS.get(kind)
    if decoder is None:
        decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
    try:
        record: T = decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StoreError(f"{name} {_fault(data, error)}") from None
    return record


def _fault(data: bytes, error: Exception) -> str:
    """The reason why a file is refused: no JSON, no genbench file, another schema, or another content."""
    if not isinstance(error, msgspec.ValidationError):
        return f"cannot be read as JSON: {one_line(error, 120)}"
    try:
        schema = bytes(msgspec.json.decode(data, type=_AnySchema).schema)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return "is no genbench file"
    if schema not in (b"3", str(SCHEMA).encode()):
        given = one_line(ValueError(schema.decode("utf-8", "replace")), 40)
        return f"has schema {given}; this version reads 3 and {SCHEMA}: use the one that wrote it"
    return f"does not hold what its schema says: {one_line(error, 160)}"
