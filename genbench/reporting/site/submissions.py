"""The bundles of a site, unpacked and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genbench.analysis.headline import join_words
from genbench.errors import DataError, UsageError, one_line
from genbench.storage.bundle import import_bundle
from genbench.storage.run_dir import RunRecord, read_run


@dataclass(frozen=True)
class Submission:
    """A bundle: its file's name without ".tar", its file's name and SHA-256, whether weights came along, its runs."""

    name: str
    file: str
    sha256: str
    weights: bool
    records: tuple[RunRecord, ...]


Check = Callable[[Sequence[Submission]], Mapping[str, str]]
"""Checks the runs of unpacked bundles; a line for each submission that it looked at, by its name."""


Meanings = dict[tuple[str, str, str], tuple[str, tuple[str, bool | None, str]]]
"""By metric, component and protocol the file that had this number first, with its unit, better direction and role."""


def collect(bundles: Sequence[Path], folder: Path) -> tuple[list[Submission], list[str]]:
    """Unpack bundles below a folder and check them as an import does; a line for runs that several bundles hold.

    Raises `UsageError` for two bundles of one name, `DataError` or `StoreError` for the first bundle that is not sound,
    or that is given twice. A run that several bundles hold, such as a baseline, counts once, as in the first one.
    """
    names: dict[str, Path] = {}
    for path in bundles:
        if (earlier := names.setdefault(path.stem.casefold(), path)) is not path:
            if earlier.resolve() == path.resolve():
                raise UsageError(f"{path} is given twice: name each bundle once")
            raise UsageError(f"{earlier} and {path} have one name, which says whose runs are whose: rename one of them")
    submissions: list[Submission] = []
    first: dict[str, Submission] = {}
    meanings: Meanings = {}
    lines = []
    for place, path in enumerate(bundles):
        imported = import_bundle(path, folder / str(place))
        records = [read_run(folder / str(place) / name) for name in imported.new]
        origins = [record.imported for record in records if record.imported is not None]
        _check_meanings(path, records, meanings)
        for submission in submissions:
            if submission.sha256 == origins[0].sha256:
                raise DataError(f"{path} is the same file as {submission.file}: leave one of them out")
        records = [record for record in records if record.run.role != "trial"]
        shared = [record for record in records if record.run.key in first]
        if shared:
            others = join_words(list(dict.fromkeys(first[record.run.key].file for record in shared)))
            held = f"{len(shared)} run{'s' * (len(shared) > 1)} of {path}"
            lines.append(f"left out: {held}, already in {others}: a run counts once, in the bundle that is named first")
        kept = tuple(record for record in records if record.run.key not in first)
        name, file = (one_line(ValueError(text), 80) for text in (path.stem, path.name))
        submissions.append(Submission(name, file, origins[0].sha256, all(o.weights for o in origins), kept))
        first |= {record.run.key: submissions[-1] for record in kept}
    return submissions, lines


def _check_meanings(path: Path, records: Sequence[RunRecord], meanings: Meanings) -> None:
    """`DataError` where a number has another unit, better direction or role than the same one of an earlier bundle."""
    for record in records:
        for entry in record.measurements.values():
            for number in entry.numbers:
                meaning = (number.unit, number.higher_is_better, number.role)
                key = (entry.metric, number.component, number.protocol)
                earlier, known = meanings.setdefault(key, (path.name, meaning))
                if meaning != known:
                    name = f"{entry.metric}.{number.component}".rstrip(".")
                    raise DataError(
                        f"{path} gives {name} another unit, direction or role than {earlier} does under the same"
                        f" protocol {number.protocol} ({meaning} and {known}): leave one of the bundles out"
                    )
