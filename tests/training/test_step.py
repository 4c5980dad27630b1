"""A step recorded once and replayed does what the eager one does, exactly, for every model; else it says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genbench.api import DataConfig, Loss, Model, Noise, OptimizerConfig, Prior
from genbench.experiment.build import create_dataset, create_model, create_prior
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.training.cuda_graph import WARM_UP, CapturedStep, CudaRecorder
from genbench.training.loop import TrainConfig, TrainState, train
from genbench.training.precision import computing
from genbench.training.step import EagerStep, Step, StepFactory, TrainContext
from support.tape import TapeRecorder

MODELS = ("ae", "swae", "vae", "wae-gan", "wae-mmd")
NOTEBOOKS = ("swae.annealing=1.1", "swae.optimizer=rmsprop", "swae.cost=bce-l1", "swae.weight=10")


class Kept:
    """Makes captured steps on a tape, and keeps the last one to look at."""

    def __init__(self) -> None:
        self.recorder = TapeRecorder()
        self.step: CapturedStep | None = None

    def __call__(self, context: TrainContext) -> Step:
        self.step = CapturedStep(context, self.recorder)
        return self.step


def built(registry: Registry, run: Run, data_config: DataConfig) -> tuple[Model, Tensor]:
    images = create_dataset(registry, run.dataset).load(data_config)
    torch.manual_seed(run.seed)
    return create_model(registry, run, images.shape), images.train


def trained(
    registry: Registry,
    run: Run,
    data_config: DataConfig,
    path: Path,
    make_step: StepFactory = EagerStep,
    stop_at: int = 10**6,
) -> tuple[Model, list[TrainState]]:
    model, images = built(registry, run, data_config)
    torch.manual_seed(1)
    config = TrainConfig(run.images, run.batch, run.seed, path, run.key, (5, 11, 12), log_seconds=1e9)
    prior, asked = create_prior(registry, run), iter(range(1, 10**7))
    with computing(model, run.precision, torch.device("cpu")):
        states = train(model, prior, images, config, stop=lambda: next(asked) >= stop_at, make_step=make_step)
        return model, list(states)


def assert_equal(expected: nn.Module, actual: nn.Module) -> None:
    for (name, a), b in zip(expected.state_dict().items(), actual.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


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
    data_config: DataConfig,
    tmp_path: Path,
) -> None:
    settings = ("dots.size=12", *(setting.replace("log_density", "log-density") for setting in settings))
    run = planned(model, network=network, settings=settings, priors=(prior,), images=480).runs[0]
    eager, expected = trained(registry, run, data_config, tmp_path / "eager")
    kept = Kept()
    replayed, actual = trained(registry, run, data_config, tmp_path / "replayed", kept)
    assert kept.step is not None
    assert kept.step.how == actual[-1].how == "graph"
    assert (kept.recorder.warmed, kept.recorder.recorded) == (WARM_UP, 1)
    assert_equal(eager, replayed)
    assert [state.terms for state in actual] == [state.terms for state in expected]


def test_a_run_goes_on_from_steps_of_either_kind(
    registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run = planned("wae-gan", images=480).runs[0]
    whole, _ = trained(registry, run, data_config, tmp_path / "whole")
    for make_step, stop_at in ((Kept(), 9), (EagerStep, 4), (Kept(), 10**6)):
        resumed, states = trained(registry, run, data_config, tmp_path / "parts", make_step, stop_at)  # type: ignore[arg-type]
    assert states[-1].step == 30
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

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        yield Loss("all", self.loss(self))


def descend(line: Line, make_step: StepFactory, prior: Prior, path: Path) -> list[TrainState]:
    images = torch.zeros(50, 1, 4, 4, dtype=torch.uint8)  # five steps an epoch
    config = TrainConfig(200, 10, 0, path, "k", log_seconds=1e9)
    return list(train(line, prior, images, config, make_step=make_step))  # type: ignore[arg-type]


def steepen(line: Line, epoch: int) -> None:
    line.slope = 1.0 + epoch // 2


def test_numbers_that_change_at_an_epoch_are_recorded_anew(
    registry: Registry, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    prior, kept = create_prior(registry, planned().runs[0]), Kept()
    eager, replayed = (Line(lambda line: line.slope * line.weight.square(), steepen) for _ in range(2))
    for line in (eager, replayed):
        line.schedule = lambda epoch: 0.1 if epoch < 3 else 0.01
    descend(eager, EagerStep, prior, tmp_path / "a")
    descend(replayed, kept, prior, tmp_path / "b")
    assert_equal(eager, replayed)
    assert kept.recorder.recorded == 3  # epochs 0 and 1; 2, steeper; 3, slower


def wait(line: Line) -> Tensor:
    return line.weight * float(line.weight.item() > -1e9)


def counting(line: Line) -> Tensor:
    line.count += 1
    return line.weight * line.count


@pytest.mark.parametrize(("loss", "reason"), [(wait, "capturing"), (counting, "count changes within a step")])
def test_a_step_that_cannot_be_captured_runs_eagerly_and_says_so(
    loss: Callable[[Line], Tensor],
    reason: str,
    registry: Registry,
    planned: Callable[..., Plan],
    tmp_path: Path,
) -> None:
    prior = create_prior(registry, planned().runs[0])
    eager, fallen_back = Line(loss), Line(loss)
    expected = descend(eager, EagerStep, prior, tmp_path / "a")
    actual = descend(fallen_back, Kept(), prior, tmp_path / "b")
    assert_equal(eager, fallen_back)
    assert actual[-1].how.startswith("eager: ")
    assert reason in actual[-1].how
    assert actual[-1].logged()["how"] == actual[-1].how
    assert "how" not in expected[-1].logged()
    assert actual[-1].terms == expected[-1].terms


# ---------------------------------------------------------------- on a GPU


@pytest.mark.parametrize("kind", ["cuda"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", MODELS)
def test_a_cuda_graph_equals_eager_steps(
    kind: str, model: str, registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run, device, ends = planned(model, images=480).runs[0], torch.device(kind), []
    config = TrainConfig(run.images, run.batch, run.seed, tmp_path / "c", "k")
    factories: dict[str, StepFactory] = {
        "eager": EagerStep,
        "graph": lambda context: CapturedStep(context, CudaRecorder(device)),
    }
    for how, make_step in factories.items():
        made, images = built(registry, run, data_config)
        prior = create_prior(registry, run)
        *_, last = train(made.to(device), prior, images.to(device), config, make_step=make_step)
        assert last.how == how
        ends.append(made)
    for (name, eager), replayed in zip(ends[0].state_dict().items(), ends[1].state_dict().values(), strict=True):
        torch.testing.assert_close(eager, replayed, msg=name)
