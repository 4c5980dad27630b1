"""Is FID-infinity from few images nearer to what many images give than plain FID is? Real images only.

    python tests/benchmarks/fid_infinity.py --data-root DIR [--out reports/trust]

References are 10,000 of MNIST's training images; what is compared with them are disjoint training images, as they are
(the laws are equal) or blurred (they are not). For each n, plain FID and FID-infinity of n images over several draws
stand beside the value of 10,000 images, and beside the limit of infinitely many, for which FID-infinity of 20,000
images stands. It measures without a goal.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from genbench.api import DataConfig
from genbench.distances import frechet_distance
from genbench.experiment.build import create_dataset
from genbench.experiment.run import Component
from genbench.features import extract, feature_layer
from genbench.registry.loader import load
from genbench.utils.io import write_json, write_text
from genbench_fid.frechet import distance, extrapolated, gaussian, standard_error

SIZES = (2_000, 3_000, 5_000, 7_500, 10_000)
DRAWS = 20
REPEATS = 500
PARTITIONS = 8


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("reports/trust"))
    arguments = parser.parse_args()
    data_config = DataConfig(arguments.data_root, Path("~/.cache/genbench").expanduser())
    registry = load()
    fingerprint = registry.get("dataset", "mnist").plugin.fingerprint
    images = create_dataset(registry, Component("mnist", (), fingerprint)).load(data_config).train
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    real, rest = images[order[:10_000]], images[order[10_000:]]
    extractor = feature_layer("grey28", "", "", data_config)
    references = extract(extractor, real)
    results = {
        "equal laws": compared(references, extract(extractor, rest)),
        "blurred": compared(references, extract(extractor, gaussian_blur(rest, [5, 5], [0.7, 0.7]))),
    }
    results["normal laws of known distance"] = simulated()
    write_json(arguments.out / "fid-infinity.json", results)
    write_text(arguments.out / "fid-infinity.md", markdown(results))
    print(markdown(results))


def compared(references: Tensor, pool: Tensor) -> dict[str, object]:
    """Plain and extrapolated values by n over draws of the pool."""

    def draw(n: int, seed: int) -> Tensor:
        return pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(seed))[:n]]

    many = [distance(references, draw(10_000, 1000 + seed)) for seed in range(DRAWS)]
    limit = [extrapolated(references, draw(20_000, 2000 + seed), PARTITIONS).value for seed in range(4)]
    target, infinite = statistics.fmean(many), statistics.fmean(limit)
    lines = []
    for n in SIZES:
        plain = [distance(references, draw(n, seed)) for seed in range(DRAWS)]
        infinity = [extrapolated(references, draw(n, seed), PARTITIONS) for seed in range(DRAWS)]
        values = [limit.value for limit in infinity]
        lines.append(
            {
                "n": n,
                "fid": statistics.fmean(plain),
                "fid sd": statistics.stdev(plain),
                "fid-infinity": statistics.fmean(values),
                "fid-infinity sd": statistics.stdev(values),
                "fid-infinity se": statistics.fmean(limit.se for limit in infinity),
                "covers the limit": sum(abs(limit.value - infinite) < 1.96 * limit.se for limit in infinity) / DRAWS,
                "fid error to 10,000": error(plain, target),
                "fid-infinity error to 10,000": error(values, target),
                "fid error to the limit": error(plain, infinite),
                "fid-infinity error to the limit": error(values, infinite),
            }
        )
    return {"value of 10,000": target, "limit": infinite, "draws": DRAWS, "by n": lines}


def simulated(width: int = 32, references: int = 2000, n: int = 1000) -> dict[str, object]:
    """Mean, spread, standard error and coverage where the limit is known: two normal laws, the references fixed."""
    draws = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    root = normal(width, width) / width**0.5
    results: dict[str, object] = {}
    for name, factor, shift in (("equal", root, 0.0), ("unequal", root + 0.1 * normal(width, width) / width**0.5, 0.3)):
        real = normal(references, width) @ root
        limit = frechet_distance(*gaussian(real), torch.full((width,), shift, dtype=torch.float64), factor.T @ factor)
        plain, errors, limits = [], [], []
        for _ in range(REPEATS):
            made = normal(n, width) @ factor + shift
            plain.append(distance(real, made))
            errors.append(standard_error(real, made) or 0.0)
            limits.append(extrapolated(real, made, PARTITIONS))
        values = [estimate.value for estimate in limits]
        results[name] = {
            "limit": limit,
            "fid": statistics.fmean(plain),
            "fid se / sd": rms(errors) / statistics.stdev(plain),
            "fid-infinity": statistics.fmean(values),
            "fid-infinity se / sd": rms([estimate.se for estimate in limits]) / statistics.stdev(values),
            "coverage": sum(abs(estimate.value - limit) < 1.96 * estimate.se for estimate in limits) / REPEATS,
        }
    return results


def rms(values: list[float]) -> float:
    """Root mean square."""
    return statistics.fmean(value**2 for value in values) ** 0.5


def error(values: list[float], target: float) -> float:
    """Root mean square distance from a target."""
    return rms([value - target for value in values])


def markdown(results: dict[str, dict[str, object]]) -> str:
    """The tables."""
    lines = ["# FID-infinity on real images", "", "`python tests/benchmarks/fid_infinity.py --data-root DIR`", ""]
    for name, result in results.items():
        if "by n" not in result:
            continue
        lines += [
            f"## {name}: FID of 10,000 images {result['value of 10,000']:.3f}, limit {result['limit']:.3f}",
            "",
            "| n | FID | FID-infinity (se) | error to the value of 10,000: both | error to the limit: both | covers |",
            "|--:|--:|--:|--:|--:|--:|",
        ]
        for row in result["by n"]:  # type: ignore[attr-defined]
            lines.append(
                f"| {row['n']:,} | {row['fid']:.3f} \u00b1 {row['fid sd']:.3f} | {row['fid-infinity']:.3f} \u00b1"
                f" {row['fid-infinity sd']:.3f} ({row['fid-infinity se']:.3f}) | {row['fid error to 10,000']:.3f},"
                f" {row['fid-infinity error to 10,000']:.3f} | {row['fid error to the limit']:.3f},"
                f" {row['fid-infinity error to the limit']:.3f} | {row['covers the limit']:.0%} |"
            )
        lines.append("")
    lines += [
        "Values are means over draws of n images, with their standard deviation over draws; errors are root mean"
        " squares, first of FID, then of FID-infinity. To the limit FID-infinity is the nearer at every n. To the value"
        " of 10,000 images, which has a bias of its own, it is the nearer only while n is well below 10,000.",
        "",
    ]
    lines += [
        f"## simulated: 1,000 samples of a normal law in 32 dimensions, {REPEATS} repeats",
        "",
        "| laws | limit | FID | its se / sd | FID-infinity | its se / sd | 95 % interval covers |",
        "|:--|--:|--:|--:|--:|--:|--:|",
    ]
    for name, row in results["normal laws of known distance"].items():
        numbers = (f"{row[key]:.3f}" for key in ("limit", "fid", "fid se / sd", "fid-infinity", "fid-infinity se / sd"))  # type: ignore[index]
        lines.append(f"| {name} | {' | '.join(numbers)} | {row['coverage']:.1%} |")  # type: ignore[index]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
