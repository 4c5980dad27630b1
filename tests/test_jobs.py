"""How many runs go on at once where the command leaves it open: as many as help, and only where no number changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result

from genbench import jobs
from genbench.api import Place
from genbench.engines import Chosen, undecided
from genbench.files import load_tensors
from genbench.jobs import BYTES_PER_WORKER, available_memory, suitable_jobs
from genbench.machine import threads
from genbench.plan import Grid, Plan, plan
from genbench.plugins import Catalogue, load
from genbench.store import WEIGHTS, find

PLUGIN = Path(__file__).parent / "plugins" / "dots.py"
PLENTY = 64 * BYTES_PER_WORKER
GRID = Grid(
    models=("swae", "ae"),
    dataset="dots",
    priors=("normal",),
    latent_dims=(2,),
    network="mlp",
    seeds=(0, 1),
    images=160,
    batch=16,
    metrics=(),
)
LONG = 1_000_000
"""Images of a training that is worth a worker."""


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load([PLUGIN])


@pytest.fixture
def planned(catalogue: Catalogue, place: Place) -> Plan:
    return plan(GRID, catalogue, place)


Choose = Callable[..., int]


@pytest.fixture
def choose(catalogue: Catalogue, planned: Plan) -> Choose:
    """The jobs of four long runs on eight cores with memory to spare, but for what is said otherwise."""

    def chosen(*, cores: int = 8, memory: int = PLENTY, most: int = 8, runs: int = 4, **fields: int) -> int:
        long = [replace(run, **{"images": LONG, **fields}) for run in planned.runs[:runs]]
        with threads(most):
            return suitable_jobs(catalogue, runs, long, planned.summary.shape, cores, memory)

    return chosen


def test_long_trainings_of_small_steps_have_a_core_each(choose: Choose) -> None:
    """As many as runs, cores, threads and the memory of workers allow, the least of them."""
    assert choose() == 4
    assert choose(cores=3) == 3
    assert choose(memory=2 * BYTES_PER_WORKER + 1) == 2
    assert choose(memory=0) == 1
    assert choose(most=1) == 1, "OMP_NUM_THREADS=1 asks for one core"
    assert choose(runs=1) == 1


def test_short_studies_start_no_workers(choose: Choose) -> None:
    """The length decides: a hundredth of the images, and the same study is not worth them."""
    assert choose(images=LONG // 100) == 1


def test_steps_that_use_several_threads_keep_them(choose: Choose) -> None:
    """With fewer threads their sums would be rounded otherwise: the choice would change numbers."""
    assert choose(batch=100_000, images=1000 * LONG) == 1


def test_trained_runs_count_no_seconds(catalogue: Catalogue, planned: Plan) -> None:
    with threads(8):
        assert suitable_jobs(catalogue, 4, (), planned.summary.shape, 8, PLENTY) == 1


def test_a_model_that_cannot_be_counted_is_left_to_its_training(
    choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise SystemExit("no")

    monkeypatch.setattr(jobs, "make_model", refuse)
    assert choose() == 1


def test_counting_leaves_the_random_state_alone(choose: Choose) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert choose() > 1
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("given", "open_"),
    [
        (Chosen(), True),
        (Chosen(executor="local"), True),
        (Chosen(limit=60.0), True),
        (Chosen(jobs=1), False),
        (Chosen(executor="serial"), False),
        (Chosen(executor="ray"), False),
        (Chosen(together=2), False),
    ],
)
def test_whoever_says_how_is_obeyed(given: Chosen, open_: bool) -> None:
    assert undecided(given) is open_


def test_a_command_chooses_tells_and_records_it(
    genbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs have the weights of those that go one after another; each says how many went on at once."""
    monkeypatch.setattr(jobs, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(jobs, "available_memory", lambda: PLENTY)
    arguments = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "160", "--batch", "16")
    common = (*arguments, "--seeds", "2", "--metrics", "speed", "--plugin", str(PLUGIN), "--device", "cpu")
    with threads(2):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
        several = genbench("run", "ae", *common, "--out", str(tmp_path / "several"))
        alone = genbench("run", "ae", *common, "--out", str(tmp_path / "alone"), "--jobs", "1")
    assert (several.exit_code, alone.exit_code) == (0, 0), several.output + alone.output
    assert "2 runs at once, each on a core of its own (--jobs 1: one after another)" in several.output
    assert "at once" not in alone.output
    found = {store: find([tmp_path / store]) for store in ("several", "alone")}
    assert [folder.training()["jobs"] for folder in found["several"]] == [2, 2]
    assert [folder.training()["jobs"] for folder in found["alone"]] == [1, 1]
    for mine, its in zip(found["several"], found["alone"], strict=True):
        (weights, _), (others, _) = load_tensors(mine.path / WEIGHTS), load_tensors(its.path / WEIGHTS)
        assert all(torch.equal(weights[name], others[name]) for name in weights | others)
    assert "up to 2 runs at once" in str([folder.measurements() for folder in found["several"]])
    assert "at once" not in str([folder.measurements() for folder in found["alone"]])


def test_the_memory_at_hand_is_less_than_the_machine_has() -> None:
    assert 0 <= available_memory() < 2**50
