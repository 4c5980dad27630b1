"""How many runs go on at once where the command leaves it open: as many as help, and only where no number changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import Result

from genbench.api import DataConfig
from genbench.cli.engines import Chosen, undecided
from genbench.execution import resources as jobs
from genbench.execution.resources import BYTES_PER_WORKER, allowed_cores, available_memory, suitable_jobs
from genbench.execution.standing import Standing
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.registry.loader import Registry, load
from genbench.storage.run_dir import WEIGHTS, find_runs, read_runs
from genbench.training.device import threads
from genbench.utils.io import load_tensors

PLUGIN = Path(__file__).parents[1] / "fixtures" / "dots.py"
PLENTY = 64 * BYTES_PER_WORKER
GRID = ExperimentConfig(
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
def registry() -> Registry:
    return load([PLUGIN])


@pytest.fixture
def planned(registry: Registry, place: DataConfig) -> Plan:
    return plan(GRID, registry, place)


Choose = Callable[..., int]


@pytest.fixture
def choose(registry: Registry, planned: Plan) -> Choose:
    """The jobs of four long runs on eight cores with memory to spare, but for what is said otherwise."""

    def chosen(*, cores: int = 8, memory: int = PLENTY, most: int = 8, runs: int = 4, **fields: int) -> int:
        long = [replace(run, **{"images": LONG, **fields}) for run in planned.runs[:runs]]
        with threads(most):
            return suitable_jobs(registry, runs, long, planned.dataset_info.shape, cores, memory)

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


def test_trained_runs_count_no_seconds(registry: Registry, planned: Plan) -> None:
    with threads(8):
        assert suitable_jobs(registry, 4, (), planned.dataset_info.shape, 8, PLENTY) == 1


def test_a_model_that_cannot_be_counted_is_left_to_its_training(
    choose: Choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise SystemExit("no")

    monkeypatch.setattr(jobs, "create_model", refuse)
    assert choose() == 1


def test_counting_leaves_the_random_state_alone(choose: Choose) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert choose() > 1
    assert torch.equal(before, torch.get_rng_state())


def test_what_is_done_is_gathered_once() -> None:
    """It is asked for each of 10,000 runs."""
    stands = Standing({"a": "done", "b": "new"}, ())
    assert stands.done == {"a"}
    assert stands.done is stands.done


@pytest.mark.parametrize(
    ("given", "open_"),
    [
        (Chosen(), True),
        (Chosen(executor="local"), True),
        (Chosen(limit=60.0), True),
        (Chosen(jobs=1), False),
        (Chosen(executor="serial"), False),
        (Chosen(executor="ray"), False),
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
    monkeypatch.setattr(jobs, "allowed_cores", float)
    arguments = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "160", "--batch", "16")
    common = (*arguments, "--seeds", "2", "--metrics", "speed", "--plugin", str(PLUGIN), "--device", "cpu")
    with threads(2):
        monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1}, raising=False)
        several = genbench("run", "ae", *common, "--out", str(tmp_path / "several"))
        alone = genbench("run", "ae", *common, "--out", str(tmp_path / "alone"), "--jobs", "1")
    assert (several.exit_code, alone.exit_code) == (0, 0), several.output + alone.output
    assert "2 runs at once, each on a core of its own (--jobs 1: one after another)" in several.output
    assert "at once" not in alone.output
    found = {store: read_runs(find_runs([tmp_path / store]))[0] for store in ("several", "alone")}
    assert [folder.training.jobs for folder in found["several"]] == [2, 2]
    assert [folder.training.jobs for folder in found["alone"]] == [1, 1]
    for mine, its in zip(found["several"], found["alone"], strict=True):
        (weights, _), (others, _) = load_tensors(mine.path / WEIGHTS), load_tensors(its.path / WEIGHTS)
        assert all(torch.equal(weights[name], others[name]) for name in weights | others)
    assert "up to 2 runs at once" in str([folder.measurements() for folder in found["several"]])
    assert "at once" not in str([folder.measurements() for folder in found["alone"]])


GIB = 2**30
MEMINFO = "MemTotal: 25165824 kB\nMemAvailable: 16777216 kB\n"


@pytest.fixture
def system(tmp_path: Path) -> Callable[..., Path]:
    """The root of a system with these files; 16 GiB are available."""

    def written(files: dict[str, str]) -> Path:
        for name, text in {"proc/meminfo": MEMINFO, **files}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return written


@pytest.mark.parametrize(
    ("files", "cores", "gib"),
    [
        pytest.param({}, 8.0, 16, id="no groups"),
        pytest.param(
            {
                "proc/self/cgroup": "0::/\n",
                "sys/fs/cgroup/cpu.max": "150000 100000\n",
                "sys/fs/cgroup/memory.max": f"{4 * GIB}\n",
                "sys/fs/cgroup/memory.current": f"{2 * GIB}\n",
                "sys/fs/cgroup/memory.stat": f"anon 4096\ninactive_file {1 * GIB}\n",
            },
            1.5,
            3,
            id="a container",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "0::/slurm/job/step\n",
                "sys/fs/cgroup/slurm/job/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/slurm/job/step/cpu.max": "max 100000\n",
                "sys/fs/cgroup/slurm/job/memory.max": f"{6 * GIB}\n",
                "sys/fs/cgroup/slurm/job/memory.current": f"{2 * GIB}\n",
                "sys/fs/cgroup/slurm/job/step/memory.max": "max\n",
                "sys/fs/cgroup/elsewhere/cpu.max": "100000 100000\n",
            },
            4.0,
            4,
            id="a batch job, limited above",
        ),
        pytest.param(
            {
                "proc/self/cgroup": "4:memory:/a\n3:cpu,cpuacct:/a\n2:pids:/\n0::/\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "200000\n",
                "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": f"{3 * GIB}\n",
                "sys/fs/cgroup/memory/a/memory.usage_in_bytes": f"{5 * GIB}\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{1 * GIB}\n",
            },
            2.0,
            0,
            id="the old interface",
        ),
        pytest.param(
            {"proc/self/cgroup": "nonsense\n", "sys/fs/cgroup/cpu.max": "what\n"}, 8.0, 16, id="what is not understood"
        ),
    ],
)
def test_limits_of_containers_and_batch_jobs_hold(
    system: Callable[..., Path], files: dict[str, str], cores: float, gib: int
) -> None:
    """A container sees the machine's cores and memory, and is killed when it takes them."""
    root = system(files)
    assert (allowed_cores(8, root), available_memory(root)) == (cores, gib * GIB)


def test_a_system_that_tells_nothing_is_no_error(tmp_path: Path) -> None:
    assert allowed_cores(3, tmp_path) == 3
    assert available_memory(tmp_path) >= 0
    assert 0 < available_memory() < 2**50
