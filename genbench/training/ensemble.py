"""Ensembles: several trainings of equal shapes as one tensor program, each with its solo run's numbers.

Parameters and buffers of all members are stacked; a step of all of them is `torch.func.vmap` over the model's
`training_step`. Each member keeps its data order, its prior draws and its noise, and ends with the weights of its solo
run up to rounding. The tensors of the members' models are views of the stacked ones: checkpoints, snapshots and
`on_epoch_start` work on a member as on any model.
"""

from __future__ import annotations

import copy
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Generator, Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import Optimizer

from genbench.api import Loss, Model, Noise
from genbench.data.images import to_float
from genbench.errors import DivergenceError, GenbenchError, one_line
from genbench.training.checkpoint import load_checkpoint, save_checkpoint
from genbench.training.cuda_graph import WARM_UP, default_step
from genbench.training.loop import TrainConfig, TrainState, finite_means
from genbench.training.sampler import BatchOrder
from genbench.training.step import (
    PURPOSES,
    SoloNoise,
    Step,
    StepContext,
    StepFactory,
    Sums,
    TrainContext,
    add_terms,
    create_train_context,
    make_capturable,
)
from genbench.utils.rng import derive_seed

COMPARED_STEPS = 2
"""Steps of the comparison with solo trainings. A loss that needs updated parameters differs in the first."""

TOLERANCE = 1e-5
"""Largest difference from solo weights after the compared steps, in float64, for the largest change of any weight.

Rounding alone is within 1e-10, and 3e-7 where Adam divides the gradient of a bias before batch norm, which is nothing
but rounding, by its size. A critic's loss taken from the parameters before a step was 1e-2 off.
"""


class EnsembleError(GenbenchError):
    """These trainings cannot be stacked; the message is the reason."""


# ---------------------------------------------------------------- random numbers


@dataclass(frozen=True)
class Draw:
    """One call of a method of `Noise`; `sizes` are the shape, for integers after their bound."""

    kind: Literal["normal", "uniform", "integers", "permutation"]
    sizes: tuple[int, ...]
    dtype: torch.dtype

    def empty(self, members: int, device: torch.device) -> Tensor:
        """Memory for the numbers of all members."""
        shape = self.sizes[1:] if self.kind == "integers" else self.sizes
        return torch.empty(members, *shape, dtype=self.dtype, device=device)

    def fill(self, numbers: Tensor, source: Generator) -> None:
        """Draw the numbers of one member, as `Noise` does, into its memory."""
        match self.kind:
            case "normal":
                numbers.normal_(generator=source)
            case "uniform":
                numbers.uniform_(generator=source)
            case "integers":
                numbers.random_(0, self.sizes[0], generator=source)
            case "permutation":
                torch.randperm(self.sizes[0], generator=source, out=numbers)


