"""The wiring of a study: load the data once, then train, picture and measure each run that still needs it."""

from __future__ import annotations

import fcntl
import gc
import resource
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from genbench.api import Images, Measurement, Model, Place, Progress, TrainingRecord
from genbench.checkpoints import load_weights, save_weights
from genbench.errors import DataError, GenbenchError, MetricError, StoreError
from genbench.evaluate import RunEvaluation
from genbench.files import load_tensors, write_json
from genbench.images import save_grid, to_uint8
from genbench.plan import Choice, Plan, Run, make_dataset, make_metric, make_model, make_prior
from genbench.plugins import Catalogue
from genbench.random import derive
from genbench.store import CHECKPOINT, RECONSTRUCTIONS, SAMPLES, TRAINING, WEIGHTS, RunFolder
from genbench.train import Budget, Moment, train

PICTURED = 64


class Listener(Protocol):
    """Who is told how a study goes; the command line shows it."""

    def preparing(self, progress: Progress) -> None:
        """The dataset is being decoded or generated."""

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        """Run `index` (from 1) of those that need work begins."""

    def trained(self, moment: Moment) -> None:
        """A log point of the training."""

    def measuring(self, metric: str) -> None:
        """A metric begins."""

    def ended(self, run: Run, problem: str) -> None:
        """The run is done, or failed with a problem, or was left to another process."""


class Deaf:
    """The listener that shows nothing."""

    def preparing(self, progress: Progress) -> None:
        """Nothing."""

    def began(self, index: int, total: int, run: Run, state: str) -> None:
        """Nothing."""

    def trained(self, moment: Moment) -> None:
        """Nothing."""

    def measuring(self, metric: str) -> None:
        """Nothing."""

    def ended(self, run: Run, problem: str) -> None:
        """Nothing."""


@dataclass
class Outcome:
    """What became of a plan's runs, by name."""

    skipped: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False


