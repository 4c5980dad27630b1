"""The work of `genbench plot`: from kind and runs to a file; torch is loaded by the kinds that decode alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.analysis.curves import By
from genbench.errors import StoreError
from genbench.plotting.curves import curves, fid_ladder, latent_size
from genbench.plotting.ranks import ranks
from genbench.plotting.style import Drawing, checked_target, save
from genbench.storage.results import rows
from genbench.storage.run_dir import RunRecord, find_runs, read_runs

if TYPE_CHECKING:
    from genbench.api import DataConfig
    from genbench.registry.loader import Registry


@dataclass(frozen=True)
class Choices:
    """The options of `genbench plot` that choose what is shown."""

    metric: str | None
    by: tuple[By, ...]
    seed: int
    count: int


def plot_rows(kind: str, places: Sequence[Path], target: Path, chosen: Choices) -> None:
    """Draw a kind that the numbers of the runs allow."""
    checked_target(target)
    tidy = rows(_records(places))
    draw: dict[str, Callable[[], Drawing]] = {
        "curves": lambda: curves(tidy, chosen.metric, chosen.by or ("images", "seconds")),
        "latent-size": lambda: latent_size(tidy, chosen.metric),
        "ladder": lambda: fid_ladder(tidy),
        "ranks": lambda: ranks(tidy, chosen.metric),
    }
    _finish(draw[kind](), target)


def plot_models(
    kind: str, places: Sequence[Path], target: Path, chosen: Choices, registry: Registry, place: DataConfig, device: str
) -> None:
    """Draw a kind that needs the trained models."""
    checked_target(target)
    import torch

    from genbench.plotting.latent import Maker, trained
    from genbench.utils.torch_state import pick_device

    where = pick_device(device)
    with torch.no_grad():
        groups = trained(_with_weights(_records(places)), registry, where)
        maker = Maker(groups, registry, place, where, chosen.seed, chosen.count)
        drawing = maker.kinds()[kind]()
    _finish(drawing, target)


def _records(places: Sequence[Path]) -> list[RunRecord]:
    records, problems = read_runs(find_runs(places))
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    if not records:
        raise StoreError("no run folder could be read")
    return records


def _with_weights(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs but those of runs imported without weights, each told in a line; `StoreError` where none is left."""
    kept, problems = [], []
    for record in records:
        try:
            if record.run.role == "model" and record.state == "trained":
                record.folder.weights()
            kept.append(record)
        except StoreError as error:
            problems.append(str(error))
    if not kept:
        raise StoreError(problems[0])
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    return kept


def _finish(drawing: Drawing, target: Path) -> None:
    save(drawing.figure, target)
    click.echo(f"{drawing.caption}: {target}")
