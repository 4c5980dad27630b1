"""Training on a CPU against the loops that a user would write or install: `pytest tests/benchmarks/test_training.py`.

MNIST is looked for under GENBENCH_DATA, or where the tests have it. The usual loops have all cores' threads, as torch
would give them; beside other busy processes that stalls them, and USUAL_THREADS=1 is the fairer comparison.
"""

from __future__ import annotations

import math
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ratio import Timed, compare
from torch import Tensor
from usual import PYTHAE, Pythae, UsualLoop, UsualLoops, pythae_python

from genbench.api import DataConfig, Model, ModelContext, Prior
from genbench.execution.executors.choice import ExecutorConfig, create_executor
from genbench.execution.runner import Runner
from genbench.execution.scheduler import run_all
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import plan
from genbench.experiment.run import Precision, Run
from genbench.registry.loader import Registry, load
from genbench.training.callbacks import NullCallback
from genbench.training.device import DeviceConfig, apply_device_config, select_device_config
from genbench.training.loop import TrainConfig, TrainState, train
from genbench.training.precision import computing

DATA = Path(os.environ.get("GENBENCH_DATA") or Path(__file__).resolve().parents[2].parent / "shared" / "data")
CPU = torch.device("cpu")
IMAGES = 5_120
OURS = 40 * IMAGES
"""Of a call: some epochs, so that making the model and choosing its device config do not count."""
SEEDS_SHOWN = 10 * IMAGES
"""Of each seed: enough that one's beginning a little later than the other does not count."""
CORES = int(os.environ.get("USUAL_THREADS") or os.cpu_count() or 1)


@pytest.fixture(autouse=True)
def _all_cores() -> Iterator[None]:
    """The usual loops have torch's usual count of threads, whatever OMP_NUM_THREADS says."""
    before = torch.get_num_threads()
    torch.set_num_threads(CORES)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def registry() -> Registry:
    return load([])


