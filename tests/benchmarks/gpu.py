"""Everything that concerns one GPU, in one command under eight minutes; each row is written as it is measured.

    python tests/benchmarks/gpu.py --data-root DIR --inception FILE   # MNIST as torchvision has it, Inception's weights
    python tests/benchmarks/gpu.py --only celeba,compile              # some of the sections
    python tests/benchmarks/gpu.py --device cpu --tiny                # does every line of it run?

Sections, the most important ones first; one that begins when the minutes are over is left out, and a row says so:
`ensembles`, `steps` (all models), `usual` (the usual loop), `features`, `celeba`, `study` (the whole, and evaluation),
`start` (of a fresh machine), `compile`, `notebooks`. Without `--data-root` what needs MNIST is left out, without
`--inception` the features. The table goes to reports/speed/gpu-measured.md, unless --tiny or --out says otherwise.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from usual import UsualLoop

from genbench.api import DataConfig, Model, ModelContext
from genbench.distances import frechet_distance_of_samples
from genbench.errors import one_line
from genbench.experiment.run import Precision
from genbench.features import extract, feature_layer
from genbench.registry.loader import Registry, load
from genbench.storage.provenance import commit
from genbench.storage.run_dir import RunFolder
from genbench.training.cuda_graph import CapturedStep, CudaRecorder
from genbench.training.device import apply_device_config, select_device_config
from genbench.training.ensemble import Ensemble, record_draws, step_seconds
from genbench.training.flops import step_flops
from genbench.training.precision import computing
from genbench.training.step import EagerStep, Step, StepContext, create_train_context
from genbench.utils.io import write_text

OUT = Path(__file__).resolve().parents[2] / "reports" / "speed" / "gpu-measured.md"
MNIST, FACES = (1, 28, 28), (3, 64, 64)
PRIORS = {"vmf-vae": "sphere"}
REPEATS = 3


@dataclass(frozen=True)
class Row:
    """A figure, its goal where there is one, and whether it is met where a number decides."""

    what: str
    figure: str
    goal: str = ""
    met: bool | None = None


@dataclass(frozen=True)
class Case:
    """A training to time."""

    model: str = "swae"
    network: str = "mlp"
    shape: tuple[int, int, int] = MNIST
    batch: int = 128
    latent_dim: int = 8
    precision: Precision = "float32"
    options: tuple[tuple[str, object], ...] = ()
    change: Callable[[Model], None] = lambda model: None
    """Applied to the model before its first step."""


@dataclass
class Bench:
    """What the sections share."""

    registry: Registry
    device: torch.device
    data_root: Path | None
    inception: Path | None
    tiny: bool
    ends: float
    known: dict[str, float] = field(default_factory=dict)
    """Numbers that a later section compares with."""

    @property
    def least(self) -> float:
        """Seconds of steps behind each figure."""
        return 0.01 if self.tiny else 0.5

    def build(self, case: Case, seed: int = 0) -> Model:
        """A fresh model on the device."""
        torch.manual_seed(seed)
        prior = self.registry.get("prior", PRIORS.get(case.model, "normal")).spec.factory(case.latent_dim)
        network = self.registry.get("network", case.network).spec.factory(case.shape)
        setting = ModelContext(case.shape, case.latent_dim, prior, network)  # type: ignore[arg-type]
        model: Model = self.registry.get("model", case.model).spec.factory(setting, **dict(case.options))  # type: ignore[assignment]
        case.change(model)
        return model.train().to(self.device)

    def images(self, case: Case) -> Tensor:
        """Noise: the time of a step does not depend on what is shown."""
        noise = torch.Generator(device=self.device).manual_seed(0)
        count = 4 * case.batch if self.tiny else max(20_000 if case.shape == MNIST else 2_000, case.batch)
        return torch.randint(256, (count, *case.shape), generator=noise, dtype=torch.uint8, device=self.device)

    def seconds(self, case: Case, *, captured: bool = True) -> float:
        """Seconds of a training step, recorded or eager, as a command's training does it."""
        model, images = self.build(case), self.images(case)
        with ExitStack() as stack:
            config = select_device_config(model, case.batch, self.device)
            stack.enter_context(apply_device_config(model, config))
            stack.enter_context(computing(model, case.precision, self.device))
            context = create_train_context(model, model.prior, images, case.batch, 0)
            return step_seconds(context, self.recorded if captured else EagerStep, self.least)

    def recorded(self, context: StepContext) -> Step:
        """A CUDA graph; on a CPU an eager step."""
        if self.device.type == "cpu":
            return EagerStep(context)
        return CapturedStep(context, CudaRecorder(self.device))

    def kernels(self, case: Case) -> str:
        """Kernels of an eager step, counted by torch's profiler; "" on a CPU."""
        if self.device.type == "cpu":
            return ""
        model = self.build(case)
        step = EagerStep(create_train_context(model, model.prior, self.images(case), case.batch, 0))
        indices = torch.arange(case.batch, device=self.device)
        step.on_epoch_start(0)
        for number in range(3):
            step.run(number, indices)
        with profile(activities=[ProfilerActivity.CUDA]) as seen:
            step.run(3, indices)
            torch.cuda.synchronize(self.device)
        return f", {sum(event.device_type == torch.autograd.DeviceType.CUDA for event in seen.events())} kernels"

    def small(self, case: Case) -> Case:
        """The case; where all is tiny, of four images a step, and of the default network for WAE's."""
        if not self.tiny:
            return case
        return replace(case, batch=4, network="conv" if case.network == "wae-celeba" else case.network)


