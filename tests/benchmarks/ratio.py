"""Measures ratios of times in one run: ours and the idiom it is compared with take turns, so that both meet the same
machine; medians and their spread go to reports/speed/NAME.json and NAME.md, an item each, also when a goal is missed.

Each contender is a function that does the work once, warmed up before, and returns how many units (images, solves) it
did, or as `Timed` how many within which of its seconds; an item is measured again whenever its benchmark runs and
replaces what the file had.
"""

from __future__ import annotations

import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from genbench.storage.provenance import provenance
from genbench.utils.io import read_json, write_json, write_text

OUT = Path(__file__).resolve().parents[2] / "reports" / "speed"
REPEATS = 5


@dataclass(frozen=True)
class Timed:
    """Units that a contender did within a part of its call: the rest, such as setting up, does not count."""

    units: float
    seconds: float


@dataclass(frozen=True)
class Rate:
    """Units a second over the repeats: the median, and the lowest and the highest."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Item:
    """One comparison: rates by contender, ours first; `ratio` is the median over repeats of ours over the best rival.

    `goal` is the ratio asked for (None: none was), `note` what the reader must know, such as what was counted.
    """

    name: str
    unit: str
    rates: Mapping[str, Rate]
    ratio: Rate
    goal: float | None
    note: str
    repeats: int
    machine: Mapping[str, Any]

    @property
    def met(self) -> bool:
        """Whether the goal was reached, or there was none."""
        return self.goal is None or self.ratio.median >= self.goal


def compare(
    name: str,
    contenders: Mapping[str, Callable[[], float | Timed]],
    *,
    unit: str,
    file: str,
    goal: float | None = None,
    note: str = "",
    repeats: int = REPEATS,
) -> Item:
    """Time the contenders in turn, `repeats` times after one turn that does not count, write the item, and return it.

    The first contender is ours. With several rivals the ratio of a repeat is to the fastest of them in that repeat.
    """
    if len(contenders) < 2 or repeats < 1:
        raise ValueError(f"{name}: two contenders and one repeat at least, not {len(contenders)} and {repeats}")
    for run in contenders.values():
        run()
    rates: dict[str, list[float]] = {contender: [] for contender in contenders}
    for _ in range(repeats):
        for contender, run in contenders.items():
            wait_for_device()
            began = time.perf_counter()
            count = run()
            wait_for_device()
            timed = count if isinstance(count, Timed) else Timed(count, time.perf_counter() - began)
            rates[contender].append(timed.units / timed.seconds)
    ours, *rivals = rates.values()
    ratios = [rate / max(rival_rates) for rate, *rival_rates in zip(ours, *rivals, strict=True)]
    spread = {contender: summary(values) for contender, values in rates.items()}
    item = Item(name, unit, spread, summary(ratios), goal, note, repeats, machine())
    write(file, item)
    return item


def wait_for_device() -> None:
    """Wait until the device has done what was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def summary(values: list[float]) -> Rate:
    """Median, lowest and highest."""
    return Rate(statistics.median(values), min(values), max(values))


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    facts = provenance(device, shlex.join(["pytest", *sys.argv[1:]]))
    return {**facts, "cpus": os.cpu_count(), "load": os.getloadavg()[0], "platform": platform.machine()}


def write(file: str, item: Item) -> None:
    """Put the item into reports/speed/FILE.json, and the whole file as a table into FILE.md."""
    path = OUT / f"{file}.json"
    items: dict[str, Any] = read_json(path) if path.exists() else {}
    items[item.name] = {**asdict(item), "met": item.met}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, items)
    write_text(OUT / f"{file}.md", table(items))


def table(items: Mapping[str, Any]) -> str:
    """The items of a file as one markdown table, with what was run and on what."""
    lines = ["| what | rates, median (lowest to highest) | ratio | goal |", "|:--|:--|--:|--:|"]
    notes = []
    for name, item in items.items():
        rates = "<br>".join(f"{contender}: {rate_text(rate)}" for contender, rate in item["rates"].items())
        goal = "" if item["goal"] is None else f"{item['goal']:g}{'' if item['met'] else ', missed'}"
        lines.append(f"| {name}, {item['unit']}/s | {rates} | **{rate_text(item['ratio'])}** | {goal} |")
        facts = item["machine"]
        where = f"{facts['device']}, {facts['cpus']} cores, load {facts['load']:.1f} at the end"
        notes.append(f"* {name}: {item['repeats']} repeats; {where}. {item['note']}".rstrip())
    return "\n".join([*lines, "", *notes, ""])


def rate_text(rate: Mapping[str, float]) -> str:
    """A median with its spread, three digits each."""
    return f"{rate['median']:.3g} ({rate['low']:.3g} to {rate['high']:.3g})"
