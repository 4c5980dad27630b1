"""A step recorded once and replayed does what the eager one does, exactly, for every model; else it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from genbench.api import DataConfig, Loss, Model, OptimizerConfig
from genbench.experiment.build import create_dataset, create_model, create_prior
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.training.cuda_graph import WARM_UP, CapturedStep, CudaRecorder
from genbench.training.lanes import Lane, isolated
from genbench.training.loop import Budget, TrainState, moments, train
from genbench.training.precision import computing
from genbench.training.step import EagerStep, Step, StepOf, TrainContext
from support.tape import TapeRecorder

MODELS = ("ae", "swae", "vae", "wae-gan", "wae-mmd")
NOTEBOOKS = ("swae.annealing=1.1", "swae.optimizer=rmsprop", "swae.cost=bce-l1", "swae.weight=10")


class Kept:
    """Makes captured steps on a tape, and keeps the last one to look at."""

    def __init__(self) -> None:
        self.recorder = TapeRecorder()
        self.step: CapturedStep | None = None

    def __call__(self, parts: TrainContext) -> Step:
        self.step = CapturedStep(parts, self.recorder)
        return self.step


def built(registry: Registry, run: Run, place: DataConfig) -> tuple[Model, Tensor]:
    images = create_dataset(registry, run.dataset).load(place)
    torch.manual_seed(run.seed)
    return create_model(registry, run, images.shape), images.train


def trained(
    registry: Registry, run: Run, place: DataConfig, path: Path, step_of: StepOf = EagerStep, stop_at: int = 10**6
) -> tuple[Model, list[TrainState]]:
    model, images = built(registry, run, place)
    torch.manual_seed(1)
    budget, asked = Budget(run.images, run.batch, run.seed), iter(range(1, 10**7))
    with computing(model, run.precision, torch.device("cpu")):
        training = train(
            model,
            create_prior(registry, run),
            images,
            budget,
            path,
            key=run.key,
            stop=lambda: next(asked) >= stop_at,
            marks=(5, 11, 12),
            log_seconds=1e9,
            step_of=step_of,
        )
        return model, list(moments(training))


def assert_equal(one: nn.Module, other: nn.Module) -> None:
    for (name, expected), found in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(expected, found), name


@pytest.mark.parametrize(
    ("model", "network", "settings", "prior"),
    [
        *((model, "mlp", (), "normal") for model in MODELS),
        ("swae", "mlp", NOTEBOOKS, "mixture"),
        ("wae-gan", "mlp", ("wae-gan.log_density=yes",), "mixture"),
        ("vae", "normed", ("vae.likelihood=learned-sigma",), "mixture"),
        ("wae-gan", "normed", (), "sphere"),
    ],
)
def test_replayed_steps_equal_eager_ones(
    model: str,
    network: str,
    settings: tuple[str, ...],
    prior: str,
    registry: Registry,
    planned: Callable[..., Plan],
    place: DataConfig,
    tmp_path: Path,
) -> None:
    settings = ("dots.size=12", *(setting.replace("log_density", "log-density") for setting in settings))
    run = planned(model, network=network, settings=settings, priors=(prior,), images=480).runs[0]
    eager, expected = trained(registry, run, place, tmp_path / "eager")
    kept = Kept()
    replayed, found = trained(registry, run, place, tmp_path / "replayed", kept)
    assert kept.step is not None
    assert kept.step.how == found[-1].how == "graph"
    assert (kept.recorder.warmed, kept.recorder.recorded) == (WARM_UP, 1)
    assert_equal(eager, replayed)
    assert [moment.terms for moment in found] == [moment.terms for moment in expected]


def test_a_run_goes_on_from_steps_of_either_kind(
    registry: Registry, planned: Callable[..., Plan], place: DataConfig, tmp_path: Path
) -> None:
    run = planned("wae-gan", images=480).runs[0]
    whole, _ = trained(registry, run, place, tmp_path / "whole")
    for step_of, stop_at in ((Kept(), 9), (EagerStep, 4), (Kept(), 10**6)):
        resumed, found = trained(registry, run, place, tmp_path / "parts", step_of, stop_at)  # type: ignore[arg-type]
    assert found[-1].step == 30
    assert_equal(whole, resumed)


# ---------------------------------------------------------------- what a recording cannot see


class Line(nn.Module):
    """A model of one number, which `change` may alter at each epoch and `loss` makes a loss of."""

    def __init__(
        self, loss: Callable[[Line], Tensor], change: Callable[[Line, int], None] = lambda line, epoch: None
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.loss, self.change = loss, change
        self.slope, self.count = 1.0, 0
        self.schedule: Callable[[int], float] = lambda epoch: 1.0

    def configure_optimizers(self) -> dict[str, OptimizerConfig]:
        return {
            "all": OptimizerConfig(
                (self.weight,), lambda p: torch.optim.SGD(p, lr=0.5), lambda epoch: self.schedule(epoch)
            )
        }

    def on_epoch_start(self, epoch: int) -> None:
        self.change(self, epoch)

    def training_step(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Loss]:
        yield Loss("all", self.loss(self))


def descend(line: Line, step_of: StepOf, prior: object, path: Path) -> list[TrainState]:
    images = torch.zeros(50, 1, 4, 4, dtype=torch.uint8)  # five steps an epoch
    arguments = (prior, images, Budget(200, 10, 0), path)
    training = train(line, *arguments, key="k", stop=lambda: False, log_seconds=1e9, step_of=step_of)  # type: ignore[arg-type]
    return list(moments(training))


def steepen(line: Line, epoch: int) -> None:
    line.slope = 1.0 + epoch // 2


def test_numbers_that_change_at_an_epoch_are_recorded_anew(
    registry: Registry, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    prior, kept = create_prior(registry, planned().runs[0]), Kept()
    one, other = (Line(lambda line: line.slope * line.weight.square(), steepen) for _ in range(2))
    for line in (one, other):
        line.schedule = lambda epoch: 0.1 if epoch < 3 else 0.01
    descend(one, EagerStep, prior, tmp_path / "a")
    descend(other, kept, prior, tmp_path / "b")
    assert_equal(one, other)
    assert kept.recorder.recorded == 3  # epochs 0 and 1; 2, steeper; 3, slower


def wait(line: Line) -> Tensor:
    return line.weight * float(line.weight.item() > -1e9)


def counting(line: Line) -> Tensor:
    line.count += 1
    return line.weight * line.count


@pytest.mark.parametrize(("loss", "reason"), [(wait, "capturing"), (counting, "count changes within a step")])
def test_a_step_that_cannot_be_recorded_is_done_eagerly_and_told(
    loss: Callable[[Line], Tensor],
    reason: str,
    registry: Registry,
    planned: Callable[..., Plan],
    tmp_path: Path,
) -> None:
    prior = create_prior(registry, planned().runs[0])
    one, other = Line(loss), Line(loss)
    expected = descend(one, EagerStep, prior, tmp_path / "a")
    found = descend(other, Kept(), prior, tmp_path / "b")
    assert_equal(one, other)
    assert found[-1].how.startswith("eager: ")
    assert reason in found[-1].how
    assert found[-1].logged()["how"] == found[-1].how
    assert "how" not in expected[-1].logged()
    assert found[-1].terms == expected[-1].terms


# ---------------------------------------------------------------- several at once, and other precisions


def in_turns(trainings: list[Iterator[TrainState | None]], seeds: list[int]) -> list[TrainState]:
    """Advance all by one step in turn, each in a lane that begins in the state of its seed; their last moments."""
    lanes, last = [], dict[int, TrainState]()
    with isolated(torch.device("cpu")):
        for seed in seeds:
            torch.manual_seed(seed)
            lanes.append(Lane(torch.device("cpu")))
        going = list(range(len(trainings)))
        while going:
            for which in tuple(going):
                with lanes[which].turn():
                    moment = next(trainings[which], None)
                if moment is not None:
                    last[which] = moment
                    going = [other for other in going if other != which or moment.step < moment.steps]
    return [last[which] for which in range(len(trainings))]


@pytest.mark.parametrize("step_of", [EagerStep, lambda parts: CapturedStep(parts, TapeRecorder())])
def test_trainings_in_turns_end_as_they_would_alone(
    step_of: StepOf, registry: Registry, planned: Callable[..., Plan], place: DataConfig, tmp_path: Path
) -> None:
    runs = planned("swae", "wae-gan", seeds=(0, 1), images=240).runs
    models, trainings = [], []
    for run in runs:
        model, images = built(registry, run, place)
        budget = Budget(run.images, run.batch, run.seed)
        prior = create_prior(registry, run)
        models.append(model)
        trainings.append(
            train(model, prior, images, budget, tmp_path / run.key, key=run.key, stop=lambda: False, step_of=step_of)
        )
    assert [last.step for last in in_turns(trainings, [1] * len(runs))] == [15] * 4
    for run, model in zip(runs, models, strict=True):
        assert_equal(trained(registry, run, place, tmp_path / "alone", EagerStep)[0], model)


class Drops(Line):
    """A model that draws from torch's global random state, as dropout does."""

    def __init__(self) -> None:
        super().__init__(lambda line: line.weight * torch.rand(()))


