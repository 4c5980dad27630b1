"""What a study will take: its runs, the time of training and evaluation, and the disk, before anything is trained.

Times come from runs in the same folder that were trained or measured alike, else from a few timed training steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch

from genbench.errors import GenbenchError
from genbench.experiment.build import create_model
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.storage.run_dir import RunRecord
from genbench.training.cuda_graph import default_step
from genbench.training.device import apply_device_config, select_device_config
from genbench.training.precision import computing
from genbench.training.step import create_train_context
from genbench.utils.torch_state import isolated

TIMED_SECONDS = 0.5
"""Time for which steps of a model are timed, after two that warm up."""

PICTURES_BYTES = 300_000
"""Of a run's pictures, records and log, roughly."""

Kind = tuple[str, str, str, int, int, str]


@dataclass(frozen=True)
class StudyEstimate:
    """Seconds and bytes of the runs that are not done.

    Attributes:
        runs: How many there are.
        training: Seconds of all trainings, one after another; None where no model could be timed.
        evaluation: Seconds of all measurements that could be estimated.
        unknown: Metrics that no run in the folder was measured by, and whose seconds are therefore unknown.
        disk: Bytes of weights, snapshots and pictures.
    """

    runs: int
    training: float | None
    evaluation: float
    unknown: tuple[str, ...]
    disk: int

    @property
    def words(self) -> str:
        """One line, as `genbench run --dry-run` prints it."""
        stated = (("training", self.training), ("evaluation", self.evaluation))
        parts = [f"{name} {in_time(seconds)}" for name, seconds in stated if seconds]
        times = " and ".join(parts) or "time unknown"
        missing = f" (beside {', '.join(self.unknown)}: not measured here yet)" if self.unknown else ""
        disk = f"; disk {self.disk / 2**20:,.0f} MiB" if self.disk else ""
        counted = f"{self.runs} run{'s' * (self.runs != 1)}"
        return f"estimate for {counted}, one after another: {times}{missing}{disk}"


def estimate(
    plan: Plan,
    done: Collection[str],
    records: Sequence[RunRecord],
    registry: Registry,
    device: torch.device,
) -> StudyEstimate:
    """Estimate the runs of a plan that are not done, from the `records` of runs in the same folder.

    Models without a trained run of the same network, size and batch on the same kind of device are timed.
    """
    missing = [run for run in plan.runs if run.name not in done]
    trained = {record.name for record in records if record.state == "trained"}

    # Training: seconds an image.
    rates = known_rates(records, device)
    training: float | None = 0.0
    for run in missing:
        if not run.trains or run.name in trained:
            continue
        kind = training_kind(run)
        if kind not in rates:
            rates[kind] = timed_rate(run, plan, registry, device)
        rate = rates[kind]
        training = None if rate is None or training is None else training + rate * run.images

    # Evaluation: the median seconds of each metric in other runs on the dataset.
    seconds, unknown = metric_seconds(records, missing[0].dataset.name if missing else ""), []
    evaluation = 0.0
    for metric in plan.metrics:
        if metric.name in seconds:
            evaluation += seconds[metric.name] * len(missing)
        else:
            unknown.append(metric.name)

    # Disk.
    disk = 0
    for run in missing:
        if run.name not in trained:
            disk += 4 * plan.size(run) * (1 + plan.snapshots.count) + PICTURES_BYTES
    return StudyEstimate(len(missing), training, evaluation, tuple(unknown), disk)


def training_kind(run: Run) -> Kind:
    """What decides the seconds of a training step."""
    return run.dataset.name, run.model.name, run.network.name, run.latent_dim, run.batch, run.precision


def known_rates(records: Sequence[RunRecord], device: torch.device) -> dict[Kind, float | None]:
    """Median seconds an image of the trained runs, by kind, on this kind of device."""
    measured: dict[Kind, list[float]] = {}
    for record in records:
        if record.training is None or not record.training.images or record.training.device != device.type:
            continue
        if record.training.ensemble > 1:  # the seconds are those of all members
            continue
        measured.setdefault(training_kind(record.run), []).append(record.training.seconds / record.training.images)
    return {kind: statistics.median(values) for kind, values in measured.items()}


def metric_seconds(records: Sequence[RunRecord], dataset: str) -> Mapping[str, float]:
    """Median seconds of each metric in the runs on a dataset."""
    measured: dict[str, list[float]] = {}
    for record in records:
        for entry in record.measurements.values():
            if entry.seconds is not None and record.run.dataset.name == dataset:
                measured.setdefault(entry.metric, []).append(entry.seconds)
    return {metric: statistics.median(values) for metric, values in measured.items()}


def timed_rate(run: Run, plan: Plan, registry: Registry, device: torch.device) -> float | None:
    """Seconds an image of training steps on random images; None where the model cannot be trained that way."""
    shape = plan.dataset_info.shape
    try:
        with isolated(device):
            images = torch.randint(0, 256, (run.batch, *shape), dtype=torch.uint8, device=device)
            model = create_model(registry, run, shape).to(device)
            config = select_device_config(model, run.batch, device, plan.threads)
            with apply_device_config(model, config), computing(model, run.precision, device):
                model.train()
                step = default_step(create_train_context(model, model.prior, images, run.batch, run.seed))
                step.on_epoch_start(0)
                indices = torch.arange(run.batch, device=device)
                number, started, begun = 0, 0.0, time.perf_counter()
                while number < 3 or time.perf_counter() - begun < TIMED_SECONDS:
                    if number == 2:
                        step.take_sums()
                        started = time.perf_counter()
                    step.run(number, indices)
                    number += 1
                for value in step.take_sums().values():
                    value.item()  # waits for the device
                return (time.perf_counter() - started) / ((number - 2) * run.batch)
    except (GenbenchError, RuntimeError):
        return None


def in_time(seconds: float) -> str:
    """A duration in two units at most.

    >>> in_time(0.2), in_time(75), in_time(4000), in_time(200_000)
    ('1 s', '1 min 15 s', '1 h 7 min', '2 d 8 h')
    """
    rest = max(1, round(seconds))
    parts: list[str] = []
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")):
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(part for part in parts[:2] if part)