@dataclass(frozen=True)
class Bench:
    """Everything that the runs of one command share."""

    catalogue: Catalogue
    store: Path
    place: Place
    device: torch.device
    provenance: Mapping[str, Any]
    listener: Listener
    stop: Callable[[], bool]

    def folder(self, run: Run) -> RunFolder:
        """Where a run lives."""
        return RunFolder(self.store / run.name)

    def missing(self, run: Run, metrics: tuple[Choice, ...]) -> list[Choice]:
        """The metrics that a run still lacks; one that failed counts as lacking."""
        found = self.folder(run).measurements()
        return [metric for metric in metrics if metric.key not in found or found[metric.key].get("error")]

    def complete(self, run: Run, metrics: tuple[Choice, ...]) -> bool:
        """Whether nothing is left to do for a run."""
        return self.folder(run).state == "trained" and not self.missing(run, metrics)

    def conduct(self, plan: Plan) -> Outcome:
        """Do what the plan still lacks; a run that fails is recorded and the others go on."""
        outcome = Outcome()
        todo = [run for run in plan.runs if not self.complete(run, plan.metrics)]
        outcome.skipped = [run.name for run in plan.runs if run not in todo]
        if not todo:
            return outcome
        dataset = make_dataset(self.catalogue, plan.runs[0].dataset)
        images = on_device(dataset.load(replace(self.place, report=self.listener.preparing)), self.device)
        memory: dict[str, Any] = {}
        for index, run in enumerate(todo, 1):
            self.listener.began(index, len(todo), run, self.folder(run).state)
            problem = self._attempt(run, plan.metrics, images, memory)
            if self.stop():
                outcome.interrupted = True
                break
            self.listener.ended(run, problem)
            if problem:
                outcome.failed[run.name] = problem
            else:
                outcome.done.append(run.name)
        return outcome

    def _attempt(self, run: Run, metrics: tuple[Choice, ...], images: Images, memory: dict[str, Any]) -> str:
        """Train and measure one run; "" or why it failed."""
        folder = self.folder(run)
        try:
            with claimed(folder.path), isolated(self.device):
                folder.begin(run.record(), {**self.provenance, "content": images.content})
                if folder.record()["provenance"].get("content") != images.content:
                    raise StoreError(f"{folder.path} was begun on other data: move it away, or restore the dataset")
                folder.forget_failure()
                model = self._train(run, folder, images)
                if model is None:
                    return ""
                return self._measure(run, model, folder, self.missing(run, metrics), images, memory)
        except BusyError:
            return "in work by another process"
        except Exception as error:  # a plug-in may raise anything; it must not take the other runs down
            kind, message = explain(error, run)
            if not isinstance(error, StoreError):
                folder.fail(kind, message, traceback.format_exc())
            release_memory()
            return f"{kind}: {message}"

    def _train(self, run: Run, folder: RunFolder, images: Images) -> Model | None:
        """The trained model, from its weights or by training; None where it was interrupted."""
        torch.manual_seed(derive(run.seed, "weights"))
        model = make_model(self.catalogue, run, images.shape).to(self.device)
        if folder.state == "trained":
            return restored(model, run, folder)
        torch.manual_seed(derive(run.seed, "global"))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        budget, moment = Budget(run.images, run.batch, run.seed), None
        prior, checkpoint = make_prior(self.catalogue, run), folder.path / CHECKPOINT
        for moment in train(model, prior, images.train, budget, checkpoint, key=run.key, stop=self.stop):
            folder.log({name: value for name, value in asdict(moment).items() if name != "steps"})
            self.listener.trained(moment)
        if moment is None or moment.step < budget.steps:
            return None
        parameters = sum(parameter.numel() for parameter in model.parameters())
        record = TrainingRecord(moment.seconds, moment.images, parameters, peak_memory(self.device))
        write_json(folder.path / TRAINING, {"schema": 1, **asdict(record)})
        shape = "x".join(map(str, images.shape))
        save_weights(folder.path / WEIGHTS, model, {"key": run.key, "shape": shape})
        checkpoint.unlink(missing_ok=True)
        return model

    def _measure(
        self,
        run: Run,
        model: Model,
        folder: RunFolder,
        metrics: list[Choice],
        images: Images,
        memory: dict[str, Any],
    ) -> str:
        """Take the pictures and the measurements that are missing; "" or which metrics failed."""
        evaluation = self.evaluation(run, model, folder, images, memory)
        if not (folder.path / RECONSTRUCTIONS).exists():
            save_grid(folder.path / SAMPLES, evaluation.samples(PICTURED))
            save_grid(folder.path / RECONSTRUCTIONS, pairs(evaluation, PICTURED // 2))
        problems = []
        for choice in metrics:
            if self.stop():
                break
            self.listener.measuring(choice.name)
            entry = measure(self.catalogue, choice, evaluation)
            others = {
                key: other
                for key, other in folder.measurements().items()
                if (other["metric"], other["options"]) != (choice.name, choice.values)
            }
            folder.save_measurements({**others, choice.key: entry})
            if entry["error"]:
                problems.append(f"{choice.name}: {entry['error']}")
        return "; ".join(problems)

    def evaluation(
        self, run: Run, model: Model, folder: RunFolder, images: Images, memory: dict[str, Any]
    ) -> RunEvaluation:
        """The evaluation of a trained run."""
        known = {name.name for name in fields(TrainingRecord)}
        record = TrainingRecord(**{name: value for name, value in folder.training().items() if name in known})
        return RunEvaluation(
            model,
            model.setting,
            images,
            seed=run.seed,
            device=self.device,
            training=record,
            place=self.place,
            memory=memory,
        )


def trained_model(catalogue: Catalogue, run: Run, folder: RunFolder, device: torch.device) -> Model:
    """The trained model of a run folder."""
    if folder.state != "trained":
        raise StoreError(f"{folder.path} is not trained ({folder.state}): finish it with the command that began it")
    _, facts = load_tensors(folder.path / WEIGHTS)
    c, h, w = (int(size) for size in facts["shape"].split("x"))
    return restored(make_model(catalogue, run, (c, h, w)).to(device), run, folder)


def restored(model: Model, run: Run, folder: RunFolder) -> Model:
    """The model with the run's trained weights; `StoreError` where they are another run's, or damaged."""
    try:
        tensors, facts = load_tensors(folder.path / WEIGHTS)
    except DataError as error:
        raise StoreError(f"{error}; move it away and repeat the command to train it again") from None
    if facts.get("key") != run.key:
        raise StoreError(f"{folder.path / WEIGHTS} belongs to another run: move it away")
    load_weights(folder.path / WEIGHTS, model, tensors)
    return model


def measure(catalogue: Catalogue, choice: Choice, evaluation: RunEvaluation) -> dict[str, Any]:
    """One metric's entry for metrics.json: its numbers, or why it has none."""
    entry: dict[str, Any] = {"metric": choice.name, "options": choice.values, "error": "", "numbers": []}
    try:
        with torch.no_grad():
            for number in make_metric(catalogue, choice).measure(evaluation):
                entry["numbers"].append(as_plain(number))
    except Exception as error:  # a metric that fails must not cost the others
        entry["error"] = str(error) if isinstance(error, GenbenchError) else f"{type(error).__name__}: {error}"
        entry["numbers"] = []
    return entry


def as_plain(number: Measurement) -> dict[str, Any]:
    """A measurement as JSON data; raises where the value is no finite number."""
    value = float(number.value)
    if value != value or value in (float("inf"), float("-inf")):
        raise MetricError(f"the value{f' of {number.part}' if number.part else ''} is not finite ({value})")
    plain = {name.name: getattr(number, name.name) for name in fields(number) if name.name != "protocol"}
    return plain | {"value": value, "protocol": number.protocol.key, "how": asdict(number.protocol)}


def pairs(evaluation: RunEvaluation, n: int, columns: int = 8) -> Tensor:
    """Originals and their reconstructions in alternating rows of `columns`, `(2n, c, h, w)` uint8."""
    n = min(n, len(evaluation.images.test))
    real, rebuilt = evaluation.held_out(n), to_uint8(evaluation.reconstructions(n).clone())
    rows = zip(real.split(columns), rebuilt.split(columns), strict=True)
    return torch.cat([row for pair in rows for row in pair])


# ---------------------------------------------------------------- surroundings


class BusyError(Exception):
    """Another process works on this run."""


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Hold a run's folder; the operating system gives it free when the process ends, however it ends."""
    path.mkdir(parents=True, exist_ok=True)
    with (path / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError from None
        yield


@contextmanager
def isolated(device: torch.device) -> Iterator[None]:
    """Restore torch's global random state and default dtype, whatever a plug-in did to them."""
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def on_device(images: Images, device: torch.device) -> Images:
    """The images with every split on the device: one copy, shared by all runs."""
    moved = {name: getattr(images, name).to(device) for name in ("train", "test", "validation")}
    return replace(images, **moved)


def explain(error: Exception, run: Run) -> tuple[str, str]:
    """The kind of a failure and one line about it."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text:
        return "out of memory", f"with batch {run.batch} ({text[:120]}); try a smaller --batch"
    if isinstance(error, GenbenchError):
        return type(error).__name__, text
    return type(error).__name__, text[:300] or "no message"


def release_memory() -> None:
    """Give back what a failed run held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory(device: torch.device) -> int:
    """Bytes: the device's peak since the training began, or on a CPU the process's peak so far."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