def timed(run: Callable[[], float]) -> float:
    """Units a second of a call that gives back how many it did."""
    began = time.perf_counter()
    count = run()
    return count / (time.perf_counter() - began)


# ---------------------------------------------------------------- sections


def ensembles(bench: Bench) -> Iterator[Row]:
    """Steps of K members over steps of one."""
    goals = {10: 1.6, 32: 2.6, 100: 7.0}
    for model in ("swae",) if bench.tiny else ("swae", "vae", "wae-mmd", "wae-gan"):
        case = bench.small(Case(model))
        images, solo = bench.images(case), bench.seconds(case)
        yield Row(f"{model}, mlp, batch {case.batch}, captured step", f"{1e6 * solo:,.0f} us")
        for size in (2,) if bench.tiny else (10, 32, 100):
            made = [bench.build(case, seed) for seed in range(size)]
            members = [create_train_context(m, m.prior, images, case.batch, k) for k, m in enumerate(made)]
            ensemble = Ensemble(members, record_draws(members[0]))
            began = time.perf_counter()
            for number in range(20):
                ensemble.noise.prepare(number)
            drawing = (time.perf_counter() - began) / 20
            together = step_seconds(ensemble, bench.recorded, bench.least)
            bench.known[f"{model} {size}"] = size * case.batch / together
            goal = goals.get(size, 0.0)
            ratio, draws = together / solo, f"{1e6 * drawing:,.0f} us of the host's draw"
            figure = f"{1e6 * together:,.0f} us, {ratio:.2f} times one; {draws}"
            yield Row(f"{model}, ensemble of {size}", figure, f"{goal} times" if goal else "", ratio <= goal)


def steps(bench: Bench) -> Iterator[Row]:
    """The captured step of every model, and its kernels."""
    for model in ("vmf-vae",) if bench.tiny else bench.registry.names("model"):
        case = bench.small(Case(model))
        yield Row(f"{model}, mlp, a step", f"{1e6 * bench.seconds(case):,.0f} us{bench.kernels(case)}")


