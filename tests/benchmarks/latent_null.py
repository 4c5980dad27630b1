"""Simulates the latent tests under their null and under a shift: level, excess, standard errors, power.

    python tests/benchmarks/latent_null.py [--cells 500,2000] [--metrics latent-sw] [--scale 1.0]

Writes reports/trust/latent-null.json and .md after every cell (a metric, n and d), a minute or two each; a cell that
the file has is not simulated again. Codes are drawn from the prior N(0, I) itself, or from N(t, I) with |t| such that
the true statistic equals `minimum_detectable_effect`. It measures without a goal.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor

from genbench.api import Noise
from genbench.distances import imq_kernel, squared_distances
from genbench.utils.io import read_json, write_json, write_text
from genbench_latent import LatentMMD, LatentSW, LatentW2
from genbench_latent.blocks import across, as_given, splits, variances, within
from genbench_latent.fit import LatentFit
from genbench_latent.null import LEVEL, Null
from genbench_priors import Normal

OUT = Path(__file__).resolve().parents[2] / "reports" / "trust"
SEED = 20_260_000
REPETITIONS = {("latent-w2", 2000): 96, ("latent-sw", 2000): 200, ("latent-mmd", 2000): 120}
SHIFTED_REPETITIONS = {500: 300, 2000: 96}
RAW_REPETITIONS = {500: 200, 2000: 20}
FACTORS = (0.5, 1.0, 2.0)


@dataclass
class Trial:
    """One pair of samples: its table, and the table where the first is moved by t."""

    table: Tensor
    moved: Callable[[float], Tensor]  # by the length of t


def trial(metric: LatentFit, d: int, repetition: int) -> tuple[Trial, Tensor, Tensor]:
    """A fresh pair of prior samples, and a random direction of its own to move along."""
    generator = Generator().manual_seed(SEED + repetition)
    x, y = (Normal(d).sample(metric.n, Noise(generator)).double() for _ in range(2))
    t = torch.nn.functional.normalize(torch.randn(d, generator=generator, dtype=torch.float64), dim=0)
    if isinstance(metric, LatentMMD):
        return kernel_trial(metric, x, y, t), x, y
    distance, count = metric.distance(Normal(d)), metric.blocks
    xs, ys = metric.cut(x), metric.cut(y)
    table = within(distance, [*xs, *ys])

    def moved(length: float) -> Tensor:
        if isinstance(metric, LatentW2):  # exact: W2^2(x + t, y) = W2^2(x, y) + |t|^2 + 2 t.(mean x - mean y)
            means = [torch.stack([block.mean(0) for block in blocks]) @ t for blocks in (xs, ys)]
            cross = table[:count, count:] + length**2 + 2.0 * length * (means[0][:, None] - means[1][None, :])
        else:
            cross = across(distance, [block + length * t for block in xs], ys)
        return with_cross(table, cross)

    return Trial(table, moved), x, y


def with_cross(table: Tensor, cross: Tensor) -> Tensor:
    count = len(cross)
    changed = table.clone()
    changed[:count, count:], changed[count:, :count] = cross, cross.T
    return changed


def kernel_trial(metric: LatentMMD, x: Tensor, y: Tensor, t: Tensor) -> Trial:
    """As `within` and `across` have it, by one kernel matrix and sums over blocks: a tenth of the time at n = 500."""
    scale, count = Normal(x.shape[1]).pairwise_scale, metric.blocks
    sizes = torch.tensor([len(block) for block in metric.cut(x)], dtype=torch.float64)
    membership = torch.repeat_interleave(torch.eye(count, dtype=torch.float64), sizes.long(), dim=0)

    def mean_kernel(u: Tensor, v: Tensor, *, without_diagonal: bool = False) -> Tensor:
        kernel = imq_kernel(squared_distances(u, v), scale)
        sums = membership.T @ (kernel.fill_diagonal_(0.0) if without_diagonal else kernel) @ membership
        return -2.0 * sums / (sizes[:, None] * sizes[None, :] - (torch.diag(sizes) if without_diagonal else 0.0))

    xx, yy, xy = mean_kernel(x, x, without_diagonal=True), mean_kernel(y, y, without_diagonal=True), mean_kernel(x, y)
    table = torch.cat([torch.cat([xx, xy], 1), torch.cat([xy.T, yy], 1)])
    return Trial(table, lambda length: with_cross(table, mean_kernel(x + length * t, y)))


def length_for(metric: LatentFit, d: int, true: float) -> float:
    """|t| of the translation of N(0, I) whose true statistic is `true`."""
    if isinstance(metric, LatentW2):
        return math.sqrt(true)
    if isinstance(metric, LatentSW):
        return math.sqrt(true * d)
    generator = Generator().manual_seed(SEED - 1)
    r = math.sqrt(2.0) * torch.randn(200_000, d, generator=generator, dtype=torch.float64)  # z - z'
    squares = r.square().sum(1)
    still = imq_kernel(squares, 2.0 * d).mean()
    low, high = 0.0, 10.0
    for _ in range(40):
        t = (low + high) / 2.0
        squared = squares + t * t
        ahead, behind = (imq_kernel(squared + sign * 2.0 * t * r[:, 0], 2.0 * d).mean() for sign in (1, -1))
        low, high = (t, high) if float(2.0 * still - ahead - behind) < true else (low, t)
    return high


def cell(make: type[LatentFit], n: int, d: int, scale: float) -> dict[str, Any]:
    """All that is said of one metric at one n and d."""
    started = time.process_time()
    metric = make(n=n)
    shipped = metric.null(Normal(d))
    repetitions = max(3 * metric.replicates, int(scale * REPETITIONS.get((metric.name, n), 1000)))
    minimum_detectable_effect, members = shipped.minimum_detectable_effect(), splits(metric.blocks)
    lengths = {factor: length_for(metric, d, factor * minimum_detectable_effect) for factor in FACTORS}
    tables, shifted, pieces, raw = [], {factor: [] for factor in FACTORS}, [], []
    for repetition in range(repetitions):
        distances, x, y = trial(metric, d, repetition)
        tables.append(distances.table)
        for factor, length in lengths.items() if repetition < SHIFTED_REPETITIONS[n] else ():
            moved = distances.moved(length)
            value = float(metric.statistic(moved, as_given(metric.blocks)))
            shifted[factor].append((value, variances(moved).total))
        pieces.append(variances(distances.table))
        if metric.raw and len(raw) < RAW_REPETITIONS[n]:
            raw.append(raw_and_se(metric, d, x, y, pieces[-1].mains, shipped))
    plain = torch.cat([metric.statistic(table, as_given(metric.blocks)) for table in tables])
    every = torch.stack([metric.statistic(table, members) for table in tables])
    result: dict[str, Any] = {"metric": metric.name, "n": n, "d": d, "repetitions": repetitions}
    result |= {"shifted repetitions": len(shifted[1.0])}
    result |= levels(shipped, plain, every, metric.replicates)
    result |= {"excess mean": float(plain.mean()), "excess error": float(plain.std()) / math.sqrt(repetitions)}
    result |= {"sd": float(plain.std()), "null sd": shipped.sd, "minimum_detectable_effect": minimum_detectable_effect}
    result["se / sd"] = root_mean([piece.total for piece in pieces]) / float(plain.std())
    for factor, values in shifted.items():
        t = torch.tensor(values, dtype=torch.float64)
        result[f"power at {factor:g}"] = float((p_values(shipped, t[:, 0]) <= LEVEL).double().mean())
        result[f"power predicted at {factor:g}"] = shipped.power(factor * minimum_detectable_effect)
        result[f"mean / true at {factor:g}"] = float(t[:, 0].mean()) / (factor * minimum_detectable_effect)
        result[f"se / sd at {factor:g}"] = float(t[:, 1].mean().sqrt() / t[:, 0].std())
    if raw:
        values, errors = torch.tensor(raw, dtype=torch.float64).T
        result |= {"raw repetitions": len(raw), "raw mean": float(values.mean()), "raw sd": float(values.std())}
        result |= {
            "raw floor": float(shipped.raw.mean()),
            "raw se / sd": root_mean(errors.square()) / float(values.std()),
        }
    return result | {"cpu seconds": round(time.process_time() - started, 1)}


def raw_and_se(metric: LatentFit, d: int, x: Tensor, y: Tensor, mains: float, null: Null) -> tuple[float, float]:
    from genbench_latent.fit import _raw_variance, _whole

    value = _whole(metric.distance(Normal(d)), x, y)
    return value, math.sqrt(_raw_variance(mains, metric.blocks, null)) / (2.0 * value)


def root_mean(squares: Any) -> float:
    return float(torch.as_tensor(squares, dtype=torch.float64).mean().sqrt())


def p_values(null: Null, values: Tensor) -> Tensor:
    """`Null.p` of many values."""
    ordered = null.statistics.sort().values
    at_least = len(ordered) - torch.searchsorted(ordered, values.contiguous())
    return (1.0 + at_least) / (1.0 + len(ordered))


def levels(shipped: Null, plain: Tensor, every: Tensor, replicates: int) -> dict[str, float]:
    """Rates of rejection under the null.

    With the null that users get (its seeds are fixed): of the samples as drawn, and over all splits of each pair, which
    are as good; its error from the spread over pairs. With fresh nulls, each of `replicates` other pairs: the mean
    over nulls, and the spread between them, that of one null's luck (with what binomial noise is left in it).
    """
    rejected = (p_values(shipped, plain) <= LEVEL).double()
    by_pair = (p_values(shipped, every.flatten()).view_as(every) <= LEVEL).double().mean(1)
    fresh = []
    for first in range(0, len(every) - replicates + 1, replicates):
        pool = slice(first, first + replicates)
        null = Null(every[pool].flatten(), *(torch.zeros(1),) * 3)
        rest = torch.cat([every[:first], every[first + replicates :]])
        fresh.append(float((p_values(null, rest.flatten()) <= LEVEL).double().mean()))
    rates = torch.tensor(fresh, dtype=torch.float64)
    n = len(plain)
    return {
        "level": float(rejected.mean()),
        "level error": math.sqrt(LEVEL * (1 - LEVEL) / n),
        "level over splits": float(by_pair.mean()),
        "level over splits error": float(by_pair.std()) / math.sqrt(n),
        "level with fresh nulls": float(rates.mean()),
        "level sd between nulls": float(rates.std()),
    }


def markdown(cells: list[dict[str, Any]]) -> str:
    lines = [
        "# The latent tests under their null, and their power",
        "",
        "`python tests/benchmarks/latent_null.py`. Codes are drawn from the prior N(0, I) itself (first table), or",
        "from N(t, I) (second), |t| such that the true excess is a multiple of `minimum_detectable_effect`. Errors are",
        "one standard deviation. *Level*: rejections at 5 %, with the null that users get, of the samples as drawn and",
        "over all splits of each pair into two; with fresh nulls: mean and spread between nulls. *se / sd*: the",
        "standard error reported, root mean square, over the spread of repetitions. *Predicted*: by",
        "`minimum_detectable_effect`.",
        "",
        "| metric | n | d | pairs | level, % | over splits, % | fresh nulls, % | excess / its error | raw mean / sd |"
        " se / sd | raw se / sd |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for c in cells:
        raw = (f"{c['raw mean'] / c['raw sd']:.1f}", f"{c['raw se / sd']:.2f}") if "raw mean" in c else ("", "")
        lines.append(
            f"| {c['metric']} | {c['n']} | {c['d']} | {c['repetitions']} "
            f"| {100 * c['level']:.1f} ± {100 * c['level error']:.1f} "
            f"| {100 * c['level over splits']:.1f} ± {100 * c['level over splits error']:.1f} "
            f"| {100 * c['level with fresh nulls']:.1f}, {100 * c['level sd between nulls']:.1f} "
            f"| {c['excess mean'] / c['excess error']:+.1f} | {raw[0]} | {c['se / sd']:.2f} | {raw[1]} |"
        )
    heads = " | ".join(f"power at {f:g} (predicted)" for f in FACTORS)
    more = " | ".join(f"mean / true, se / sd at {f:g}" for f in FACTORS[1:])
    lines += ["", f"| metric | n | d | detectable | pairs | {heads} | {more} |", "|" + "---|" * 10]
    for c in cells:
        powers = " | ".join(f"{c[f'power at {f:g}']:.2f} ({c[f'power predicted at {f:g}']:.2f})" for f in FACTORS)
        ratios = " | ".join(f"{c[f'mean / true at {f:g}']:.2f}, {c[f'se / sd at {f:g}']:.2f}" for f in FACTORS[1:])
        lines.append(
            f"| {c['metric']} | {c['n']} | {c['d']} | {c['minimum_detectable_effect']:.3g} "
            f"| {c['shifted repetitions']} | {powers} | {ratios} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", default="500,2000", help="counts n to simulate")
    parser.add_argument("--metrics", default="latent-w2,latent-sw,latent-mmd", help="metrics to simulate")
    parser.add_argument("--again", action="store_true", help="simulate the cells that the file has, too")
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of repetitions")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    path = arguments.out / "latent-null.json"
    cells = {(c["metric"], c["n"], c["d"]): c for c in (read_json(path) if path.exists() else [])}
    for n in map(int, arguments.cells.split(",")):
        for make in (LatentW2, LatentSW, LatentMMD):
            for d in (2, 8, 64):
                if make.name not in arguments.metrics.split(",") or (
                    (make.name, n, d) in cells and not arguments.again
                ):
                    continue
                cells[make.name, n, d] = cell(make, n, d, arguments.scale)
                kept = [cells[key] for key in sorted(cells, key=lambda key: (key[1], key[0], key[2]))]
                write_json(path, kept)
                write_text(path.with_suffix(".md"), markdown(kept))
                print(make.name, n, d, cells[make.name, n, d]["cpu seconds"], flush=True)


if __name__ == "__main__":
    main()
