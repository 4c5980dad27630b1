"""Every reader on many damaged inputs; writes reports/reliability/fuzz.md and fuzz.json. It counts without a goal."""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from genbench.utils.io import write_json, write_text  # noqa: E402
from support.mutations import TARGETS, fuzz  # noqa: E402


@click.command()
@click.option("--inputs", type=click.IntRange(1), default=100_000, show_default=True, help="Inputs of each reader.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the damage.")
@click.option("--reader", type=click.Choice(list(TARGETS)), multiple=True, help="These readers only.")
def main(inputs: int, seed: int, reader: tuple[str, ...]) -> None:
    """Write fuzz.json and fuzz.md; exit status 1 where a reader crashed."""
    warnings.simplefilter("ignore")
    folder = ROOT / "reports" / "reliability"
    counts_of = json.loads((folder / "fuzz.json").read_text()) if (folder / "fuzz.json").exists() else {}
    for name in reader or TARGETS:
        began = time.perf_counter()
        counts = fuzz(name, inputs, seed)
        seconds = round(time.perf_counter() - began)
        counts_of[name] = {"inputs": inputs, "seed": seed, "refused": counts.refused, "read": counts.read}
        counts_of[name] |= {"crashes": len(counts.crashes), "seconds": seconds}
        print(name, counts_of[name], flush=True)
        for cause, data in counts.crashes[:10]:
            print("   ", cause, data[:200], flush=True)
        write_json(folder / "fuzz.json", counts_of)
    head = ["reader", "damaged inputs", "refused by name", "read as sound", "crashes"]
    lines = [f"| {' | '.join(head)} |", "|:--|--:|--:|--:|--:|"]
    for name, entry in counts_of.items():
        lines.append(
            f"| {name} | {entry['inputs']:,} | {entry['refused']:,} | {entry['read']:,} | {entry['crashes']} |"
        )
    page = [
        "# Damaged files",
        "",
        "`python tests/benchmarks/fuzz.py --inputs 100000`: flipped bits, cuts, repeats, foreign tokens, values of",
        "other types, hostile names and modes of archive entries. Read as sound is what the fault left sound: an idx",
        "pixel, a time in an archive, a measured value that is another number. A path outside the target counts as a",
        "crash.",
        "",
        *lines,
    ]
    write_text(folder / "fuzz.md", "\n".join(page) + "\n")
    sys.exit(any(entry["crashes"] for entry in counts_of.values()))


if __name__ == "__main__":
    main()
