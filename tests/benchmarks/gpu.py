"""Training on one GPU against the usual loop: one command, under ten minutes, its table last.

    python tests/benchmarks/gpu.py --data-root DIR                 # MNIST in torchvision's layout
    python tests/benchmarks/gpu.py --device cpu --tiny             # does every line of it run?

Each case is counted first (operations of a step, bytes of its weights' traffic), then timed: ours as a recorded step,
ours eagerly, and the usual loop where the goal is a ratio to it; many seeds by worker processes.
The achieved fraction is of the rate of a large matrix product, measured here in the same precision. The table goes to
reports/speed/gpu.md as well, unless --tiny.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from usual import UsualLoop

from genbench.api import DataConfig, Model, ModelContext, Prior
from genbench.execution.executors.process import ProcessExecutor
from genbench.execution.runner import Runner as Study
from genbench.execution.scheduler import run_all
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import plan
from genbench.experiment.run import Precision
from genbench.registry.cache import cache_folder
from genbench.registry.loader import Registry, load
from genbench.training.cuda_graph import CapturedStep, CudaRecorder
from genbench.training.device import apply_device_config, select_device_config
from genbench.training.ensemble import Ensemble, record_draws, step_seconds
from genbench.training.flops import step_flops
from genbench.training.loop import TrainConfig, train
from genbench.training.precision import computing
from genbench.training.step import EagerStep, Step, StepContext, StepFactory, TrainContext, create_train_context
from genbench.utils.io import write_text

OUT = Path(__file__).resolve().parents[2] / "reports" / "speed" / "gpu.md"
REPEATS = 5
BYTES_PER_PARAMETER = 40
"""Of a step's traffic in float32: weights read forward, backward and by Adam, the gradient written and read, Adam's two
moments read and written, the weights written; ten transfers of four bytes. Activations come on top."""


@dataclass(frozen=True)
class Case:
    """A training to time; `goal` is against the usual loop (`ratio`) or a fraction of the product's rate."""

    name: str
    shape: tuple[int, int, int]
    model: str
    network: str
    batch: int
    steps: int
    options: tuple[tuple[str, object], ...] = ()
    precision: Precision = "float32"
    latent_dim: int = 8
    goal: str = ""
    usual: bool = False
    seeds: int = 1


NOTEBOOKS = (("cost", "bce-l1"), ("weight", 10.0), ("annealing", 1.1), ("optimizer", "rmsprop"))
CASES = (
    Case("MNIST, mlp, swae", (1, 28, 28), "swae", "mlp", 128, 4000, goal="10 x usual", usual=True),
    Case("MNIST, mlp, wae-gan", (1, 28, 28), "wae-gan", "mlp", 128, 3000),
    Case("glyphs, mlp, swae, ten seeds", (1, 28, 28), "swae", "mlp", 128, 1500, goal="50 x usual", seeds=10),
    Case("MNIST, swae-mnist, notebooks", (1, 28, 28), "swae", "swae-mnist", 500, 300, NOTEBOOKS, goal="4 x eager loop"),
    Case("CelebA 64, wae-celeba, wae-mmd", (3, 64, 64), "wae-mmd", "wae-celeba", 100, 60, (), "bfloat16", 64, "40 %"),
    Case("CelebA 64, wae-celeba, wae-gan", (3, 64, 64), "wae-gan", "wae-celeba", 100, 60, (), "bfloat16", 64, "40 %"),
)


