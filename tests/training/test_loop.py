"""The loop: a resumed run equals an uninterrupted one, each image once an epoch, no number without a finite loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import pytest
import torch
from torch import Tensor, nn

from genbench.api import DataConfig, Loss, Noise, OptimizerConfig
from genbench.errors import DivergenceError, StoreError
from genbench.experiment.build import create_dataset, create_model, create_prior
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.registry.loader import Registry
from genbench.training.loop import TrainConfig, TrainState, train
from genbench.training.sampler import BatchOrder

MODELS = ("ae", "swae", "vae", "wae-gan", "wae-mmd")


def trained(
    registry: Registry, run: Run, data_config: DataConfig, folder: Path, stop: Callable[[], bool] = lambda: False
) -> tuple[nn.Module, list[TrainState]]:
    images = create_dataset(registry, run.dataset).load(data_config)
    torch.manual_seed(run.seed)
    model = create_model(registry, run, images.shape)
    torch.manual_seed(1)
    checkpoint = folder / "checkpoint.safetensors"
    config = TrainConfig(run.images, run.batch, run.seed, checkpoint, run.key, log_seconds=0.0)
    return model, list(train(model, model.prior, images.train, config, stop=stop))


def after(steps: int) -> Callable[[], bool]:
    """Turns true when asked for the `steps`-th time, which the loop does once a step."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= steps


@pytest.mark.parametrize(
    ("model", "network", "size"),
    [
        *((model, "mlp", 12) for model in MODELS),
        ("wae-gan", "conv", 28),
        ("swae", "normed", 12),
        ("wae-gan", "normed", 12),
        ("vamp-vae", "normed", 12),
        ("vae on learned-mixture", "mlp", 12),
        ("vae on flow", "mlp", 12),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    model: str,
    network: str,
    size: int,
    registry: Registry,
    planned: Callable[..., Plan],
    data_config: DataConfig,
    tmp_path: Path,
) -> None:
    model, _, prior = model.partition(" on ")
    settings = (f"dots.size={size}",)
    run = planned(model, priors=(prior or "normal",), network=network, settings=settings, images=480).runs[0]
    whole, states = trained(registry, run, data_config, tmp_path)
    assert states[-1].step == 30
    (tmp_path / "parts").mkdir()
    for steps in (7, 5, 11):  # three interruptions, one of them within the first epoch
        _, interrupted = trained(registry, run, data_config, tmp_path / "parts", after(steps))
        assert interrupted[-1].step < 30
    resumed, states = trained(registry, run, data_config, tmp_path / "parts")
    assert states[0].step == 24
    for (name, expected), actual in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, actual), name


def test_each_image_is_shown_once_in_an_epoch() -> None:
    order = BatchOrder(total=100, batch=16, seed=3, device=torch.device("cpu"))
    stream = torch.cat([order.indices(step) for step in range(25)])  # four epochs
    for epoch in range(4):
        assert torch.equal(stream[epoch * 100 : (epoch + 1) * 100].sort().values, torch.arange(100))
    assert not torch.equal(stream[:100], stream[100:200])


def test_the_order_is_a_function_of_the_step_and_the_seed_alone() -> None:
    order = BatchOrder(100, 16, 3, torch.device("cpu"))
    forward = [order.indices(step) for step in range(20)]
    fresh = [BatchOrder(100, 16, 3, torch.device("cpu")).indices(step) for step in range(20)]
    assert all(torch.equal(a, b) for a, b in zip(forward, fresh, strict=True))
    assert not torch.equal(forward[0], BatchOrder(100, 16, 4, torch.device("cpu")).indices(0))


