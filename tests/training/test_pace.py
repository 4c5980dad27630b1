"""Several threads for small steps: taken where they are quicker, left where they are not, never at a bit's price."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import Generator, Tensor, nn, ones
from torch.optim import SGD, Optimizer

from conftest import DOTS
from genbench.api import DataConfig, Loss, Model, OptimizerConfig
from genbench.experiment.plan import Plan
from genbench.experiment.run import make_dataset, make_model, make_prior
from genbench.registry.loader import Registry
from genbench.training.device import threads
from genbench.training.loop import Budget, TrainState, moments, train
from genbench.training.pace import BLOCK, EXAMINED, PATIENCE, ROUNDS, WARM_UP, MeasuredStep
from genbench.training.precision import computing
from genbench.training.step import EagerStep, StepOf, create_train_context

TRIED = WARM_UP + EXAMINED + 2 * ROUNDS * BLOCK
"""Steps until a choice between two counts: warming up, examining, the trial."""


class Machine:
    """Seconds of a step by its count of threads, and the count that each step had."""

    def __init__(self, costs: dict[int, float]) -> None:
        self.costs, self.counts, self.time = costs, list[int](), 0.0

    def work(self) -> int:
        """What a step takes."""
        count = torch.get_num_threads()
        self.counts.append(count)
        self.time += self.costs[count]
        return count


class Line(Model):
    """A model of one number whose steps take their time on a machine, with a loss of that number and the threads."""

    def __init__(self, machine: Machine, loss: Callable[[Line, int], Tensor] | None = None) -> None:
        nn.Module.__init__(self)
        self.weight = nn.Parameter(torch.ones(()))
        self.register_buffer("shown", torch.zeros(()))
        self.work = lambda: machine.work()
        self.loss = loss or (lambda line, count: line.weight.square())
        self.slope, self.count = 1.0, 0
        self.optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] = lambda p: torch.optim.Adam(p, lr=1e-3)

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def decode(self, z: Tensor) -> Tensor:
        return z

    def configure_optimizers(self) -> dict[str, OptimizerConfig]:
        return {"all": OptimizerConfig((self.weight,), self.optimizer)}

    def on_epoch_start(self, epoch: int) -> None:
        self.slope = 1.0 + epoch

    def training_step(self, x: Tensor, z: Tensor, generator: Generator) -> Iterator[Loss]:
        self.get_buffer("shown").add_(torch.rand(()))  # as dropout does, from the global state
        yield Loss("all", self.loss(self, self.work()))


Measured = Callable[..., tuple[MeasuredStep, Callable[[int], None]]]


@pytest.fixture
def measured(registry: Registry, planned: Callable[..., Plan]) -> Measured:
    """A measured step of a line, and what does some more steps of it."""

    def make(machine: Machine, line: Line | None = None, most: int = 2) -> tuple[MeasuredStep, Callable[[int], None]]:
        images = torch.zeros(50, 1, 4, 4, dtype=torch.uint8)
        prior = make_prior(registry, planned().runs[0])
        step = MeasuredStep(
            create_train_context(line or Line(machine), prior, images, 10, 0), most, lambda: machine.time
        )
        indices = torch.arange(10)

        def go(steps: int) -> None:
            for _ in range(steps):
                step.do(len(machine.counts), indices)

        step.on_epoch_start(0)
        return step, go

    return make


def test_several_threads_are_taken_where_they_are_quicker(measured: Measured) -> None:
    machine = Machine({1: 1.0, 2: 0.6})
    step, go = measured(machine)
    go(TRIED + 100)
    assert set(machine.counts[-100:]) == {2}
    assert (step.most_threads, step.usual_threads) == (2, 2)


@pytest.mark.parametrize("cost", [0.95, 1.0, 1.2, 3.0])
def test_one_thread_stays_where_more_gain_little_or_nothing(cost: float, measured: Measured) -> None:
    machine = Machine({1: 1.0, 2: cost})
    step, go = measured(machine)
    go(3_000)
    assert (step.most_threads, step.usual_threads) == (2, 1)
    assert machine.time < 1.03 * 3_000, "trials take a small share"


def test_the_fewest_threads_are_taken_that_are_nearly_the_quickest(measured: Measured) -> None:
    machine = Machine({1: 1.0, 2: 0.6, 4: 0.4, 6: 0.39})
    step, go = measured(machine, most=6)
    go(200)
    assert machine.counts[-1] == 4
    assert set(machine.counts) == {1, 2, 4, 6}
    assert (step.most_threads, step.usual_threads) == (6, 4)


def test_threads_that_stall_are_left_after_a_step_and_taken_again_when_they_do_not(
    measured: Measured,
) -> None:
    """Another process has come to the machine, and goes away again."""
    machine = Machine({1: 1.0, 2: 0.6})
    _, go = measured(machine)
    go(TRIED + 50)
    began, machine.costs = len(machine.counts), {1: 1.1, 2: 60.0}
    go(60)
    stalled = machine.counts[began:].count(2)
    assert stalled <= 2, "the one that shows it, and one in the trial"
    go(1000)
    share = machine.counts[began:].count(2) * 60.0 / (machine.counts[began:].count(1) * 1.1)
    assert share < 0.3, "trials become rare where each of them costs much"
    machine.costs = {1: 1.0, 2: 0.6}
    go(5_000)
    assert machine.counts[-1] == 2


def test_a_slower_second_thread_is_left_once_that_has_cost_some_steps(measured: Measured) -> None:
    machine = Machine({1: 1.0, 2: 0.6})
    _, go = measured(machine)
    go(TRIED + 10)
    began, machine.costs = len(machine.counts), {1: 1.0, 2: 1.5}
    go(200)
    assert machine.counts[-1] == 1
    assert PATIENCE / 0.5 <= machine.counts[began:].count(2) < PATIENCE / 0.5 + ROUNDS * BLOCK + 3


def test_an_examination_that_stalls_is_given_up_and_comes_again_much_later(measured: Measured) -> None:
    machine, stalled = Machine({1: 1.0, 2: 0.6}), list[int]()

    def product(a: Tensor, b: Tensor) -> Tensor:
        if torch.get_num_threads() > 1:
            stalled.append(len(machine.counts))
            machine.time += 100.0
        return torch.zeros(len(a), b.shape[1])

    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("mm", product, "CPU")
        _, go = measured(machine, Line(machine, lambda line, count: (line.weight * ones(40, 50) @ ones(50, 60)).sum()))
        go(12_000)
    assert machine.counts.count(2) == 0
    assert 2 <= len(stalled) <= 3
    assert stalled[1] - stalled[0] >= 5_000


# ---------------------------------------------------------------- at no bit's price


def summed(line: Line, count: int) -> Tensor:
    """One number that is the sum of many, which threads divide: rounded alike in every other step."""
    return (line.weight * torch.ones(40_000)).sum()


def convolved(line: Line, count: int) -> Tensor:
    return nn.functional.conv2d(line.weight * torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).sum()


def looked_at(line: Line, count: int) -> Tensor:
    return line.weight * float(line.weight.item() > 0)


def dropped_out(line: Line, count: int) -> Tensor:
    return nn.functional.dropout(line.weight * torch.ones(4)).sum()


@pytest.mark.parametrize("loss", [summed, convolved, looked_at, dropped_out])
def test_several_threads_are_never_used_for_what_may_round_otherwise(
    loss: Callable[[Line, int], Tensor], measured: Measured
) -> None:
    machine = Machine({1: 1.0, 2: 0.1})
    step, go = measured(machine, Line(machine, loss))
    go(200)
    assert set(machine.counts) == {1}
    assert (step.most_threads, step.usual_threads) == (0, 0)


def test_a_model_that_goes_on_to_other_operations_is_examined_again(measured: Measured) -> None:
    def later(line: Line, count: int) -> Tensor:
        return summed(line, count) if line.slope > 2.0 else line.weight.square()

    machine = Machine({1: 1.0, 2: 0.1})
    step, go = measured(machine, Line(machine, later))
    go(100)
    step.on_epoch_start(1)
    go(100)
    assert machine.counts[-1] == 2
    step.on_epoch_start(2)
    began = len(machine.counts)
    go(100)
    assert set(machine.counts[began:]) == {1}
    assert (step.most_threads, step.usual_threads) == (2, 2), "what was, stays told"


def counting(line: Line, count: int) -> Tensor:
    line.count += 1
    return line.weight * line.count


class Hidden:
    """An object that a step changes, and nobody sees it."""

    seen = 0

    def __call__(self, line: Line, count: int) -> Tensor:
        self.seen += 1
        return line.weight * self.seen


class OwnWay(SGD):
    """An optimizer with a state of its own."""

    steps = 0

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        self.steps += 1
        self.param_groups[0]["lr"] = 1e-3 / self.steps
        super().step()


@pytest.mark.parametrize("loss", [counting, Hidden])
def test_no_step_is_done_twice_whatever_it_changes(loss: Callable[..., Tensor], measured: Measured) -> None:
    found = []
    for most in (1, 2):
        machine = Machine({1: 1.0, 2: 0.6})
        line = Line(machine, loss() if isinstance(loss, type) else loss)
        line.optimizer = lambda parameters: OwnWay(parameters, lr=1e-3)
        torch.manual_seed(0)
        step, go = measured(machine, line, most)
        go(200)
        found.append((line.weight.detach(), line.get_buffer("shown"), step.take()["all"]))
        assert set(machine.counts) == set(range(1, most + 1))
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize(("model", "batch"), [("cwae", 256), ("wae-mmd", 256), ("swae", 128)])
def test_weights_are_those_of_one_thread_where_two_would_round_otherwise(
    model: str, batch: int, registry: Registry, planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """CWAE once ended with others: its sums over 256 x 256 numbers are divided, and round alike in most steps."""
    run, time = planned(model).runs[0], [0.0]

    @contextmanager
    def favoured(count: int) -> Iterator[None]:
        """Two threads take half the time."""
        with threads(count):
            yield
        time[0] += 1.0 / count

    monkeypatch.setattr("genbench.training.pace.threads", favoured)
    drawn = torch.randint(0, 256, (600, 1, 28, 28), dtype=torch.uint8, generator=Generator().manual_seed(0))
    found = []
    for step_of in (EagerStep, partial(MeasuredStep, most=2, clock=lambda: time[0])):
        torch.manual_seed(0)
        made = make_model(registry, run, (1, 28, 28))
        step = step_of(create_train_context(made, make_prior(registry, run), drawn, batch, 0))
        step.on_epoch_start(0)
        for number in range(80):
            step.do(number, torch.arange(number, number + batch))
        found.append([*made.state_dict().values(), *step.take().values()])
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("model", ["ae", "swae", "vae", "wae-gan", "wae-mmd", "cwae"])
@pytest.mark.parametrize(("network", "precision"), [("mlp", "float32"), ("normed", "float32"), ("mlp", "bfloat16")])
def test_a_training_is_bit_for_bit_that_on_one_thread_and_can_be_resumed(
    model: str,
    network: str,
    precision: str,
    registry: Registry,
    planned: Callable[..., Plan],
    place: DataConfig,
    tmp_path: Path,
) -> None:
    run = planned(model, network=network, precision=precision, images=60 * 16).runs[0]
    images = make_dataset(registry, run.dataset).load(place)

    def trained(name: str, step_of: StepOf, stop_at: int = 10**6) -> tuple[Model, list[TrainState]]:
        torch.manual_seed(run.seed)
        made = make_model(registry, run, images.shape)
        torch.manual_seed(1)
        asked = iter(range(1, 10**7))
        with computing(made, run.precision, torch.device("cpu")):
            training = train(
                made,
                make_prior(registry, run),
                images.train,
                Budget(run.images, run.batch, run.seed),
                tmp_path / name,
                key=run.key,
                stop=lambda: next(asked) >= stop_at,
                log_seconds=1e9,
                step_of=step_of,
            )
            return made, list(moments(training))

    several = partial(MeasuredStep, most=2)
    alone, expected = trained("alone", EagerStep)
    together, found = trained("together", several)
    trained("parts", several, 35)
    resumed, rest = trained("parts", several)
    assert found[-1].terms == expected[-1].terms
    assert rest[-1].step == 60
    for other in (together, resumed):
        for name, value in alone.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


# ---------------------------------------------------------------- what a user sees of it


def test_the_record_tells_what_was_chosen(genbench: Callable[..., Result], tmp_path: Path) -> None:
    asked = ("--dataset", "dots", "--network", "mlp", "--batch", "16", "--images", "960", "--metrics", "speed")
    with threads(2):
        assert genbench("run", "swae", *asked, "--plugin", str(DOTS), "--device", "cpu").exit_code == 0
    (path,) = tmp_path.glob("runs/*/training.json")
    record = json.loads(path.read_text())
    assert (record["threads"], record["most_threads"]) == (1, 2)
    assert record["usual_threads"] in (1, 2)
    shown = genbench("show", path.parent.name).output
    assert f"threads 1, most_threads 2, usual_threads {record['usual_threads']}" in shown
    measured = json.loads((path.parent / "metrics.json").read_text())["measurements"].values()
    (how,) = {number["how"]["detail"] for entry in measured for number in entry["numbers"]}
    assert "up to 2 CPU threads" in how
