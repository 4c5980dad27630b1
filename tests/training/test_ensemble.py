"""Stacked trainings end with the weights of their solo runs; what cannot be stacked is refused with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from genbench.api import DataConfig, Loss, Model, Noise, OptimizerConfig
from genbench.errors import DivergenceError
from genbench.experiment.build import create_dataset, create_model
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.registry.loader import Registry, load
from genbench.training.cuda_graph import WARM_UP, CapturedStep, CudaRecorder
from genbench.training.ensemble import (
    Draw,
    DrawRecorder,
    Ensemble,
    EnsembleError,
    check_faster,
    check_stackable,
    record_draws,
    step_seconds,
    train_ensemble,
)
from genbench.training.loop import TrainConfig, TrainState, train
from genbench.training.sampler import BatchOrder
from genbench.training.step import EagerStep, StepFactory, TrainContext, create_train_context
from support.tape import TapeRecorder

MODELS = load([]).names("model")
NOT_STACKABLE: dict[str, str] = {}
"""Bundled models whose steps cannot be stacked, and words of the reason."""

PRIORS = {"vmf-vae": ("sphere",)}
"""The priors of models that refuse the normal one."""

STEPS = 9  # of 100 images in batches of 16: the seventh spans two epochs


class Doubled(DrawRecorder):
    """The draws of a float32 training, in float64."""

    def __init__(self, generator: Generator) -> None:
        super().__init__(generator, torch.float64)


def built(registry: Registry, run: Run, data_config: DataConfig) -> tuple[Model, Tensor]:
    images = create_dataset(registry, run.dataset).load(data_config)
    torch.manual_seed(run.seed)
    return create_model(registry, run, images.shape), images.train


def in_float64(registry: Registry, runs: Sequence[Run], data_config: DataConfig) -> list[TrainContext]:
    members = []
    for run in runs:
        model, images = built(registry, run, data_config)
        model = model.double().train()
        context = create_train_context(model, model.prior, images, run.batch, run.seed)
        context.noise.prior, context.noise.model = map(Doubled, context.noise.generators)
        members.append(replace(context, dtype=torch.float64))
    return members


def orders(members: Sequence[TrainContext]) -> list[BatchOrder]:
    return [BatchOrder(len(member.images), member.batch, member.seed, member.device) for member in members]


def step_alone(members: Sequence[TrainContext], steps: int = STEPS) -> None:
    for member, order in zip(members, orders(members), strict=True):
        stepper = EagerStep(member)
        for step in range(steps):
            if step * member.batch // len(member.images) != (step - 1) * member.batch // len(member.images):
                stepper.on_epoch_start(step * member.batch // len(member.images))
            stepper.run(step, order.indices(step))


def step_together(
    members: Sequence[TrainContext], make_step: StepFactory = EagerStep, steps: int = STEPS
) -> dict[str, Tensor]:
    stepper = make_step(Ensemble(members, record_draws(members[0])))
    batch, total = members[0].batch, len(members[0].images)
    for step in range(steps):
        if step * batch // total != (step - 1) * batch // total:
            stepper.on_epoch_start(step * batch // total)
        stepper.run(step, torch.stack([order.indices(step) for order in orders(members)]))
    assert stepper.how in ("eager", "graph")
    return stepper.take_sums()


def assert_close(expected: Sequence[nn.Module], actual: Sequence[nn.Module], tolerance: float = 1e-10) -> None:
    for solo, member in zip(expected, actual, strict=True):
        assert_close_tensors(solo, member, tolerance)


def assert_close_tensors(solo: nn.Module, member: nn.Module, tolerance: float) -> None:
    tensors = {**dict(member.named_parameters()), **dict(member.named_buffers())}
    for name, expected in (*solo.named_parameters(), *solo.named_buffers()):
        difference = float((tensors[name].detach() - expected.detach()).abs().max())
        assert difference <= tolerance, f"{name}: {difference}"


# ---------------------------------------------------------------- weights


@pytest.mark.parametrize("network", ["mlp", "normed-conv"])
@pytest.mark.parametrize("model", MODELS)
def test_members_end_with_the_weights_of_their_solo_runs(
    model: str, network: str, registry: Registry, planned: Callable[..., Plan], data_config: DataConfig
) -> None:
    settings = (("mlp.width=20",) if network == "mlp" else ()) + tuple(
        f"{name}.width=20" for name in ("wae-gan", "factor-vae") if name == model
    )
    priors = PRIORS.get(model, ("normal",))
    runs = planned(model, priors=priors, network=network, seeds=(0, 5), settings=settings).runs
    solo, stacked = (in_float64(registry, runs, data_config) for _ in range(2))
    if model in NOT_STACKABLE:
        with pytest.raises(EnsembleError, match=NOT_STACKABLE[model]):
            check_stackable(stacked)
        pytest.skip(f"{model} cannot be stacked: {NOT_STACKABLE[model]}")
    check_stackable(stacked)
    step_alone(solo)
    step_together(stacked)
    assert_close([member.model for member in solo], [member.model for member in stacked])


@pytest.mark.parametrize(
    ("model", "prior", "settings"),
    [
        ("swae", "ring", ("swae.weight=1,10", "swae.rate=0.001,0.003", "swae.annealing=1.1")),
        ("swae", "mixture", ("swae.optimizer=rmsprop", "swae.rate=0.001,0.003", "swae.cost=bce-l1")),
        ("wae-gan", "uniform", ("wae-gan.weight=1,10", "wae-gan.critic-rate=0.001,0.0005", "wae-gan.width=20")),
        ("ae", "sphere", ()),
        ("vae", "normal", ("vae.likelihood=learned-sigma", "vae.sigma=0.1,0.3")),
        ("swae", "normal", ("swae.slices=max", "swae.function=circular", "swae.radius=0.5,1")),
        ("swae", "ring", ("swae.slices=distributional", "swae.function=cubic", "swae.dissimilarity=0.1,1")),
        ("rae", "normal", ("rae.regularizer=gradient", "rae.weight=0.1,1")),
        ("rae", "normal", ("rae.regularizer=spectral", "rae.norm=0.1,1")),
        ("vq-vae", "normal", ("vq-vae.codebook=ema", "vq-vae.commitment=0.1,1")),
        ("sinkhorn-ae", "normal", ("sinkhorn-ae.epsilon=0.05,0.5", "sinkhorn-ae.weight=1,10")),
        ("relational-ae", "uniform", ("relational-ae.learn-prior=false", "relational-ae.beta=0.1,1")),
    ],
)
def test_members_may_differ_in_rates_and_in_options_that_are_floats(
    model: str,
    prior: str,
    settings: tuple[str, ...],
    registry: Registry,
    planned: Callable[..., Plan],
    data_config: DataConfig,
) -> None:
    runs = planned(model, priors=(prior,), settings=(*settings, "mlp.width=20"), seeds=(0, 1)).runs
    solo, stacked = (in_float64(registry, runs, data_config) for _ in range(2))
    check_stackable(stacked)
    step_alone(solo)
    step_together(stacked)
    assert_close([member.model for member in solo], [member.model for member in stacked])


def test_a_recorded_step_equals_an_eager_one(
    registry: Registry, planned: Callable[..., Plan], data_config: DataConfig
) -> None:
    runs = planned("wae-gan", settings=("wae-gan.rate=0.001,0.002", "mlp.width=20", "wae-gan.width=20")).runs
    eager, recorded = (in_float64(registry, runs, data_config) for _ in range(2))
    recorder = TapeRecorder()
    expected = step_together(eager)
    sums = step_together(recorded, lambda context: CapturedStep(context, recorder))
    assert recorder.recorded == 1
    assert_close([member.model for member in eager], [member.model for member in recorded], 0.0)
    assert {name: value.tolist() for name, value in sums.items()} == {
        name: value.tolist() for name, value in expected.items()
    }


@pytest.mark.parametrize("kind", ["cuda"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("model", MODELS)
def test_a_cuda_graph_of_an_ensemble_ends_near_its_solo_runs(
    kind: str, model: str, registry: Registry, planned: Callable[..., Plan], data_config: DataConfig
) -> None:
    priors = PRIORS.get(model, ("normal",))
    device = torch.device(kind)
    runs = planned(model, priors=priors, seeds=(0, 1, 2), settings=("mlp.width=20",)).runs
    solo, stacked = [], []
    for members in (solo, stacked):
        for run in runs:
            made, images = built(registry, run, data_config)
            made.to(device).double().train()
            context = create_train_context(made, made.prior, images.to(device), run.batch, run.seed)
            context.noise.prior, context.noise.model = map(Doubled, context.noise.generators)
            members.append(replace(context, dtype=torch.float64))
    step_alone(solo)
    step_together(stacked, lambda context: CapturedStep(context, CudaRecorder(device)))
    assert_close([member.model for member in solo], [member.model for member in stacked], 1e-9)


@pytest.mark.parametrize(
    ("draw", "drawn"),
    [
        (Draw("normal", (3, 5), torch.float32), lambda noise: noise.normal(3, 5)),
        (Draw("normal", (64,), torch.float64), lambda noise: noise.normal(64, dtype=torch.float64)),
        (Draw("uniform", (40,), torch.float32), lambda noise: noise.uniform(40)),
        (Draw("integers", (7, 30), torch.int64), lambda noise: noise.integers(7, 30)),
        (Draw("permutation", (20,), torch.int64), lambda noise: noise.permutation(20)),
    ],
)
def test_draws_are_those_of_noise(draw: Draw, drawn: Callable[[Noise], Tensor]) -> None:
    expected = drawn(Noise(Generator().manual_seed(3)))
    numbers = draw.empty(2, torch.device("cpu"))
    draw.fill(numbers[1], Generator().manual_seed(3))
    assert torch.equal(numbers[1], expected)
    assert numbers.dtype == expected.dtype


# ---------------------------------------------------------------- what cannot be stacked


class Peculiar(nn.Module):
    """A model of two numbers with a step as a test gives it."""

    def __init__(self, step: Callable[[Peculiar, Tensor, Noise], Iterator[Loss]], start: float = 1.0) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.full((3,), start)) for _ in range(2))
        self.step, self.count, self.limit = step, 0, math.inf
        self.register_buffer("factor", torch.ones(()))
        self.prior = _Prior()

    def configure_optimizers(self) -> dict[str, OptimizerConfig]:
        return {
            name: OptimizerConfig((parameter,), lambda p: torch.optim.Adam(p, lr=0.1, fused=True))
            for name, parameter in (("first", self.first), ("second", self.second))
        }

    def on_epoch_start(self, epoch: int) -> None:
        self.factor.fill_(math.inf if epoch >= self.limit else 1.0)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        return self.step(self, x, noise)


class _Prior:
    def sample_batch(self, n: int, noise: Noise) -> Tensor:
        return noise.normal(n, 2)


def harmless(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    yield Loss("first", (model.first * model.factor * (1 + x.mean()) - noise.normal(3)).square().mean())
    yield Loss("second", (model.second + x.mean() ** 2).square().sum())


def needs_the_update(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    yield Loss("first", (model.first - x.mean()).square().sum())
    yield Loss("second", (model.second * model.first.detach() - x.mean()).square().sum())


def asks_for_the_generator(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    yield Loss("first", (model.first * torch.rand(3, generator=noise.generator)).sum())


def drops_out(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    yield Loss("first", nn.functional.dropout(model.first * x.mean()).square().sum())


def draws_more_and_more(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    model.count += 1
    yield Loss("first", (model.first * noise.normal(model.count, 3)).square().sum())


def decides(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    yield Loss("first", model.first.square().sum() if x.mean() > 0.5 else model.first.sum())


def waits(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    yield Loss("first", model.first.square().sum() * float(x.mean().item()))


def steps_twice(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    for _ in range(2):
        yield Loss("first", model.first.square().sum())


def peculiar(*models: Peculiar) -> list[TrainContext]:
    images = torch.randint(0, 256, (50, 1, 4, 4), dtype=torch.uint8, generator=Generator().manual_seed(0))
    return [create_train_context(model, model.prior, images, 10, seed) for seed, model in enumerate(models)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (needs_the_update, "needs parameters that an earlier optimizer has updated"),
        (asks_for_the_generator, "noise.generator"),
        (drops_out, "global random state"),
        (draws_more_and_more, "differ from step to step"),
        (decides, "control flow"),
        (waits, "item"),
        (steps_twice, "two losses"),
    ],
)
def test_a_step_that_cannot_be_stacked_is_refused_with_the_reason(
    step: Callable[[Peculiar, Tensor, Noise], Iterator[Loss]], reason: str
) -> None:
    before = torch.get_rng_state()
    members = peculiar(Peculiar(step), Peculiar(step, start=2.0))
    with pytest.raises(EnsembleError, match=reason):
        check_stackable(members)
    assert torch.equal(torch.get_rng_state(), before)
    check_stackable(peculiar(Peculiar(harmless), Peculiar(harmless, start=2.0)))


class Clipped(torch.optim.SGD):
    """Gradients of all parameters together have a norm of at most 0.001."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1e-3)
        super().step()