class Bomb(nn.Module):
    """A model whose loss is infinite from the fifth step on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.step = 0
        self.epochs: list[int] = []

    @classmethod
    def harmless(cls) -> Self:
        """A model whose loss stays finite."""
        model = cls()
        model.step = -(10**6)
        return model

    def configure_optimizers(self) -> dict[str, OptimizerConfig]:
        return {"all": OptimizerConfig((self.weight,), lambda p: torch.optim.SGD(p, lr=0.5), lambda epoch: 0.1**epoch)}

    def on_epoch_start(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        self.step += 1
        yield Loss("all", self.weight.sum() * (torch.inf if self.step >= 5 else 1.0))


def test_a_loss_that_is_not_finite_stops_the_training_and_keeps_the_checkpoint(
    registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run = planned().runs[0]
    images = create_dataset(registry, run.dataset).load(data_config).train
    prior = create_prior(registry, run)
    config = TrainConfig(1600, 16, 0, tmp_path / "checkpoint.safetensors", "k", log_seconds=0.0, save_seconds=0.0)
    with pytest.raises(DivergenceError, match="not finite"):
        list(train(Bomb(), prior, images, config))  # type: ignore[arg-type]
    resumed = list(train(Bomb(), prior, images, config, stop=after(1)))  # type: ignore[arg-type]
    assert resumed[0].step == 5  # steps 1 to 4 were kept


class Slow(Bomb):
    """A model whose step takes a second of `now`."""

    now = 0.0

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        self.now += 1.0
        yield from super().training_step(x, z, noise)


def test_the_time_that_the_caller_takes_is_no_training_time(
    registry: Registry,
    planned: Callable[..., Plan],
    data_config: DataConfig,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, model = planned().runs[0], Slow.harmless()
    images = create_dataset(registry, run.dataset).load(data_config).train
    config = TrainConfig(160, 16, 0, tmp_path / "c", "k", log_seconds=0.0)
    monkeypatch.setattr("genbench.training.loop.time.perf_counter", lambda: model.now)
    states = []
    for state in train(model, create_prior(registry, run), images, config):  # type: ignore[arg-type]
        states.append(state)
        model.now += 100.0
    assert [state.seconds for state in states] == [float(step) for step in range(1, 11)]
    assert {state.rate for state in states} == {16.0}


def test_a_log_point_follows_every_snapshot_step(
    registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run = planned().runs[0]
    images = create_dataset(registry, run.dataset).load(data_config).train
    config = TrainConfig(160, 16, 0, tmp_path / "c", "k", snapshot_steps=(3, 7), log_seconds=1e9)
    states = list(train(Bomb.harmless(), create_prior(registry, run), images, config))  # type: ignore[arg-type]
    assert [state.step for state in states] == [3, 7, 10]


class Poisoned(Bomb):
    """A finite loss whose gradient is not: the square root at zero."""

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        self.step += 1
        yield Loss("all", (self.weight * (0.0 if self.step >= 5 else 1.0)).square().sum().sqrt())


def test_parameters_that_are_not_finite_stop_the_training_though_the_loss_is(
    registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run = planned().runs[0]
    images = create_dataset(registry, run.dataset).load(data_config).train
    config = TrainConfig(1600, 16, 0, tmp_path / "c", "k", log_seconds=0.0, save_seconds=0.0)
    with pytest.raises(DivergenceError, match="parameters are not finite"):
        list(train(Poisoned(), create_prior(registry, run), images, config))  # type: ignore[arg-type]


def test_a_stop_at_the_last_step_is_no_interruption(
    registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run = planned().runs[0]  # ten steps
    _, states = trained(registry, run, data_config, tmp_path, after(10))
    assert states[-1].step == states[-1].steps
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_schedules_multiply_the_rate_from_their_epoch_on(
    registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run = planned().runs[0]
    images = create_dataset(registry, run.dataset).load(data_config).train
    model = Bomb.harmless()
    config = TrainConfig(300, 50, 0, tmp_path / "c", "k")
    list(train(model, create_prior(registry, run), images, config))  # type: ignore[arg-type]
    assert model.epochs == [0, 1, 2]
    assert model.weight.item() == pytest.approx(1 - 2 * 0.5 * (1 + 0.1 + 0.01))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign", "of another run"])
def test_a_damaged_or_foreign_checkpoint_is_refused(
    damage: str, registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run = planned().runs[0]
    trained(registry, run, data_config, tmp_path, after(3))
    path = tmp_path / "checkpoint.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[-100] ^= 1
    elif damage == "foreign":
        content = bytearray(b"\x80\x04not safetensors")
    else:
        run = planned("swae", seeds=(1,)).runs[0]
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"checkpoint\.safetensors"):
        trained(registry, run, data_config, tmp_path)