@dataclass(frozen=True)
class Runner:
    """What the cases share; `rates` are the operations a second of a large matrix product by precision."""

    registry: Registry
    device: torch.device
    rates: dict[Precision, float]
    tiny: bool

    def images(self, case: Case) -> Tensor:
        """Noise of the dataset's shape on the device: the time of a step does not depend on what is shown."""
        count = 4 * case.batch if self.tiny else 20_000
        noise = torch.Generator(device=self.device).manual_seed(0)
        return torch.randint(256, (count, *case.shape), generator=noise, dtype=torch.uint8, device=self.device)

    def build(self, case: Case, seed: int) -> tuple[Model, Prior]:
        """A fresh model on the device, and its prior."""
        torch.manual_seed(seed)
        prior = self.registry.get("prior", "normal").spec.factory(case.latent_dim)
        network = self.registry.get("network", case.network).spec.factory(case.shape)
        setting = ModelContext(case.shape, case.latent_dim, prior, network)  # type: ignore[arg-type]
        model = self.registry.get("model", case.model).spec.factory(setting, **dict(case.options))
        return model.to(self.device), prior  # type: ignore[attr-defined, return-value]

    def make_step(self, captured: bool) -> StepFactory:
        """Recorded or eager; on a CPU eager alone."""

        def make(context: StepContext) -> Step:
            on_graph = captured and self.device.type == "cuda"
            return CapturedStep(context, CudaRecorder(self.device)) if on_graph else EagerStep(context)

        return make

    def rate(self, case: Case, images: Tensor, *, captured: bool) -> tuple[float, str]:
        """Images a second of a training without its first log interval, which has the recording; and how."""
        model, prior = self.build(case, 0)
        config = TrainConfig(
            images=2 * case.steps * case.batch,
            batch=case.batch,
            seed=0,
            checkpoint=Path("no checkpoint"),
            key="",
            snapshot_steps=(case.steps,),
            log_seconds=1e9,
            save_seconds=1e9,
        )
        device_config = select_device_config(model, case.batch, self.device)
        with apply_device_config(model, device_config), computing(model, case.precision, self.device):
            first, last = train(model, prior, images, config, make_step=self.make_step(captured))
        return (last.images - first.images) / (last.seconds - first.seconds), last.how

    def rate_of_seeds(self, case: Case) -> tuple[float, str]:
        """Images a second of a study's seeds at once, which is what their records say together; and how.

        The study is a command's, on the glyphs and without metrics: claimed, logged, checkpointed.
        """
        data_config = DataConfig(cache_folder(), cache_folder(), workers=os.cpu_count() or 1)
        images = 2 * case.steps * case.batch
        names = ("glyphs", ("normal",), (case.latent_dim,), case.network, tuple(range(case.seeds)), case.batch, ())
        planned = plan(ExperimentConfig((case.model,), *names, images=images), self.registry, data_config)
        with tempfile.TemporaryDirectory() as folder:
            store, facts = Path(folder), {"command": "a benchmark"}
            study = Study(self.registry, store, data_config, self.device, facts, planned.metrics)
            executor = ProcessExecutor(study, case.seeds)
            outcome = run_all(planned, executor, study)
            executor.shutdown()
            if len(outcome.done) < case.seeds:
                raise SystemExit(f"{case.name}: {outcome.failed}")
            records = [study.folder(run).training() for run in planned.runs]
        return sum(record.images / record.seconds for record in records), records[0].step


def product_rate(device: torch.device, precision: Precision, size: int) -> float:
    """Operations a second of a large matrix product, the best of several."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(REPEATS + 2):
        wait(device)
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        wait(device)
        best = max(best, 5 * 2 * size**3 / (time.perf_counter() - began))
    return best


def wait(device: torch.device) -> None:
    """Until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(run: Callable[[], float]) -> float:
    """Units a second of a call that gives back how many it did."""
    began = time.perf_counter()
    count = run()
    return count / (time.perf_counter() - began)


def measure(runner: Runner, case: Case, usual: float, seeds: bool = False) -> list[str]:
    """The cells of a case's row; `usual` is the usual loop's rate on the MLP, 0 where unknown.

    With `seeds` they are trained at once by worker processes.
    """
    images = runner.images(case)
    model, _ = runner.build(case, 0)
    each = step_flops(model, case.batch) / case.batch
    traffic = BYTES_PER_PARAMETER * sum(p.numel() for p in model.parameters()) / case.batch
    del model
    repeats = 1 if runner.tiny else 2 if seeds else REPEATS
    graph, eager, how = [], [], ""
    for _ in range(repeats):
        rate, how = runner.rate_of_seeds(case) if seeds else runner.rate(case, images, captured=True)
        graph.append(rate)
        if not seeds:
            eager.append(runner.rate(case, images, captured=False)[0])
    rate = statistics.median(graph)
    against = f"{rate / usual:.1f} x usual" if usual and (case.usual or "usual" in case.goal) else ""
    loop = f"{statistics.median(eager):,.0f}" if eager else ""
    beside = f"{rate / statistics.median(eager):.1f} x eager" if eager else ""
    reached = each * rate / runner.rates[case.precision]
    spread = f"{rate:,.0f} ({min(graph):,.0f} to {max(graph):,.0f})"
    ratios = ", ".join(part for part in (against, beside) if part)
    cost = f"{each / 1e6:,.1f} | {traffic / 1e6:,.2f}"
    return [case.name, case.precision, cost, spread, loop, ratios, f"{100 * reached:.1f} %", case.goal, how]