def usual(bench: Bench) -> Iterator[Row]:
    """The usual loop of DataLoader and Adam, and ours over it."""
    if bench.data_root is None:
        yield Row("the usual loop", "left out: no --data-root")
        return
    rates = {}
    for workers in (0,) if bench.tiny else (0, 4, 8):
        loop = UsualLoop(bench.data_root, workers, 256 if bench.tiny else 12_800, str(bench.device))
        loop()
        rates[workers] = max(timed(loop) for _ in range(1 if bench.tiny else REPEATS))
    best = max(rates, key=lambda workers: rates[workers])
    yield Row("the usual loop of DataLoader and Adam", f"{rates[best]:,.0f} images/s with {best} workers")
    ours = 128 / bench.seconds(Case())
    yield Row("swae, captured step, over it", f"{ours / rates[best]:.1f} times", "10 times", ours >= 10 * rates[best])
    if ten := bench.known.get("swae 10"):
        yield Row("ten seeds of swae, over it", f"{ten / rates[best]:.1f} times", "50 times", ten >= 50 * rates[best])


def features(bench: Bench) -> Iterator[Row]:
    """Inception to layer 768, against torch-fidelity's own way."""
    if bench.inception is None:
        yield Row("Inception features", "left out: no --inception")
        return
    import torch_fidelity

    count = 8 if bench.tiny else 5_000
    noise = torch.Generator().manual_seed(0)
    pictures = [torch.randint(256, (count, 3, 64, 64), generator=noise, dtype=torch.uint8) for _ in range(2)]
    layer = feature_layer("inception", "768", str(bench.inception), DataConfig(Path(), Path()))
    extract(layer, pictures[0][:4].to(bench.device))
    taken: list[Tensor] = []

    def ours() -> float:
        taken[:] = [extract(layer, each.to(bench.device)) for each in pictures]
        return 2 * count

    rate = timed(ours)
    yield Row("Inception features to layer 768", f"{rate:,.0f} images/s", "3,000", rate >= 3000)
    began = time.perf_counter()
    theirs = torch_fidelity.calculate_metrics(
        input1=Pictures(pictures[0]),
        input2=Pictures(pictures[1]),
        fid=True,
        cuda=bench.device.type == "cuda",
        batch_size=100,
        cache=False,
        verbose=False,
        feature_layer_fid="768",
        feature_extractor=layer.implementation,
        feature_extractor_weights_path=layer.weights,
    )["frechet_inception_distance"]
    peer = 2 * count / (time.perf_counter() - began)
    yield Row("the same over calculate_metrics", f"{rate / peer:.1f} times", "6 times", rate >= 6 * peer)
    apart = abs(frechet_distance_of_samples(*taken) / theirs - 1)
    yield Row("FID apart from its", f"{apart:.1e} of it", "1e-3", apart <= 1e-3)


