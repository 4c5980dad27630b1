"""The runs that are compared with each other: copies of one run count once, and runs of older code or data stay out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from genbench.errors import StoreError
from genbench.experiment.run import Run, any_source, changes
from genbench.storage.run_dir import RunRecord
from genbench.storage.schema import MetricRecord
from genbench.utils.io import shell_path

# ---------------------------------------------------------------- copies


def without_copies(records: Sequence[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The records with every run once, and a line for those that lay in several folders.

    Copies need not hold the same metrics: what one of them lacks is taken from another. Raises `StoreError` where two
    give different values of one number.
    """
    copies: dict[str, list[RunRecord]] = {}
    for record in records:
        copies.setdefault(record.run.key, []).append(record)
    counted: Counter[tuple[str, ...]] = Counter()
    unique = []
    for same in copies.values():
        merged = same[0]
        for copy in same[1:]:
            merged = _merged(merged, copy)
        unique.append(merged)
        if len(same) > 1:
            counted[tuple(dict.fromkeys(str(record.path.parent) for record in same))] += 1
    lines = [
        f"{n} run{'s' * (n > 1)} lie{'s' * (n == 1)} {_places(folders)}: counted once" for folders, n in counted.items()
    ]
    return unique, lines


def _places(folders: tuple[str, ...]) -> str:
    return f"in {', '.join(folders[:-1])} and {folders[-1]}" if len(folders) > 1 else f"twice in {folders[0]}"


def _merged(a: RunRecord, b: RunRecord) -> RunRecord:
    """Two copies of one run as one."""
    difference = next(_differences(a, b), None)
    if difference is not None:
        text = f"{a.path} and {b.path} are one run with different numbers ({difference})"
        if a.path.parent == b.path.parent:
            raise StoreError(f"{text}: move {b.path if a.path.name == a.run.name else a.path} away")
        folders = " ".join(map(shell_path, (a.path.parent, b.path.parent)))
        raise StoreError(f"{text}: name one of the folders, or compare them: genbench report --by-folder {folders}")
    if a.is_trained != b.is_trained:
        return a if a.is_trained else b
    both = tuple({**getattr(b, name), **getattr(a, name)} for name in ("measurements", "snapshots", "selections"))
    measurements, snapshots, selections = both
    tuned = a.tuned or b.tuned
    return replace(a, measurements=measurements, snapshots=snapshots, selections=selections, tuned=tuned)


def _differences(a: RunRecord, b: RunRecord) -> Iterator[str]:
    """The numbers that two copies both have with different values."""
    if a.training is not None and b.training is not None and a.training.seconds != b.training.seconds:
        yield f"seconds of training {a.training.seconds:.6g} and {b.training.seconds:.6g}"
    pairs = [("", a.measurements, b.measurements)]
    for kind in ("snapshots", "selections"):
        first, second = getattr(a, kind), getattr(b, kind)
        pairs += [(f" of {kind}", first[key].measurements, second[key].measurements) for key in first if key in second]
    for suffix, first, second in pairs:
        numbers = _numbers(second)
        for name, number in _numbers(first).items():
            if name in numbers and numbers[name] != number:
                shown = (f"{value:.6g}" for value, _ in (number, numbers[name]))
                yield f"{name}{suffix} {' and '.join(shown)}"


def _numbers(measurements: Mapping[str, MetricRecord]) -> dict[str, tuple[float, str]]:
    """Value and protocol of each number by the key of its metric and the name of the part."""
    return {
        f"{entry.metric}.{number.component}".rstrip("."): (number.value, number.protocol)
        for entry in measurements.values()
        for number in entry.numbers
    }


# ---------------------------------------------------------------- trials of a search


def without_trials(records: Iterable[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The records without the trials of searches, and a line that says how many there are."""
    records = list(records)
    kept = [record for record in records if record.run.role != "trial"]
    n = len(records) - len(kept)
    count = f"{n} trial{'s' * (n != 1)} of a search {'stands' if n == 1 else 'stand'} in no table"
    return kept, [f"{count}: genbench list runs"] * bool(n)


# ---------------------------------------------------------------- older code and data


def newest(records: Iterable[RunRecord]) -> tuple[list[RunRecord], list[str]]:
    """The records of the newest code and data, and a line that names the others.

    Of trained runs that differ in nothing but the source of a plug-in or the files of the dataset, those stay that were
    begun last. Where no run has a time (they are of an older genbench), all of them stay.
    """
    records = list(records)
    last: dict[Run, RunRecord] = {}
    for record in records:
        choices = _choices(record.run)
        if record.is_trained and record.started >= last.get(choices, record).started:
            last[choices] = record
    kept, older = [], Counter[str]()
    for record in records:
        latest = last.get(_choices(record.run), record)
        difference = changes(record.run, latest.run)
        if not record.is_trained or not latest.started or not difference:
            kept.append(record)
        else:
            older[difference] += 1
    lines = [
        f"not shown: {n} run{'s' * (n > 1)} of {words}; --all-sources shows {'them' if n > 1 else 'it'}"
        for words, n in older.items()
    ]
    return kept, lines


def _choices(run: Run) -> Run:
    """What was asked for, apart from the seed; results from elsewhere are replaced seed by seed."""
    return any_source(run) if run.role == "external" else replace(any_source(run), seed=0)


def mixed_images(records: Iterable[RunRecord]) -> list[str]:
    """A line for each dataset of which trained runs have seen different images.

    The files are the same, or the dataset does not say which files it reads: another release of a decoder rounds
    otherwise, and what a plug-in reads may have changed.
    """
    contents: dict[str, Counter[str]] = {}
    names: dict[str, str] = {}
    for record in records:
        content = record.provenance.get("content")
        if record.is_trained and isinstance(content, str):
            contents.setdefault(record.run.dataset.key, Counter())[content] += 1
            names[record.run.dataset.key] = record.run.dataset.name
    return [
        f"{counts.total() - max(counts.values())} of {counts.total()} runs on '{names[key]}' were trained on other"
        " images: its files or the libraries that decode them have changed; numbers of both never share a column"
        for key, counts in contents.items()
        if len(counts) > 1
    ]