class _ListedNoise(Noise, ABC):
    """Every draw passes `_draw`; there is no generator to ask for."""

    @property
    def generator(self) -> Generator:
        raise EnsembleError("it draws from noise.generator itself, and an ensemble has one for each member")

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._draw(Draw("normal", shape, dtype))

    def uniform(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return self._draw(Draw("uniform", shape, dtype))

    def integers(self, high: int, *shape: int) -> Tensor:
        return self._draw(Draw("integers", (high, *shape), torch.int64))

    def permutation(self, n: int) -> Tensor:
        return self._draw(Draw("permutation", (n,), torch.int64))

    @abstractmethod
    def _draw(self, draw: Draw) -> Tensor:
        """The numbers of a draw."""


class DrawRecorder(_ListedNoise):
    """Draws, and keeps the list of draws."""

    def __init__(self, generator: Generator, dtype: torch.dtype) -> None:
        """`dtype` takes the place of float32 in what is returned."""
        super().__init__(generator)
        self.draws: list[Draw] = []
        self._dtype = dtype

    def _draw(self, draw: Draw) -> Tensor:
        self.draws.append(draw)
        numbers = draw.empty(1, self.device)[0]
        draw.fill(numbers, self._generator)
        return numbers.to(self._dtype) if draw.dtype == torch.float32 else numbers


class ReplayedNoise(_ListedNoise):
    """Hands out numbers that were drawn before, in the order of their draws."""

    def __init__(self, device: torch.device, draws: Sequence[Draw], numbers: Sequence[Tensor]) -> None:
        self._device = device
        self._left = list(zip(draws, numbers, strict=True))

    @property
    def device(self) -> torch.device:
        return self._device

    def _draw(self, draw: Draw) -> Tensor:
        expected, numbers = self._left.pop(0) if self._left else (None, torch.empty(0))
        if draw != expected:
            raise EnsembleError("the random numbers that it draws differ from step to step")
        return numbers


class EnsembleNoise:
    """The random numbers of all members in a step, drawn outside of `vmap` and of a recording.

    Each member has the two generators of its solo training. Within a recording they would cost two operations more for
    each generator, since a CUDA graph reads the state of every one of them at each replay.
    """

    generators: Sequence[Generator] = ()

    def __init__(
        self, device: torch.device, seeds: Sequence[int], draws: Sequence[Sequence[Draw]], dtype: torch.dtype
    ) -> None:
        self.draws = draws
        self.numbers = [[draw.empty(len(seeds), device) for draw in listed] for listed in draws]
        self._source, self._dtype = Generator(device=device), dtype
        self._calls = [  # a hundred members have some hundred calls a step: nothing else is done for each of them
            (seed, purpose, [(draw.fill, stacked[member]) for draw, stacked in zip(listed, numbers, strict=True)])
            for purpose, listed, numbers in zip(PURPOSES, draws, self.numbers, strict=True)
            for member, seed in enumerate(seeds if listed else ())
        ]

    def prepare(self, step: int) -> None:
        """Draw for a step."""
        for seed, purpose, fills in self._calls:
            self._source.manual_seed(derive_seed(seed, purpose, step))
            for fill, numbers in fills:
                fill(numbers, self._source)

    def stacked(self) -> list[list[Tensor]]:
        """The numbers of each purpose, `(members, ...)` each."""
        return [
            [tensor.to(self._dtype) if tensor.dtype == torch.float32 else tensor for tensor in numbers]
            for numbers in self.numbers
        ]


def record_draws(context: TrainContext) -> list[list[Draw]]:
    """The draws of a step for each purpose, from a step of a copy of the model."""
    twin = copy.deepcopy(context.model).train()
    sources = [DrawRecorder(Generator(device=context.device).manual_seed(0), context.dtype) for _ in PURPOSES]
    twin.on_epoch_start(0)
    x = to_float(context.images[: context.batch]).to(context.dtype)
    z = twin.prior.sample_batch(context.batch, sources[0])
    for _ in twin.training_step(x, z, sources[1]):
        pass
    return [source.draws for source in sources]


# ---------------------------------------------------------------- the stacked step


class _MemberLosses(nn.Module):
    """The losses of one member's step, as a function of the model's tensors for `functional_call`."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noises: Sequence[Noise]) -> list[Loss]:
        z = self.model.prior.sample_batch(len(x), noises[0])
        return list(self.model.training_step(x, z, noises[1]))


class Ensemble:
    """The `genbench.training.step.StepContext` of several trainings that differ by seed and by numeric options.

    All losses of a step come from one run of it, before any optimizer's step. The optimizers are those of the models,
    made for the stacked parameters: right for optimizers that treat each number by itself. Whether both are right for a
    model is found by `check_stackable`.

    Where learning rates differ, an optimizer takes the largest, and each member's part of the change of the weights is
    multiplied by its share of it: right for optimizers whose change is proportional to the rate. Other attributes of
    the modules that are floats and differ are stacked, and set for the time of a step.
    """

    def __init__(self, members: Sequence[TrainContext], draws: Sequence[Sequence[Draw]]) -> None:
        """Stack the members in their present state; afterwards none of them may do a step by itself."""
        # An operation that vmap can only do for one member after another; `check_faster` measures what that costs.
        warnings.filterwarnings("ignore", message="There is a performance drop")
        first = members[0]
        self.members, self.model, self.device, self.draws = members, first.model, first.device, draws
        self.batch_shape = (len(members), first.batch)
        self.noise = EnsembleNoise(first.device, [member.seed for member in members], draws, first.dtype)
        self.parameters, self.buffers = stack_module_state([member.model for member in members])
        self.optimizers = {name: self._stack_optimizer(name) for name in first.optimizers}
        make_capturable(self.optimizers.values(), first.device)
        self.version = 0
        self._shares: dict[str, list[Tensor | None]] = {}
        self._attributes: dict[tuple[str, str], Tensor] = {}
        self._losses = _MemberLosses(first.model)
        for k, member in enumerate(members):
            for name, parameter in member.model.named_parameters():
                parameter.data = self.parameters[name].detach()[k]
            self._share_buffers(k, member.model)

    def on_epoch_start(self, epoch: int) -> None:
        """Notify every member; set learning rates, and the attributes that differ."""
        for k, member in enumerate(self.members):
            member.on_epoch_start(epoch)
            self._share_buffers(k, member.model)
        for name, optimizer in self.optimizers.items():
            rates = [[group["lr"] for group in member.optimizers[name].param_groups] for member in self.members]
            shares = self._shares.setdefault(name, [None] * len(rates[0]))
            for index, of_members in enumerate(zip(*rates, strict=True)):
                largest = optimizer.param_groups[index]["lr"] = max(of_members)
                if min(of_members) < largest or shares[index] is not None:
                    share = [rate / largest if largest else 1.0 for rate in of_members]
                    self.version += shares[index] is None
                    shares[index] = self._scalars(share, shares[index])
        models = [member.model for member in self.members]
        for path, attribute in {**self._attributes, **dict.fromkeys(differing_attributes(models))}:
            numbers = [vars(model.get_submodule(path))[attribute] for model in models]
            self.version += (path, attribute) not in self._attributes
            self._attributes[path, attribute] = self._scalars(numbers, self._attributes.get((path, attribute)))

    def do_batch(self, indices: Tensor, sums: Sums) -> None:
        """One batch of every member, `indices` `(members, batch)`: the losses of all, then every optimizer's step."""
        first, names = self.members[0], list[str]()
        x = to_float(first.images.index_select(0, indices.flatten())).to(first.dtype).unflatten(0, indices.shape)

        def of_member(*state: Any) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
            losses = self._member_losses(*state)
            names[:] = [loss.optimizer for loss in losses]
            return [loss.value for loss in losses], [dict(loss.logs) for loss in losses]

        # Losses, and the gradient of each for the parameters of its optimizer.
        attributes = list(self._attributes.values())
        values, logs = vmap(of_member)(self.parameters, self.buffers, attributes, x, self.noise.stacked())
        if len(set(names)) < len(names):
            raise EnsembleError("an optimizer has two losses, the second of which follows its step")
        for index, (name, value) in enumerate(zip(names, values, strict=True)):
            optimizer = self.optimizers[name]
            optimizer.zero_grad(set_to_none=True)
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            value.sum().backward(inputs=parameters, retain_graph=index + 1 < len(names))

        # Steps, in turn.
        for name, value, terms in zip(names, values, logs, strict=True):
            unequal = self._unequal(name)
            self.optimizers[name].step()
            for parameter, before, share in unequal:
                torch.lerp(before, parameter, share.view(-1, *[1] * (parameter.dim() - 1)), out=parameter)
            add_terms(sums, {name: value, **terms})

    def release(self) -> None:
        """Give each member's optimizers their part of the state; all tensors stay shared with the ensemble."""
        for name, optimizer in self.optimizers.items():
            for path in self._paths(name):
                stacked = self.parameters[path]
                for k, member in enumerate(self.members):
                    parameter = dict(member.model.named_parameters())[path]
                    member.optimizers[name].state[parameter] = {
                        key: value[k] if _of_parameter(key, value, stacked) else value
                        for key, value in optimizer.state.get(stacked, {}).items()
                    }

    def _member_losses(
        self,
        parameters: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        attributes: Sequence[Tensor],
        x: Tensor,
        numbers: Sequence[Sequence[Tensor]],
    ) -> list[Loss]:
        """The losses of one member, within vmap."""
        noises = [ReplayedNoise(self.device, *each) for each in zip(self.draws, numbers, strict=True)]
        state = {f"model.{name}": value for name, value in (parameters | buffers).items()}  # type: ignore[operator]
        with _attributes_set(self.model, dict(zip(self._attributes, attributes, strict=True))):
            losses: list[Loss] = functional_call(self._losses, state, (x, noises))
        return losses

    def _unequal(self, name: str) -> list[tuple[Tensor, Tensor, Tensor]]:
        """The parameters of an optimizer whose rates differ, copies of them, and the members' shares of its rate."""
        return [
            (parameter.detach(), parameter.detach().clone(), share)
            for group, share in zip(self.optimizers[name].param_groups, self._shares[name], strict=True)
            for parameter in group["params"]
            if share is not None
        ]

    def _scalars(self, values: Sequence[float], memory: Tensor | None) -> Tensor:
        """A number for each member, in the same memory as before: a recording has its address."""
        scalars = torch.tensor(values, dtype=self.members[0].dtype, device=self.device)
        return scalars if memory is None else memory.copy_(scalars)

    def _share_buffers(self, k: int, model: Model) -> None:
        """Make a member's buffers views of the stacked ones: at first, and where `on_epoch_start` replaced some."""
        for name, buffer in model.named_buffers():
            view = self.buffers[name][k]
            if buffer.data_ptr() != view.data_ptr():
                view.copy_(buffer)
                path, _, last = name.rpartition(".")
                model.get_submodule(path)._buffers[last] = view

    def _paths(self, name: str) -> list[str]:
        """The names of the parameters of an optimizer."""
        names = {id(parameter): path for path, parameter in self.model.named_parameters()}
        try:
            return [names[id(parameter)] for parameter in self.members[0].optimizer_configs[name].parameters]
        except KeyError:
            raise EnsembleError(f"the optimizer {name} has a parameter that is not the model's") from None

    def _stack_optimizer(self, name: str) -> Optimizer:
        """An optimizer for the stacked parameters, in the state of the members' optimizers."""
        paths = self._paths(name)
        optimizer = self.members[0].optimizer_configs[name].optimizer([self.parameters[path] for path in paths])
        for path in paths:
            solo = [dict(member.model.named_parameters())[path] for member in self.members]
            states = [member.optimizers[name].state.get(p, {}) for member, p in zip(self.members, solo, strict=True)]
            if states[0]:
                optimizer.state[self.parameters[path]] = {
                    key: torch.stack([state[key] for state in states]) if _of_parameter(key, value, solo[0]) else value
                    for key, value in states[0].items()
                }
        return optimizer


def _of_parameter(key: str, value: Any, parameter: Tensor) -> bool:
    """Whether an optimizer's value has a number for each of the parameter's; torch sets `step` apart likewise."""
    return key != "step" and isinstance(value, Tensor) and value.shape == parameter.shape


@contextmanager
def _attributes_set(model: Model, values: Mapping[tuple[str, str], Tensor]) -> Iterator[None]:
    """Set attributes of modules inside."""
    before = {(path, name): vars(model.get_submodule(path))[name] for path, name in values}
    try:
        for (path, name), value in values.items():
            vars(model.get_submodule(path))[name] = value
        yield
    finally:
        for (path, name), value in before.items():
            vars(model.get_submodule(path))[name] = value


def differing_attributes(models: Sequence[Model]) -> dict[tuple[str, str], list[float]]:
    """The floats of modules, by the module's path and the name, that are not the same in all models.

    Raises `EnsembleError` for numbers, words and truth values of other types that differ: they decide which operations
    are done. Other objects are not compared.
    """
    differing: dict[tuple[str, str], list[float]] = {}
    for path, module in models[0].named_modules():
        for name, value in vars(module).items():
            values = [vars(model.get_submodule(path)).get(name, value) for model in models]
            if isinstance(value, bool | int | float | str) and any(each != value for each in values):
                if not all(isinstance(each, float) for each in values):
                    raise EnsembleError(f"{name} differs, and decides which operations are done")
                differing[path, name] = values
    return differing


# ---------------------------------------------------------------- what can be stacked


def check_stackable(members: Sequence[TrainContext]) -> list[list[Draw]]:
    """The draws of a step, by purpose; `EnsembleError` where the members cannot be stacked, with the reason.

    Copies of the first member, and of one for each further set of attributes and rates (two at least), do their first
    steps alone and as an ensemble, in float64. The members are not changed, nor is torch's random state.
    """
    try:
        with torch.random.fork_rng([members[0].device] if members[0].device.type == "cuda" else []):
            chosen = _different(members)
            solo, stacked = ([_copy(member, torch.float64) for member in chosen] for _ in range(2))
            draws = _train_alone(solo)
            _train_stacked(stacked, draws)
            _compare(chosen, solo, stacked)
            return record_draws(members[0])
    except EnsembleError:
        raise
    except torch.OutOfMemoryError as error:
        raise EnsembleError(f"a comparison with a solo training needs more memory ({one_line(error, 80)})") from None
    except Exception as error:  # a plug-in's step may do anything, and most of torch can meet vmap
        text = one_line(error, 200)
        if "randomness error mode" in text:
            raise EnsembleError(
                "it draws from torch's global random state, as dropout does, and not from noise"
            ) from None
        raise EnsembleError(f"under torch.func.vmap its step fails: {text}") from None


def _different(members: Sequence[TrainContext]) -> list[TrainContext]:
    """One member for each set of attributes and rates; two at least."""
    floats = differing_attributes([member.model for member in members])
    sets: dict[Any, TrainContext] = {}
    for k, member in enumerate(members):
        values = [of_members[k] for of_members in floats.values()]
        buffers = [b.tolist() for b in member.model.buffers() if b.dim() == 0]
        sets.setdefault(repr((values, buffers, member.base_rates)), member)
    return list(sets.values()) if len(sets) > 1 else list(members[:2])


def _copy(member: TrainContext, dtype: torch.dtype) -> TrainContext:
    """A copy of a member before its first step."""
    model = copy.deepcopy(member.model).to(dtype).train()
    context = create_train_context(model, model.prior, member.images, member.batch, member.seed)
    return replace(context, dtype=dtype)


def _order(members: Sequence[TrainContext]) -> BatchOrder:
    first = members[0]
    return BatchOrder(len(first.images), first.batch, [member.seed for member in members], first.device)


def _train_alone(members: Sequence[TrainContext]) -> list[list[Draw]]:
    """Do the compared steps one member after another; the draws of a step, which have to be the same in all steps."""
    lists, order = [], _order(members)
    for k, member in enumerate(members):
        noise = SoloNoise(member.device, member.seed)
        alone = replace(member, noise=noise)
        alone.on_epoch_start(0)
        for step in range(COMPARED_STEPS):
            recording = [DrawRecorder(source, member.dtype) for source in noise.generators]
            noise.prior, noise.model = recording
            noise.prepare(step)
            alone.do_batch(order.indices(step)[k], {})
            lists.append([source.draws for source in recording])
    if any(draws != lists[0] for draws in lists):
        raise EnsembleError("the random numbers that it draws differ from step to step")
    return lists[0]


def _train_stacked(members: Sequence[TrainContext], draws: Sequence[Sequence[Draw]]) -> None:
    """Do the compared steps as an ensemble."""
    ensemble, order = Ensemble(members, draws), _order(members)
    ensemble.on_epoch_start(0)
    for step in range(COMPARED_STEPS):
        ensemble.noise.prepare(step)
        ensemble.do_batch(order.indices(step), {})


def _compare(before: Sequence[TrainContext], solo: Sequence[TrainContext], stacked: Sequence[TrainContext]) -> None:
    """Raise `EnsembleError` where weights or buffers differ by more than rounding, for what the steps changed."""
    for begun, alone, member in zip(before, solo, stacked, strict=True):
        start, expected, reached = (_tensors(context.model) for context in (begun, alone, member))
        change = max(float((expected[name] - start[name]).abs().max()) for name in expected)
        for name, tensor in expected.items():
            if not torch.allclose(reached[name], tensor, 0.0, TOLERANCE * change, equal_nan=True):
                difference = float((reached[name] - tensor).abs().max())
                raise EnsembleError(
                    f"after {COMPARED_STEPS} steps {name} is {difference:.1g} from that of a solo training: a loss"
                    " needs parameters that an earlier optimizer has updated, or an optimizer looks beyond each number"
                )


def _tensors(model: Model) -> dict[str, Tensor]:
    """Parameters and buffers in float64."""
    return {name: tensor.detach().double() for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def check_faster(members: Sequence[TrainContext], draws: Sequence[Sequence[Draw]]) -> None:
    """Raise `EnsembleError` where a step of all members takes longer than their solo steps one after another."""
    copies = [_copy(member, member.dtype) for member in members]
    together = step_seconds(Ensemble(copies, draws))
    solo = step_seconds(_copy(members[0], members[0].dtype))
    if together >= len(members) * solo:
        raise EnsembleError(
            f"a step of all takes {1e3 * together:.3g} ms, and {len(members)} steps one after another"
            f" {1e3 * len(members) * solo:.3g} ms"
        )


def step_seconds(context: StepContext, make_step: StepFactory = default_step, least: float = 0.2) -> float:
    """Seconds of a training step, over some `least` seconds; the context's model is trained on the way."""
    step = make_step(context)
    step.on_epoch_start(0)
    indices = torch.arange(context.batch_shape[-1], device=context.device).expand(context.batch_shape)
    number, first, begun, started = 0, WARM_UP + 2, time.perf_counter(), 0.0
    while number < first + 2 or time.perf_counter() - begun < least:
        if number == first:
            _wait(step)
            started = time.perf_counter()
        step.run(number, indices)
        number += 1
    _wait(step)
    return (time.perf_counter() - started) / (number - first)


def _wait(step: Step) -> None:
    """Wait for the device."""
    for value in step.take_sums().values():
        value.sum().item()


# ---------------------------------------------------------------- the loop


def train_ensemble(
    models: Sequence[Model],
    images: Tensor,
    configs: Sequence[TrainConfig],
    draws: Sequence[Sequence[Draw]],
    *,
    stop: Callable[[], bool] = lambda: False,
    make_step: StepFactory = default_step,
) -> Iterator[dict[int, TrainState | DivergenceError]]:
    """Train models as `genbench.training.loop.train` trains one; yields the state of every member at each log point.

    Members share the steps, the batch and the step of their checkpoints, where they have some. One that has diverged
    gets the error in place of a state, once, and is left out from then on; its checkpoint holds an earlier state. Where
    `stop()` is true the states of all are saved and the iteration ends. `draws` are those of `check_stackable`.

    Raises `EnsembleError` where the step does something else than it did when it was checked, and `StoreError` where a
    checkpoint is damaged or another run's.
    """
    # Resume.
    config = configs[0]
    members = dict(enumerate(_contexts(models, images, configs)))
    begun = [_resume(member, solo_config) for member, solo_config in zip(members.values(), configs, strict=True)]
    step = begun[0][0]
    if any(steps != step for steps, _ in begun):
        raise EnsembleError(f"their checkpoints are of the steps {', '.join(str(steps) for steps, _ in begun)}")

    # Prepare.
    for model in models:
        model.train()
    ensemble = Ensemble(list(members.values()), draws)
    stepper, order = make_step(ensemble), _order(ensemble.members)
    epoch, logged_step = -1, step
    started = logged = saved = time.perf_counter()

    # Main loop.
    while step < config.last_step and members:
        if step * config.batch // len(images) != epoch:
            epoch = step * config.batch // len(images)
            stepper.on_epoch_start(epoch)
        stepper.run(step, order.indices(step))
        step += 1

        # Log or stop?
        now, stopping = time.perf_counter(), stop() or step == config.pause
        logging = stopping or now - logged >= config.log_seconds
        if not (logging or step == config.steps or step in config.snapshot_steps):
            continue

        # Log. Reading the means is the only wait on the device.
        means = _member_means(stepper.take_sums(), ensemble.parameters.values(), step - logged_step, step)
        now = time.perf_counter()
        rate = (step - logged_step) * config.batch / (now - logged)
        seconds = {k: begun[k][1] + now - started for k in members}
        states: dict[int, TrainState | DivergenceError] = {
            k: of_member
            if isinstance(of_member, DivergenceError)
            else TrainState(
                step, config.steps, step * config.batch, seconds[k], rate, of_member, stepper.how, len(members)
            )
            for k, of_member in zip(members, means, strict=True)
        }
        yield states
        logged, logged_step = time.perf_counter(), step
        started += logged - now  # the caller's time does not count

        # Leave out who has diverged.
        diverged = [k for k in members if isinstance(states[k], DivergenceError)]
        if diverged and len(diverged) < len(members):
            ensemble.release()
            members = {k: member for k, member in members.items() if k not in diverged}
            ensemble = Ensemble(list(members.values()), draws)
            stepper, order, epoch = make_step(ensemble), _order(ensemble.members), -1
        elif diverged:
            return

        # Checkpoint.
        if (stopping or logged - saved >= config.save_seconds) and step < config.steps:
            ensemble.release()
            for k, member in members.items():
                torch.manual_seed(
                    derive_seed(configs[k].seed, "global")
                )  # a solo training of it draws no number either
                save_checkpoint(
                    configs[k].checkpoint, member.model, member.optimizers, configs[k].key, step, seconds[k]
                )
            saved = time.perf_counter()
        if stopping:
            return


def _contexts(models: Sequence[Model], images: Tensor, configs: Sequence[TrainConfig]) -> list[TrainContext]:
    return [
        create_train_context(model, model.prior, images, config.batch, config.seed)
        for model, config in zip(models, configs, strict=True)
    ]


def _resume(member: TrainContext, config: TrainConfig) -> tuple[int, float]:
    """The steps and seconds that a member has done, its state restored."""
    if not config.checkpoint.exists():
        return 0, 0.0
    return load_checkpoint(config.checkpoint, member.model, member.optimizers, config.key)


def _member_means(
    sums: Sums, parameters: Iterable[Tensor], steps: int, step: int
) -> list[dict[str, float] | DivergenceError]:
    """The means of every member, as `genbench.training.loop.finite_means` has them, or its error."""
    norms = torch.stack([p.detach().reshape(len(p), -1).norm(dim=1) for p in parameters]).sum(0)
    table = torch.stack([*(value.float() / steps for value in sums.values()), norms.float()])
    means: list[dict[str, float] | DivergenceError] = []
    for *values, norm in table.T.tolist():
        try:
            means.append(finite_means(dict(zip(sums, values, strict=True)), norm, steps, step))
        except DivergenceError as error:
            means.append(error)
    return means