class WithClipped(Peculiar):
    def configure_optimizers(self) -> dict[str, OptimizerConfig]:
        return {"first": OptimizerConfig((self.first,), lambda p: Clipped(p, lr=0.1))}


def distance(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    yield Loss("first", (model.first - x.mean()).square().sum())


def test_an_optimizer_that_looks_beyond_each_number_is_refused() -> None:
    with pytest.raises(EnsembleError, match="looks beyond each number"):
        check_stackable(peculiar(WithClipped(distance), WithClipped(distance, start=3.0)))


def test_options_that_decide_what_is_done_are_refused() -> None:
    models = [Peculiar(harmless), Peculiar(harmless)]
    models[1].count = 3
    with pytest.raises(EnsembleError, match="count differs"):
        check_stackable(peculiar(*models))


class Clock:
    """A device on which the recording of a step takes seconds, and a step `step` of them."""

    how = "graph"

    def __init__(self, step: float) -> None:
        self.now, self.step, self.steps = 0.0, step, 0

    def on_epoch_start(self, epoch: int) -> None:
        pass

    def run(self, step: int, indices: Tensor) -> None:
        self.steps += 1
        self.now += 10.0 if self.steps <= WARM_UP + 1 else self.step

    def take_sums(self) -> dict[str, Tensor]:
        return {}


def test_seconds_of_a_step_are_those_of_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    (member,) = peculiar(Peculiar(harmless))
    clock = Clock(0.25)
    monkeypatch.setattr("genbench.training.ensemble.time.perf_counter", lambda: clock.now)
    assert step_seconds(member, lambda context: clock) == pytest.approx(0.25)


@pytest.mark.parametrize(("together", "faster"), [(2.9, True), (3.0, False)])
def test_runs_are_stacked_where_that_was_measured_to_be_faster(
    together: float, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {Ensemble: together, TrainContext: 1.0}
    monkeypatch.setattr("genbench.training.ensemble.step_seconds", lambda context: seconds[type(context)])
    members = peculiar(*(Peculiar(harmless) for _ in range(3)))
    draws = check_stackable(members)
    if faster:
        check_faster(members, draws)
    else:
        with pytest.raises(EnsembleError, match=r"all takes 3e\+03 ms, and 3 steps one after another 3e\+03 ms"):
            check_faster(members, draws)


class Fading(Peculiar):
    """The rate of the first optimizer fades, and a weight grows, each at the model's pace."""

    def __init__(self, pace: float) -> None:
        super().__init__(weighted)
        self.pace, self.weight = pace, 0.0

    def configure_optimizers(self) -> dict[str, OptimizerConfig]:
        first, second = super().configure_optimizers().values()
        return {"first": replace(first, schedule=lambda epoch: self.pace**epoch), "second": second}

    def on_epoch_start(self, epoch: int) -> None:
        self.weight = (1.0 - self.pace) * epoch


def weighted(model: Peculiar, x: Tensor, noise: Noise) -> Iterator[Loss]:
    yield Loss("first", (model.first - x.mean()).square().sum())
    yield Loss("second", (model.second * vars(model)["weight"] + model.second - x.mean()).square().sum())


@pytest.mark.parametrize("recorded", [False, True])
def test_rates_and_attributes_may_part_at_a_later_epoch(recorded: bool) -> None:
    """In the first epoch all are the same; those of the first member, whose operations are recorded, never change."""
    solo, stacked = (peculiar(Fading(1.0), Fading(0.5), Fading(0.25)) for _ in range(2))
    for members in (solo, stacked):
        for member in members:
            member.model.double()
    solo, stacked = ([replace(member, dtype=torch.float64) for member in members] for members in (solo, stacked))
    check_stackable(stacked)
    recorder = TapeRecorder()
    step_alone(solo, 20)
    step_together(stacked, (lambda context: CapturedStep(context, recorder)) if recorded else EagerStep, 20)
    assert recorder.recorded == 2 * recorded
    assert_close([member.model for member in solo], [member.model for member in stacked])


# ---------------------------------------------------------------- the loop


def configs(folder: Path, images: int, members: int, **fields: float) -> list[TrainConfig]:
    return [TrainConfig(images, 10, k, folder / f"{k}.safetensors", f"key {k}", **fields) for k in range(members)]  # type: ignore[arg-type]


def test_a_member_that_diverges_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    def make() -> list[Peculiar]:
        models = [Peculiar(harmless, start=1.0 + k) for k in range(3)]
        models[0].limit = 2.0  # the loss is infinite from the third epoch on
        return models

    images = peculiar(*make())[0].images
    models, alone = make(), make()
    draws = check_stackable(peculiar(*make()))
    log = list(train_ensemble(models, images, configs(tmp_path, 200, 3, log_seconds=0.0), draws))  # type: ignore[arg-type]
    assert [sorted(states) for states in log] == [[0, 1, 2]] * 11 + [[1, 2]] * 9
    assert isinstance(log[10][0], DivergenceError)
    assert "first" in str(log[10][0])
    for k in (1, 2):
        *_, last = train(alone[k], alone[k].prior, images, configs(tmp_path, 200, 3, log_seconds=0.0)[k])  # type: ignore[arg-type]
        assert_close_tensors(alone[k], models[k], 1e-5)
        state = log[-1][k]
        assert isinstance(state, TrainState)
        assert state.terms == pytest.approx(last.terms, rel=1e-3)
        assert (state.step, state.images, state.how, state.ensemble) == (20, 200, "eager", 2)


def test_all_members_may_diverge(tmp_path: Path) -> None:
    models = [Peculiar(harmless) for _ in range(2)]
    for model in models:
        model.limit = 0.0
    images = peculiar(*models)[0].images
    draws = check_stackable(peculiar(Peculiar(harmless), Peculiar(harmless)))
    (states,) = train_ensemble(models, images, configs(tmp_path, 200, 2, log_seconds=0.0), draws)  # type: ignore[arg-type]
    assert all(isinstance(state, DivergenceError) for state in states.values())


@pytest.mark.parametrize("model", ["swae", "wae-gan"])
def test_checkpoints_of_members_and_of_solo_runs_are_the_same(
    model: str, registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    """Solo to step 4, as an ensemble to step 9, solo to the end: the weights of an uninterrupted solo run."""
    settings = ("mlp.width=20", *(("wae-gan.width=20",) if model == "wae-gan" else ()))
    runs = planned(model, seeds=(0, 1), settings=settings, images=240).runs
    whole, parts = ([built(registry, run, data_config) for run in runs] for _ in range(2))
    draws = check_stackable(
        [create_train_context(m, m.prior, x, 16, r.seed) for (m, x), r in zip(whole, runs, strict=True)]
    )

    def config(run: Run) -> TrainConfig:
        return TrainConfig(run.images, run.batch, run.seed, tmp_path / run.name, run.key, log_seconds=0.0)

    def after(steps: int) -> Callable[[], bool]:
        asked = iter(range(1, 1000))
        return lambda: next(asked) >= steps

    for (solo, images), run in zip(whole, runs, strict=True):
        list(train(solo, solo.prior, images, config(run)))
    for (part, images), run in zip(parts, runs, strict=True):
        list(train(part, part.prior, images, config(run), stop=after(4)))
    stacked, images = [built(registry, run, data_config)[0] for run in runs], parts[0][1]
    log = list(train_ensemble(stacked, images, [config(run) for run in runs], draws, stop=after(5)))
    assert [states[0].step for states in log if isinstance(states[0], TrainState)] == [5, 6, 7, 8, 9]
    resumed = [built(registry, run, data_config)[0] for run in runs]
    for part, run in zip(resumed, runs, strict=True):
        first, *_ = train(part, part.prior, images, config(run))
        assert first.step == 10
        list(train(part, part.prior, images, config(run)))
    assert_close([solo for solo, _ in whole], resumed, 1e-4 if model == "swae" else 1e-2)