@pytest.fixture(scope="module")
def mnist(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    if not (DATA / "MNIST").exists():
        pytest.skip(f"there is no MNIST in {DATA}: set GENBENCH_DATA")
    data_config = DataConfig(DATA, tmp_path_factory.mktemp("cache"))
    return registry.get("dataset", "mnist").spec.factory().load(data_config).train  # type: ignore[attr-defined, no-any-return]


def ours(
    registry: Registry,
    images: Tensor,
    model: str,
    network: str,
    shown: int = OURS,
    batch: int = 128,
    precision: Precision = "float32",
    change: Callable[[DeviceConfig], DeviceConfig] = lambda config: config,
) -> Callable[[], float]:
    """A training of `shown` images by `genbench run`'s loop, with its device config or a changed one."""

    def run() -> float:
        torch.manual_seed(0)
        made, prior = build(registry, images, model, network)
        device_config = change(select_device_config(made, batch, CPU))
        with (
            tempfile.TemporaryDirectory() as folder,  # a new one: a training goes on from the checkpoint that it finds
            apply_device_config(made, device_config),
            computing(made, precision, CPU),
        ):
            *_, last = train(made, prior, images, TrainConfig(shown, batch, 0, Path(folder, "checkpoint"), ""))
        return last.images

    return run


def all_threads(config: DeviceConfig) -> DeviceConfig:
    """As with `--threads` and the count of the usual loops."""
    return replace(config, threads=CORES)


def compiled(run: Callable[[], float]) -> Callable[[], float]:
    """The same training with encoder and decoder compiled, each kept over calls by torch's own cache."""

    def compiling() -> float:
        with pytest.MonkeyPatch.context() as patch:
            made = build

            def build_compiled(*arguments: Any) -> tuple[Model, Prior]:
                model, prior = made(*arguments)
                for half in (model.encoder, model.decoder):
                    half.forward = torch.compile(half.forward)  # type: ignore[union-attr, method-assign]
                return model, prior

            patch.setitem(globals(), "build", build_compiled)
            return run()

    return compiling


def build(registry: Registry, images: Tensor, model: str, network: str) -> tuple[Model, Prior]:
    shape = tuple(images.shape[1:])
    prior = registry.get("prior", "normal").spec.factory(8)
    made = registry.get("model", model).spec.factory(
        ModelContext(shape, 8, prior, registry.get("network", network).spec.factory(shape))
    )
    return made, prior  # type: ignore[return-value]


def test_mlp_against_the_usual_loop(registry: Registry, mnist: Tensor) -> None:
    loops = {f"usual loop, {workers} workers": UsualLoop(DATA, workers, IMAGES) for workers in (0, 1, 2)}
    item = compare(
        "MNIST, mlp, SWAE L = 50, batch 128, usual loop",
        {f"genbench --threads {CORES}": ours(registry, mnist, "swae", "mlp", change=all_threads), **loops},
        unit="images",
        file="training",
        goal=3.0,
        note=f"either side's threads: {CORES}; genbench's default for steps of this size is one",
    )
    assert item.met


class Span(NullCallback):
    """From the first run's first step to the last run's last one, by the clock on the wall."""

    def __init__(self) -> None:
        self.first, self.last = math.inf, 0.0

    def on_log(self, run: Run, state: TrainState) -> None:
        """A log point of one of the runs."""
        now = time.perf_counter()
        self.first, self.last = min(self.first, now - state.seconds), now


def two_seeds(registry: Registry, shown: int, cache: Path) -> Callable[[], Timed]:
    """`genbench run --seeds 2 --jobs 2` into a new store: the images of both trainings, over the time of both."""
    data_config = DataConfig(DATA, cache, workers=2)
    grid = ExperimentConfig(
        ("swae",), "mnist", ("normal",), (8,), "mlp", (0, 1), 128, ("reconstruction",), images=shown
    )
    planned = plan(grid, registry, data_config)

    def run() -> Timed:
        span = Span()
        with tempfile.TemporaryDirectory() as folder:
            facts = {"command": "a benchmark"}
            runner = Runner(registry, Path(folder), data_config, CPU, facts, planned.metrics, callback=span)
            with create_executor(ExecutorConfig(jobs=2), runner, 2) as executor:
                outcome = run_all(planned, executor, runner)
            assert len(outcome.done) == len(planned.runs)
        return Timed(sum(run.images for run in planned.runs), span.last - span.first)

    return run


def test_two_seeds_against_the_usual_loop(registry: Registry, mnist: Tensor, tmp_path: Path) -> None:
    """What a study of several seeds meets; the usual loop does them one after another, with all cores each."""
    assert len(mnist) > IMAGES
    loops = {f"usual loop, {workers} workers": UsualLoop(DATA, workers, IMAGES) for workers in (0, 1, 2)}
    item = compare(
        "MNIST, mlp, SWAE L = 50, batch 128, two seeds, usual loop",
        {"genbench --jobs 2": two_seeds(registry, SEEDS_SHOWN, tmp_path), **loops},
        unit="images",
        file="training",
        goal=3.0,
        note=f"images of both seeds; ours: two processes of one thread, {SEEDS_SHOWN} images each, from the first step "
        f"to the last; the usual loop one seed at a time, its threads: {CORES}; set-up counts on neither side",
    )
    assert item.met


def test_two_seeds_against_two_usual_loops(registry: Registry, mnist: Tensor, tmp_path: Path) -> None:
    """The same beside who starts the usual loop twice."""
    assert len(mnist) > IMAGES
    with closing(UsualLoops(DATA, IMAGES)) as loops:
        compare(
            "MNIST, mlp, SWAE L = 50, batch 128, two seeds, two usual loops",
            {"genbench --jobs 2": two_seeds(registry, SEEDS_SHOWN, tmp_path), "usual loops, one thread each": loops},
            unit="images",
            file="training",
            note="as the row before, the usual loops being two processes of one thread, too, without workers",
        )


def test_mlp_against_pythae(registry: Registry, mnist: Tensor) -> None:
    try:
        python = pythae_python()
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"{PYTHAE} cannot be installed: {getattr(error, 'stderr', None) or error}")
    with ExitStack() as stack:
        trainers = {
            f"pythae, {workers} workers": stack.enter_context(closing(Pythae(python, DATA, IMAGES, workers)))
            for workers in (0, 2)
        }
        item = compare(
            "MNIST, mlp, WAE-MMD, batch 128, pythae",
            {f"genbench --threads {CORES}": ours(registry, mnist, "wae-mmd", "mlp", change=all_threads), **trainers},
            unit="images",
            file="training",
            goal=3.0,
            note=f"{PYTHAE}, its images a float tensor in memory; either side's threads: {CORES}",
        )
    assert item.met


@pytest.mark.parametrize(("network", "shown"), [("mlp", 25600), ("conv", 25600), ("swae-mnist", 384)])
def test_device_configs(network: str, shown: int, registry: Registry, mnist: Tensor) -> None:
    """The gain by threads, channels-last weights and bfloat16: the ground of the rule in `genbench.training.device`."""
    changes: dict[str, tuple[Callable[[DeviceConfig], DeviceConfig], Precision]] = {
        "default": (lambda config: config, "float32"),
        "1 thread": (lambda config: replace(config, threads=1), "float32"),
        f"{CORES} threads": (all_threads, "float32"),
        "contiguous": (lambda config: replace(config, memory_format="contiguous"), "float32"),
        "channels-last": (lambda config: replace(config, memory_format="channels-last"), "float32"),
        "bfloat16": (lambda config: config, "bfloat16"),
    }
    contenders = {
        name: ours(registry, mnist, "swae", network, shown, precision=precision, change=change)
        for name, (change, precision) in changes.items()
    }
    compare(f"MNIST, {network}, device configs", contenders, unit="images", file="training")


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_compiling(network: str, registry: Registry, mnist: Tensor) -> None:
    """What `torch.compile` is worth once compiled; the first call, which compiles, does not count."""
    plain = ours(registry, mnist, "swae", network)
    compare(
        f"MNIST, {network}, compiled", {"compiled": compiled(plain), "as it is": plain}, unit="images", file="training"
    )
