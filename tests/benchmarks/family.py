"""Every registered model: what a step costs, and whether three epochs of glyphs beat the controls.

`python tests/benchmarks/family.py cost` and `... learn --seeds 2 --out RUNS` replace their table in
reports/family/README.md, `... table --out RUNS` writes that of the runs that are there.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

import genbench
from genbench.api import Model, ModelContext
from genbench.registry.loader import Registry, load
from genbench.storage.provenance import commit, describe
from genbench.training.step import EagerStep, create_train_context
from genbench.utils.io import write_text

REPORT = Path(__file__).parents[2] / "reports" / "family" / "README.md"
PRIORS = {"vmf-vae": "sphere"}
"""The prior of each model that refuses the normal one."""

SAMPLERS = {"rae": "gmm"}
"""The sampler of each model whose codes do not follow the prior by design."""

CONTROLS = ("untrained", "mean-image")
METRIC_NAMES = ("fid", "reconstruction")
METRICS = ("fid", "reconstruction.pixel")
SHAPE, LATENT, BATCH = (1, 28, 28), 8, 128
STEPS = 10
"""Steps that are timed at once."""


def built(registry: Registry, name: str) -> Model:
    """A model with its defaults and the network `mlp`."""
    torch.manual_seed(0)
    prior = registry.get("prior", PRIORS.get(name, "normal")).spec.factory(LATENT)
    network = registry.get("network", "mlp").spec.factory(SHAPE)
    return registry.get("model", name).spec.factory(ModelContext(SHAPE, LATENT, prior, network)).train()


def measure_costs(repeats: int) -> dict[str, list[float]]:
    """Processor seconds of a step of each model in each repeat; a repeat times all models in turn, on one thread."""
    torch.set_num_threads(1)
    registry = load([])
    images = torch.randint(0, 256, (4096, *SHAPE), dtype=torch.uint8)
    indices = torch.arange(BATCH)
    steps = {}
    for name in registry.names("model"):
        model = built(registry, name)
        steps[name] = EagerStep(create_train_context(model, model.prior, images, BATCH, 0))
        steps[name].on_epoch_start(0)
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + 1):
        for name, step in steps.items():
            began = time.process_time()
            for number in range(STEPS):
                step.run(repeat * STEPS + number, indices)
            if repeat:  # the first warms up
                seconds[name].append((time.process_time() - began) / STEPS)
    return seconds


def cost_table(seconds: dict[str, list[float]]) -> list[str]:
    """Medians over the repeats: milliseconds of the processor, and the ratio to `ae` of the same repeat."""
    lines = ["| model | ms a step | of `ae` | least, most |", "|:--|--:|--:|--:|"]
    for name, values in seconds.items():
        ratios = sorted(value / base for value, base in zip(values, seconds["ae"], strict=True))
        spread = f"{ratios[0]:.1f}, {ratios[-1]:.1f}"
        median = statistics.median(ratios)
        lines.append(f"| {name} | {1e3 * statistics.median(values):.1f} | {median:.1f} | {spread} |")
    return lines


def train_all(names: Sequence[str], seeds: int, out: Path) -> genbench.Study:
    """Train and measure every model as it is meant to be used, and the controls."""
    usual = [name for name in names if name not in PRIORS and name not in SAMPLERS]
    common = {"seeds": seeds, "epochs": 3, "jobs": 1, "out": out, "progress": True, "metrics": METRIC_NAMES}
    study = genbench.run(usual, controls=CONTROLS, **common)
    for name in names:
        if name not in usual:
            prior, sampler = PRIORS.get(name, "normal"), SAMPLERS.get(name, "prior")
            study = genbench.run(name, priors=prior, samplers=sampler, **common)
    return study


def learn_table(names: Sequence[str], runs: Path) -> list[str]:
    """FID and reconstruction of each seed, and whether all of them beat every control."""
    rows = [row for row in genbench.load_results(runs) if row.value is not None]
    values: dict[tuple[str, str], list[float]] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        for metric in METRICS:
            if row.metric.split("@")[0] == metric:
                values.setdefault((row.model, metric), []).append(row.value)
    best = {metric: min(min(values[control, metric]) for control in CONTROLS) for metric in METRICS}
    lines = [
        "| model | prior, sampler | FID (grey28) of each seed | MSE per pixel of each seed | beats the controls |",
        "|:--|:--|--:|--:|:--|",
    ]
    for name in (*names, *CONTROLS):
        if any((name, metric) not in values for metric in METRICS):
            lines.append(f"| {name} | | | | not trained |")
            continue
        fid, error = values[name, "fid"], values[name, "reconstruction.pixel"]
        beaten = [metric for metric in METRICS if max(values[name, metric]) < best[metric]]
        verdict = "" if name in CONTROLS else "both" if len(beaten) == 2 else f"only by {beaten[0]}" if beaten else "no"
        how = "" if name in CONTROLS else f"{PRIORS.get(name, 'normal')}, {SAMPLERS.get(name, 'prior')}"
        label = f"*control: {name}*" if name in CONTROLS else name
        numbers = f"{', '.join(f'{v:.3g}' for v in fid)} | {', '.join(f'{v:.4f}' for v in error)}"
        lines.append(f"| {label} | {how} | {numbers} | {verdict} |")
    return lines


def describe_runs(runs: Path) -> str:
    """Commits and devices of the runs, and the seconds of their trainings."""
    records = [json.loads(path.read_text())["provenance"] for path in sorted(runs.glob("*/run.json"))]
    commits, devices = (", ".join(sorted({record[key] for record in records})) for key in ("commit", "device"))
    seconds = sum({row.run: row.seconds or 0.0 for row in genbench.load_results(runs)}.values())
    return f"commit {commits}, {devices}, {seconds:.0f} s of training"


def keep(what: str, text: str) -> None:
    """Replace the text between the marks of a table in the report."""
    marks = rf"(<!-- {what} -->\n).*?(<!-- end -->)"
    page = re.sub(marks, lambda match: match[1] + text + match[2], REPORT.read_text(encoding="utf-8"), flags=re.DOTALL)
    write_text(REPORT, page)


def main() -> None:
    """Measure or train, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=["cost", "learn", "table"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/family"), help="folder of the trained runs")
    asked = parser.parse_args()
    names = load([]).names("model")
    if asked.what == "cost":
        began, lines = time.perf_counter(), cost_table(measure_costs(asked.repeats))
        facts = f"commit {commit()}, {describe(torch.device('cpu'))}, {time.perf_counter() - began:.0f} s"
    else:
        if asked.what == "learn":
            train_all(names, asked.seeds, asked.out)
        lines, facts = learn_table(names, asked.out), describe_runs(asked.out)
    text = f"{facts[0].upper()}{facts[1:]}.\n\n" + "\n".join(lines) + "\n"
    print(text)
    keep("cost" if asked.what == "cost" else "learn", text)


if __name__ == "__main__":
    main()
