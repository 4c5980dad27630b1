"""Figures that need trained models, for a report: what can be drawn is; what cannot is told, each in one line."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from genbench.api import DataConfig
from genbench.errors import GenbenchError, one_line
from genbench.plotting.latent import GROUPS, Maker, Trained, loaded, lowest
from genbench.plotting.style import Drawing
from genbench.registry.loader import Registry
from genbench.storage.run_dir import RunRecord

KINDS = ("reconstructions", "interpolations", "grid", "codes")
"""What a report adds; samples it has from the stored pictures."""


def model_drawings(
    records: Sequence[RunRecord], registry: Registry, place: DataConfig, device: torch.device
) -> tuple[list[Drawing], list[str]]:
    """The figures of the first groups, each by its trained run of the lowest seed, and what was left out and why."""
    told: list[str] = []
    try:
        found = lowest(records)
    except GenbenchError as error:
        return [], [f"{', '.join(KINDS)}: {one_line(error)}"]
    if len(found) > GROUPS:
        told.append(f"{', '.join(KINDS)}: of {len(found)} groups the first {GROUPS} are drawn; genbench plot draws any")
    groups: list[Trained] = []
    for (dataset, label), record in list(found.items())[:GROUPS]:
        try:
            groups.append(loaded(label, record, registry, device))
        except GenbenchError as error:
            told.append(f"{label} ({dataset}): {one_line(error)}")
    drawings: list[Drawing] = []
    maker = Maker(groups, registry, place, device, seed=0, count=12)
    for kind, draw in maker.kinds().items():
        if kind not in KINDS or not groups:
            continue
        try:
            with torch.no_grad():
                drawings.append(draw())
        except GenbenchError as error:
            told.append(f"{kind}: {one_line(error)}")
    return drawings, told
