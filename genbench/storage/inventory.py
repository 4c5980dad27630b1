"""Inventory of run folders: the state, date and size of each, how it differs from its neighbours, and removal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from genbench.errors import StoreError, UsageError, one_line, unknown
from genbench.experiment.run import Run, registered_components, run_of_record
from genbench.registry.listing import conflict_key
from genbench.storage.lock import LOCK, is_locked, lock_run
from genbench.storage.run_dir import IMPORTED, RUN, TRAINING, State, read_searches, state_of
from genbench.storage.schema import RunFile, read_file
from genbench.utils.io import PART, disk_full_error

if TYPE_CHECKING:
    from genbench.registry.loader import Registry

ListedState = State | Literal["at work", "damaged", "stopped"]


@dataclass(frozen=True)
class ListedRun:
    """One run folder as `genbench list runs` shows it.

    Attributes:
        path: The folder.
        run: The run, None where its record cannot be read.
        state: "new" (begun, without a checkpoint), "interrupted", "trained", "failed", "at work" (a process holds its
            lock), "stopped" (a trial that successive halving has paused) or "damaged".
        written: Time of the newest of its files, in UTC.
        size: Bytes of all its files.
        imported: Whether the run came from a bundle.
        differs: The fields in which it differs from other runs of the same model, prior, dimension and seed.
        problem: Why the record cannot be read, "" where it can.
    """

    path: Path
    run: Run | None
    state: ListedState
    written: datetime
    size: int
    imported: bool = False
    differs: tuple[str, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    def plain(self) -> dict[str, Any]:
        """The fields as JSON data."""
        images = None if self.run is None else self.run.images
        return {
            "run": self.name,
            "path": str(self.path),
            "state": self.state,
            "written": self.written.isoformat(timespec="seconds"),
            "images": images,
            "bytes": self.size,
            "imported": self.imported,
            "differs": list(self.differs),
            "problem": self.problem,
        }


def list_runs(paths: Iterable[Path]) -> list[ListedRun]:
    """The run folders at the paths, in their order, each with what tells it from runs of the same label."""
    listed = [_list_run(path) for path in paths]
    labels: dict[str, list[Run]] = {}
    for entry in listed:
        if entry.run is not None:
            labels.setdefault(entry.run.label, []).append(entry.run)
    varying = {label: varying_fields(runs) for label, runs in labels.items() if len(runs) > 1}
    return [
        entry if entry.run is None else replace(entry, differs=varying.get(entry.run.label, {}).get(entry.run, ()))
        for entry in listed
    ]


def _list_run(path: Path) -> ListedRun:
    names, newest, size = set(), 0.0, 0
    for root, _, files in os.walk(path):
        for name in files:
            try:
                stat = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118 - for 10,000 runs
            except OSError:  # removed meanwhile
                continue
            newest, size = max(newest, stat.st_mtime), size + stat.st_size
            if root == str(path):
                names.add(name)
    state: ListedState = state_of(names)
    run, problem = None, ""
    try:
        run = run_of_record(msgspec.to_builtins(read_file(path / RUN, RunFile).run))
    except StoreError as error:
        state, problem = "damaged", one_line(error)
    if state == "interrupted" and run is not None and run.role == "trial" and TRAINING in names:
        state = "stopped"
    if state != "damaged" and LOCK in names and is_locked(path):
        state = "at work"
    return ListedRun(path, run, state, datetime.fromtimestamp(newest, UTC), size, IMPORTED in names, problem=problem)


def varying_fields(runs: Sequence[Run]) -> dict[Run, tuple[str, ...]]:
    """For each run the fields in which not all of them agree, as `weight=10` or `source of model 1a2b3c`."""
    fields = {run: _fields(run) for run in runs}
    names = dict.fromkeys(name for stated in fields.values() for name in stated)
    varying = [name for name in names if len({stated.get(name) for stated in fields.values()}) > 1]
    return {
        run: tuple(_field_words(name, stated[name]) for name in varying if name in stated)
        for run, stated in fields.items()
    }


def _fields(run: Run) -> dict[str, str]:
    """The fields of a run by name; sources and files are named after their component."""
    fields: dict[str, str] = {}
    for name, value in run.record().items():
        if isinstance(value, dict):
            fields[name] = str(value["name"])
            fields |= {f"{value['name']}.{option}".replace("_", "-"): str(v) for option, v in value["options"].items()}
            fields[f"source of {value['name']}"] = str(value["fingerprint"])
            fields[f"files of {value['name']}"] = str(value.get("originals", ""))
        else:
            fields[name.replace("_", "-")] = str(value)
    return fields


def _field_words(name: str, value: str) -> str:
    return f"{name} {value[:6]}" if name.startswith(("source of ", "files of ")) else f"{name}={value}"


# ---------------------------------------------------------------- names


def match_run(text: str, store: Path) -> Path:
    """The run folder that a text names: a path, or in the store a name, its beginning, or a part of it.

    Parts are whole words, such as a model's name, and the beginning of the key, with which every name ends.

    Raises:
        UsageError: It names none, or several.
    """
    if not text.strip():  # every name begins with it: with one run in the store it would name that one
        raise UsageError(f"{text!r} names no run in {store}: give a name, or its beginning")
    if (Path(text) / RUN).exists():
        return Path(text)
    names = sorted(file.parent.name for file in store.glob(f"*/{RUN}"))
    tests: tuple[Callable[[str], bool], ...] = (
        lambda name: name == text,
        lambda name: name.startswith(text),
        lambda name: f"-{text}-" in f"-{name}-" or name.rpartition("-")[2].startswith(text),
    )
    matching = next(filter(None, ([name for name in names if test(name)] for test in tests)), [])
    if len(matching) > 1:
        shown = ", ".join(matching[:4]) + (", ..." if len(matching) > 4 else "")
        raise UsageError(f"'{text}' fits {len(matching)} runs in {store}: {shown}; give more of the name")
    if not matching:
        raise unknown(f"run in {store} called", text, names)
    return store / matching[0]


# ---------------------------------------------------------------- older sources


def changed_components(run: Run, registry: Registry) -> tuple[str, ...]:
    """The components of a run whose plug-in has another source now; those of plug-ins that are absent do not count."""
    changed = []
    for kind, component in registered_components(run).items():
        if component.name not in registry.names(kind) or conflict_key(kind, component.name) in registry.conflicts:
            continue
        if registry.get(kind, component.name).plugin.fingerprint != component.fingerprint:
            changed.append(f"{kind} {component.name}")
    return tuple(changed)


# ---------------------------------------------------------------- removal


def finished_trials(listed: Iterable[ListedRun]) -> list[ListedRun]:
    """The trials of searches whose choice is made, by the tuning.json beside them."""
    trials = [entry for entry in listed if entry.run is not None and entry.run.role == "trial"]
    stores = dict.fromkeys(entry.path.parent for entry in trials)
    names = {
        (store, trial.run) for store in stores for search in read_searches(store).values() for trial in search.trials
    }
    return [entry for entry in trials if (entry.path.parent, entry.name) in names]


def remove_run(path: Path) -> None:
    """Remove a run folder: it vanishes at once from every listing, then its files are deleted.

    Raises:
        RunLockedError: A process works on it.
        StoreError: It is no run folder, or cannot be removed.
    """
    if not (path / RUN).exists():
        raise StoreError(f"{path} is no run folder: nothing was removed")
    doomed = path.with_name(f".{path.name}{PART}")
    try:
        with lock_run(path):
            path.rename(doomed)
        if doomed.is_symlink():  # the run itself lies elsewhere, and stays
            doomed.unlink()
        else:
            shutil.rmtree(doomed)
    except OSError as error:
        left = doomed if doomed.exists() else path
        raise disk_full_error(path, error) or StoreError(
            f"{left} cannot be removed ({error.strerror or error}): check the permissions of the folder"
        ) from None
