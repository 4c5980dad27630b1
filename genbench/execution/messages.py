"""What goes to a worker and comes back, as plain data: JSON and bytes. No object is pickled by us, nothing is code.

The text of a plug-in file named on the command line is the exception: it is code, and is what the user asked to run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genbench.api import DataConfig, DatasetInfo, Images
from genbench.errors import StoreError
from genbench.experiment.plan import Plan
from genbench.experiment.run import Component, Run
from genbench.experiment.snapshots import SnapshotSchedule
from genbench.registry.loader import Registry
from genbench.storage.run_dir import FITTED, METRICS, RUN, WEIGHTS
from genbench.training.loop import TrainState
from genbench.utils.io import write_atomically

TENSORS = ("train", "test", "validation", "train_labels", "test_labels", "validation_labels")
FACTS = ("preprocessing", "skipped", "sha256", "class_names")
DTYPES = {"uint8": torch.uint8, "int64": torch.int64}


def brief(registry: Registry, store: Path, place: DataConfig, device: str, plan: Plan, command: str) -> dict[str, Any]:
    """All that a worker must know beside its images and its runs; what to write into run.json is found out there."""
    return {
        "store": str(store.resolve()),
        "place": {
            "data_root": str(place.data_root.resolve()),
            "cache": str(place.cache.resolve()),
            **{name: getattr(place, name) for name in ("download", "skip_corrupt", "workers")},
        },
        "device": device,
        "metrics": [choice_record(choice) for choice in plan.metrics],
        "watch": {
            "count": plan.snapshots.count,
            "metrics": [choice_record(choice) for choice in plan.snapshots.metrics],
            "select": None if plan.snapshots.select is None else choice_record(plan.snapshots.select),
        },
        "plugins": [str(file.resolve()) for file in registry.files],
        "without": list(registry.disabled),
        "any_source": registry.allow_changed_source,
        "command": command,
        "threads": torch.get_num_threads(),
        "training_threads": plan.threads,
        "jobs": 1,
    }


def place_of(record: Mapping[str, Any]) -> DataConfig:
    """The place in a brief."""
    return DataConfig(**{**record, "data_root": Path(record["data_root"]), "cache": Path(record["cache"])})


def plan_of(record: Mapping[str, Any], run: Run, images: Images) -> Plan:
    """The part of the plan that concerns one run."""
    watch = record["watch"]
    select = None if watch["select"] is None else choice_of(watch["select"])
    counts = (len(images.train), len(images.test), len(images.validation))
    return Plan(
        (run,),
        tuple(choice_of(metric) for metric in record["metrics"]),
        DatasetInfo(images.shape, *counts),
        {},
        SnapshotSchedule(watch["count"], tuple(choice_of(metric) for metric in watch["metrics"]), select),
        record["training_threads"],
    )


def choice_record(choice: Component) -> dict[str, Any]:
    """A choice as JSON data."""
    return {**asdict(choice), "options": choice.values}


def choice_of(record: Mapping[str, Any]) -> Component:
    """The choice that `choice_record` describes."""
    return Component(record["name"], tuple(sorted(record["options"].items())), record["fingerprint"])


def moment_record(moment: TrainState) -> dict[str, Any]:
    """A moment of a training as JSON data."""
    return {**asdict(moment), "terms": dict(moment.terms)}


def moment_of(record: Mapping[str, Any]) -> TrainState:
    """The moment that `moment_record` describes."""
    return TrainState(**record)


def plugin_texts(files: list[str]) -> list[tuple[str, str]]:
    """Name and text of each plug-in file: it may not lie on other machines."""
    return [(Path(file).name, Path(file).read_text(encoding="utf-8")) for file in files]


# ---------------------------------------------------------------- images


def image_tensors(images: Images) -> dict[str, Tensor]:
    """The tensors of a dataset by field; fields without one are left out."""
    found = {name: getattr(images, name) for name in TENSORS}
    return {name: tensor.contiguous() for name, tensor in found.items() if tensor is not None}


def image_facts(images: Images) -> dict[str, Any]:
    """Everything else of a dataset, and the shapes and dtypes of its tensors, as JSON data."""
    tensors = {
        name: {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
        for name, tensor in image_tensors(images).items()
    }
    return {"tensors": tensors, **{name: getattr(images, name) for name in FACTS}}


def images_of(facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Images:
    """The dataset of such facts and tensors."""
    given: dict[str, Any] = {**tensors, **{name: facts[name] for name in FACTS}}
    return replace(Images(**given), class_names=tuple(facts["class_names"]))


def map_images(facts: Mapping[str, Any], paths: Mapping[str, str]) -> Images:
    """The dataset in files of raw bytes: the system keeps one copy of them, however many processes map it.

    The maps are private: what a plug-in writes into them reaches no other process.
    """
    tensors = {}
    for name, told in facts["tensors"].items():
        shape, dtype = told["shape"], DTYPES[told["dtype"]]
        size = torch.Size(shape).numel()
        if size:
            tensors[name] = torch.from_file(paths[name], shared=False, size=size, dtype=dtype).reshape(shape)
        else:  # an empty file cannot be mapped
            tensors[name] = torch.empty(shape, dtype=dtype)
    return images_of(facts, tensors)


# ---------------------------------------------------------------- run folders


def read_folder(path: Path, leave: Sequence[str]) -> dict[str, bytes]:
    """The files in and below a run's folder by relative name, but for temporary ones and those to leave."""
    if not path.is_dir():
        return {}
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink())
    named = {str(file.relative_to(path)): file for file in files if not file.name.startswith(".")}
    return {name: file.read_bytes() for name, file in named.items() if name not in leave}


def checked_name(name: str) -> Path:
    """A relative path that stays in its folder; `StoreError` for any other."""
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise StoreError(f"a worker returned a file called {name!r}, which is outside of the run's folder")
    return path


def receive(folder: Path, files: Mapping[str, bytes], sent: tuple[str, ...]) -> None:
    """Write what a worker returned into the run's folder, each file whole or not at all.

    Those whose presence means "done" come last, and what the worker removed of what it was sent goes after them.
    """
    last = {RUN: 0, WEIGHTS: 2, FITTED: 2, METRICS: 3}
    for name in sorted(files, key=lambda name: last.get(name, 1)):
        content = files[name]
        write_atomically(folder / checked_name(name), lambda path, content=content: _fill(path, content))  # type: ignore[misc]
    for name in set(sent) - set(files):
        (folder / checked_name(name)).unlink(missing_ok=True)


def _fill(path: Path, content: bytes) -> None:
    path.write_bytes(content)