def test_each_of_several_trainings_has_torchs_global_random_state_for_itself(
    registry: Registry, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    prior, images = create_prior(registry, planned().runs[0]), torch.zeros(50, 1, 4, 4, dtype=torch.uint8)
    lines = [Drops(), Drops()]
    trainings = [
        train(line, prior, images, Budget(200, 10, 0), tmp_path / "c", key="k", stop=lambda: False)  # type: ignore[arg-type]
        for line in lines
    ]
    before = torch.get_rng_state()
    in_turns(trainings, [7, 8])
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(8)
    alone = Drops()
    descend(alone, EagerStep, prior, tmp_path / "d")
    assert_equal(alone, lines[1])
    assert not torch.equal(lines[0].weight, lines[1].weight)


@pytest.mark.parametrize("kind", ["cuda"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", MODELS)
def test_a_cuda_graph_equals_eager_steps(
    kind: str, model: str, registry: Registry, planned: Callable[..., Plan], place: DataConfig, tmp_path: Path
) -> None:
    run, device, ends = planned(model, images=480).runs[0], torch.device(kind), []
    for captured in (False, True):
        made, images = built(registry, run, place)
        hows = train(
            made.to(device),
            create_prior(registry, run),
            images.to(device),
            Budget(run.images, run.batch, run.seed),
            tmp_path / "c",
            key="k",
            stop=lambda: False,
            step_of=lambda parts, c=captured: CapturedStep(parts, CudaRecorder(device)) if c else EagerStep(parts),  # type: ignore[misc]
        )
        assert [moment.how for moment in moments(hows)][-1] == ("graph" if captured else "eager")
        ends.append(made)
    for (name, expected), found in zip(ends[0].state_dict().items(), ends[1].state_dict().values(), strict=True):
        torch.testing.assert_close(expected, found, msg=name)