class Pictures(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Images as `calculate_metrics` takes them."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


CELEBA = Case("wae-mmd", "wae-celeba", FACES, 100, 64, "bfloat16")


def without_idle_biases(model: Model) -> None:
    """Leave out the biases that the batch norm after them subtracts."""
    for sequence in model.modules():
        layers = list(sequence) if isinstance(sequence, nn.Sequential) else []
        for layer, after in pairwise(layers):
            if isinstance(after, nn.BatchNorm2d):
                layer.bias = None


def celeba(bench: Bench) -> Iterator[Row]:
    """WAE's network for faces, over the rate of a large matrix product in bfloat16."""
    product = product_rate(bench.device, 256 if bench.tiny else 8192)
    yield Row("a large matrix product in bfloat16", f"{product / 1e12:,.0f} TFLOP/s")
    flops = step_flops(bench.build(bench.small(CELEBA)), 4) / 4
    for batch in (4,) if bench.tiny else (100, 200, 400):
        case = bench.small(replace(CELEBA, batch=batch))
        seconds = bench.seconds(case)
        share = flops * batch / seconds / product
        figure = f"{1e3 * seconds:.2f} ms, {batch / seconds:,.0f} images/s, {100 * share:.1f} % of it"
        yield Row(f"wae-mmd, wae-celeba, batch {batch}", figure, "40 %" * (batch == 100), share >= 0.4)
    bare = bench.seconds(bench.small(replace(CELEBA, change=without_idle_biases)))
    yield Row("the same at 100 without biases before batch norm", f"{1e3 * bare:.2f} ms")


def product_rate(device: torch.device, size: int) -> float:
    """Operations a second of a large matrix product in bfloat16, the best of several."""
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def products() -> float:
        for _ in range(5):
            a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return 5 * 2 * float(size) ** 3

    return max(timed(products) for _ in range(REPEATS + 2))


def compiling(bench: Bench) -> Iterator[Row]:
    """torch.compile of encoder and decoder within the recorded step: what it gains, and what compiling costs."""
    backend = "aot_eager" if bench.tiny else "inductor"

    def compiled(model: Model) -> None:
        for network in (model.encoder, model.decoder):
            network.compile(backend=backend, dynamic=False)  # type: ignore[operator, union-attr]

    cases = (
        CELEBA,
        Case("swae", "swae-mnist", MNIST, 500, 2),
        Case("swae", "swae-mnist", MNIST, 500, 2, "bfloat16"),
        Case("swae", "mlp"),
    )
    for given in cases[-1:] if bench.tiny else cases:
        case = bench.small(given)
        plain = bench.seconds(case)
        began = time.perf_counter()
        seconds = bench.seconds(replace(case, change=compiled))
        cost = time.perf_counter() - began - bench.least
        saved = plain - seconds
        pays = f"pays after {cost / saved:,.0f} steps" if saved > 0 else "never pays"
        what = f"{case.model}, {case.network}, batch {case.batch}, {case.precision}, compiled"
        figure = f"{case.batch / seconds:,.0f} images/s for {case.batch / plain:,.0f}; {cost:.0f} s to compile: {pays}"
        yield Row(what, figure)


def notebooks(bench: Bench) -> Iterator[Row]:
    """The network of SWAE's notebooks."""
    options = (("cost", "bce-l1"), ("weight", 10.0), ("annealing", 1.1), ("optimizer", "rmsprop"))
    for precision in ("float32",) if bench.device.type == "cpu" else ("float32", "tf32", "bfloat16"):
        case = bench.small(Case("swae", "swae-mnist", MNIST, 500, 2, precision, options))  # type: ignore[arg-type]
        captured, eager = bench.seconds(case), bench.seconds(case, captured=False)
        figure = f"{1e3 * captured:.2f} ms, {eager / captured:.1f} times the eager step"
        yield Row(f"swae-mnist as in the notebooks, batch {case.batch}, {precision}", figure)


def study(bench: Bench) -> Iterator[Row]:
    """The command of a whole study, and what its evaluation cost."""
    models, seeds = ("swae", "wae-gan", "wae-mmd", "vae"), 5
    arguments = ["run", *models, "--seeds", str(seeds), "--network", "mlp", "--device", bench.device.type]
    if bench.tiny:
        models, seeds = ("ae", "vae"), 2
        arguments = ["run", *models, "--seeds", "2", "--network", "mlp", "--images", "256", "--device", "cpu"]
        arguments += ["--metrics", "reconstruction"]
    elif bench.data_root is None:
        yield Row("the whole study", "left out: no --data-root")
        return
    else:
        arguments += ["--dataset", "mnist", "--epochs", "100", "--data-root", str(bench.data_root)]
    if bench.inception is not None and not bench.tiny:
        arguments += ["--set", f"fid.weights={bench.inception}"]
    with tempfile.TemporaryDirectory() as folder:
        limit = max(30.0, bench.ends - time.perf_counter())
        seconds, problem = command([*arguments, "--out", folder], limit)
        name = f"{len(models)} models x {seeds} seeds, 100 epochs, default metrics"
        folders = [RunFolder(path.parent) for path in sorted(Path(folder).glob("*/training.json"))]
        done = f"{seconds:,.0f} s{problem}, {len(folders)} of {len(models) * seeds} runs trained"
        yield Row(name, done, "180 s", not problem and seconds <= 180)
        costs = [each.training() for each in folders]
        yield Row("of it training", f"{sum(cost.seconds / (cost.jobs or 1) for cost in costs):,.1f} s")
        if folders:
            taken = {record.metric: record.seconds or 0.0 for record in folders[0].measurements().values()}
            listed = ", ".join(f"{metric} {taken[metric]:.2f}" for metric in sorted(taken, key=lambda m: -taken[m]))
            yield Row(f"metrics of {folders[0].path.name}, seconds", listed)
            rest = sum(cost for metric, cost in taken.items() if not metric.endswith("w2"))
            yield Row("all but exact transport", f"{rest:.2f} s", "1 s", rest <= 1.0)


def start(bench: Bench) -> Iterator[Row]:
    """A first run on a fresh machine: imports, glyphs, floors, null distributions."""
    few = ["run", "ae", "--network", "mlp", "--images", "1280", "--device", bench.device.type]
    metrics = "reconstruction" if bench.tiny else "reconstruction,latent-sw"
    with tempfile.TemporaryDirectory() as cache:
        for what, goal in (("a first small run with an empty cache", "8 s"), ("another with what that one kept", "")):
            with tempfile.TemporaryDirectory() as folder:
                seconds, problem = command([*few, "--metrics", metrics, "--out", folder], 120.0, cache)
            yield Row(what, f"{seconds:.1f} s{problem}", goal, seconds <= 8)


def command(arguments: list[str], limit: float, cache: str = "") -> tuple[float, str]:
    """The seconds of a genbench command, and why it ended early, else ""."""
    environment = {**os.environ, **({"GENBENCH_CACHE": cache} if cache else {})}
    words, began, problem = [sys.executable, "-m", "genbench", *arguments], time.perf_counter(), ""
    try:
        done = subprocess.run(words, env=environment, timeout=limit, capture_output=True, text=True)
        if done.returncode:
            problem = f" and exit status {done.returncode}: {one_line(RuntimeError(done.stderr), 200)}"
    except subprocess.TimeoutExpired:
        problem = ", stopped there"
    return time.perf_counter() - began, problem


SECTIONS: dict[str, Callable[[Bench], Iterator[Row]]] = {
    "ensembles": ensembles,
    "steps": steps,
    "usual": usual,
    "features": features,
    "celeba": celeba,
    "study": study,
    "start": start,
    "compile": compiling,
    "notebooks": notebooks,
}


def rows(bench: Bench, chosen: list[str]) -> Iterator[Row]:
    """The rows of the sections; one that fails says so, and the others go on."""
    for name in chosen:
        if time.perf_counter() > bench.ends:
            yield Row(name, "left out: the minutes are over")
            continue
        try:
            yield from SECTIONS[name](bench)
        except Exception as error:  # the other figures are worth having
            if bench.tiny:
                raise
            yield Row(name, f"{type(error).__name__}: {one_line(error, 200)}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--inception", type=Path)
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, comma-separated")
    parser.add_argument("--minutes", type=float, default=7.5)
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--tiny", action="store_true", help="a few steps of each section: whether it runs")
    asked = parser.parse_args()
    device = torch.device(asked.device)
    ends = time.perf_counter() + 60 * asked.minutes
    bench = Bench(load([]), device, asked.data_root, asked.inception, asked.tiny, ends)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
    lines = [f"On {name}, {os.cpu_count()} CPU cores, torch {torch.__version__}, commit {commit() or 'unknown'}.", ""]
    lines += ["| what | figure | goal |", "|:--|:--|:--|"]
    for row in rows(bench, asked.only.split(",")):
        goal = row.goal and f"{row.goal}{'' if row.met is None else ', met' if row.met else ', missed'}"
        lines.append(f"| {row.what} | {row.figure} | {goal} |")
        print(lines[-1], flush=True)
        if not asked.tiny:
            write_text(asked.out, "\n".join([*lines, ""]))


if __name__ == "__main__":
    main()