ENSEMBLE_MODELS, ENSEMBLE_SIZES = ("swae", "vae", "wae-mmd", "wae-gan"), (1, 10, 32, 100)
"""The goals, MLP at batch 128, are 1.6, 2.6 and 7 times the step of one for 10, 32 and 100 members."""


def measure_ensemble(runner: Runner, model: str) -> list[str]:
    """The cells of a model's row: microseconds of a solo step and of one of K members, and their ratios to one's."""
    case = Case(model, (1, 28, 28), model, "mlp", 8 if runner.tiny else 128, 1)
    images = runner.images(case)

    def member(seed: int) -> TrainContext:
        made, prior = runner.build(case, seed)
        return create_train_context(made.train(), prior, images, case.batch, seed)

    least = 0.01 if runner.tiny else 1.0
    solo = step_seconds(member(0), least=least)
    cells = [model, f"{1e6 * solo:,.0f}"]
    for size in (1, 2) if runner.tiny else ENSEMBLE_SIZES:
        members = [member(seed) for seed in range(size)]
        seconds = step_seconds(Ensemble(members, record_draws(members[0])), least=least)
        cells.append(f"{1e6 * seconds:,.0f} ({seconds / solo:.2f} x)")
    return cells


def main() -> None:
    """Count, time, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data-root", type=Path, help="MNIST, for the usual loop")
    parser.add_argument("--tiny", action="store_true", help="a few steps of each case: whether it runs")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    rates: dict[Precision, float] = {
        precision: product_rate(device, precision, 256 if asked.tiny else 8192)
        for precision in ("float32", "bfloat16")  # type: ignore[assignment]
    }
    runner = Runner(load([]), device, rates, asked.tiny)
    usual = 0.0
    if asked.data_root is not None:
        for workers in (0,) if asked.tiny else (0, 2, 4, 8):
            loop = UsualLoop(asked.data_root, workers, 256 if asked.tiny else 12_800, str(device))
            loop()
            usual = max(usual, *(timed(loop) for _ in range(1 if asked.tiny else REPEATS)))
    heads = "case|precision|MFLOP an image|MB of weights an image|images/s|eager|ratio|of the product's rate|goal|step"
    rows = [heads.split("|"), [":--"] * 2 + ["--:"] * 6 + [":--"] * 2]
    sizes = (1, 2) if asked.tiny else ENSEMBLE_SIZES
    stacked = [["microseconds a step", "alone", *(f"ensemble of {size}" for size in sizes)]]
    stacked.append([":--", "--:", *["--:"] * len(sizes)])
    for model in ENSEMBLE_MODELS:
        stacked.append(measure_ensemble(runner, model))
        print(f"measured ensembles of {model}", flush=True)
    for case in CASES:
        small = replace(case, steps=1, batch=2 if "celeba" in case.network else 8)
        if asked.tiny:
            small = replace(small, seeds=min(2, case.seeds))
        chosen = small if asked.tiny else case
        if chosen.seeds == 1:
            rows.append(measure(runner, chosen, usual))
        else:
            named = replace(chosen, name=f"{chosen.name}, --jobs {chosen.seeds}")
            rows.append(measure(runner, named, usual, seeds=True))
        print(f"measured {case.name}", flush=True)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    measured = ", ".join(f"{precision} {rate / 1e12:.3g} TFLOP/s" for precision, rate in rates.items())
    lines = [
        f"On {name}, torch {torch.__version__}; a large product: {measured}; usual loop {usual:,.0f} images/s.",
        "",
    ]
    tables = [*rows, [], *stacked]
    table = "\n".join([*lines, *(f"| {' | '.join(row)} |" if row else "" for row in tables), ""])
    if not asked.tiny:
        write_text(OUT, table)
    print(table)


if __name__ == "__main__":
    main()
