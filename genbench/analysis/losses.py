"""Loss terms over training images, from the logs of runs: mean and interval over training seeds. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from genbench.errors import UsageError
from genbench.stats.intervals import Estimate, estimate
from genbench.storage.results import group_key, rows
from genbench.storage.run_dir import LogPoint, RunRecord, read_log

POINTS = 100
"""Counts of images at which the logs of several seeds are compared, which were written at other steps each."""


@dataclass(frozen=True)
class LossCurve:
    """One loss or loss term of one group: its mean over seeds after so many training images."""

    dataset: str
    term: str
    group: str
    label: str
    model: str
    seeds: int
    points: tuple[tuple[float, Estimate], ...]


def loss_curves(records: Sequence[RunRecord]) -> list[LossCurve]:
    """The curves of the models among some runs, by dataset and by term in the order of the logs.

    Raises `UsageError` where no run has a log point.
    """
    named = {row.group: row for row in rows(records)}
    logs: dict[str, list[tuple[RunRecord, list[LogPoint]]]] = {}
    for record in records:
        if record.run.role == "model" and (points := read_log(record.path)):
            logs.setdefault(group_key(record.run), []).append((record, points))
    if not logs:
        raise UsageError("losses: none of these runs has a log (log.jsonl), which a training writes")
    curves = []
    for group, members in logs.items():
        run, row = members[0][0].run, named.get(group)  # none where nothing is measured yet
        dataset, label = (run.dataset.name, run.model.name) if row is None else (row.dataset, row.label)
        terms = dict.fromkeys(term for _, points in members for point in points for term in point.terms)
        for term in terms:
            series = [[(p.images, p.terms[term]) for p in points if term in p.terms] for _, points in members]
            curve = _mean([entries for entries in series if entries])
            curves.append(LossCurve(dataset, term, group, label, run.model.name, len(members), curve))
    order = list(dict.fromkeys((curve.dataset, curve.term) for curve in curves))
    return sorted(curves, key=lambda curve: order.index((curve.dataset, curve.term)))


def _mean(series: Sequence[Sequence[tuple[int, float]]]) -> tuple[tuple[float, Estimate], ...]:
    """The points of one seed as they are; of several the mean, interpolated where all have been."""
    if len(series) == 1:
        return tuple((float(images), estimate([value])) for images, value in series[0])
    xs = _grid(series)
    values = np.stack([np.interp(xs, *np.asarray(entries, dtype=float).T) for entries in series])
    return tuple((float(x), estimate([float(v) for v in column])) for x, column in zip(xs, values.T, strict=True))


def _grid(series: Iterable[Sequence[tuple[int, float]]]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    spans = [(entries[0][0], entries[-1][0]) for entries in series]
    low, high = max(first for first, _ in spans), min(last for _, last in spans)
    return np.linspace(low, max(low, high), POINTS if high > low else 1)
