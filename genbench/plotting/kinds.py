"""Figures by the name of their kind, as `genbench plot` draws them. Torch is loaded by those that need models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from genbench.errors import StoreError
from genbench.storage.provenance import MissingComponents, missing_components

if TYPE_CHECKING:
    from pathlib import Path

    from genbench.analysis.curves import By
    from genbench.api import DataConfig
    from genbench.plotting.style import Drawing
    from genbench.registry.loader import Registry
    from genbench.storage.results import Row
    from genbench.storage.run_dir import RunRecord

FROM_ROWS = ("ranks", "curves", "latent-size", "ladder", "losses")
FROM_SEARCHES = ("tuning", "sensitivity")
FROM_MODELS = ("samples", "reconstructions", "interpolations", "grid", "codes")


def draw_rows(
    kind: str, records: Sequence[RunRecord], tidy: Sequence[Row], metric: str | None, by: tuple[By, ...]
) -> Drawing:
    """A figure of the numbers of the runs."""
    from genbench.plotting.curves import curves, fid_ladder, latent_size, losses
    from genbench.plotting.ranks import ranks

    draw: dict[str, Callable[[], Drawing]] = {
        "curves": lambda: curves(tidy, metric, by),
        "latent-size": lambda: latent_size(tidy, metric),
        "ladder": lambda: fid_ladder(tidy),
        "losses": lambda: losses(records),
        "ranks": lambda: ranks(tidy, metric),
    }
    return draw[kind]()


def draw_searches(kind: str, folders: Sequence[Path]) -> Drawing:
    """A figure of the searches of `genbench tune` whose tuning.json lies in folders of runs, or beside a run."""
    from genbench.analysis.tuning import search_values
    from genbench.plotting.tuning import budget_figure, sensitivity_figure
    from genbench.storage.run_dir import TUNING, read_searches

    stores = [folder if (folder / TUNING).exists() else folder.parent for folder in folders]
    records = {key: record for store in dict.fromkeys(stores) for key, record in read_searches(store).items()}
    draw = {"tuning": budget_figure, "sensitivity": sensitivity_figure}[kind]
    return draw(search_values(records.values()))


def draw_models(
    kind: str,
    records: Sequence[RunRecord],
    registry: Registry,
    data_config: DataConfig,
    device: str,
    seed: int,
    count: int,
) -> Drawing:
    """A figure that needs the trained models."""
    import torch

    from genbench.plotting.latent import FigureBuilder, trained
    from genbench.plotting.report import sample_strips
    from genbench.storage.results import rows
    from genbench.utils.torch_state import pick_device

    chosen = pick_device(device)
    external = [record for record in records if record.run.role == "external"]
    elsewhere = sample_strips(external, rows(external), count) if kind == "samples" else []
    with torch.no_grad():
        groups = [] if elsewhere and len(external) == len(records) else trained(records, registry, chosen)
        return FigureBuilder(groups, registry, data_config, chosen, seed, count, elsewhere).kinds()[kind]()


def drawable(records: Sequence[RunRecord], registry: Registry) -> tuple[list[RunRecord], list[str]]:
    """The runs that have weights and plug-ins, and a line for all that lack the same; `StoreError` where none has."""
    usable, problems = [], []
    lacking: dict[MissingComponents, list[str]] = {}
    for record in records:
        missing = None
        try:
            if record.run.role == "model" and record.state == "trained":
                record.folder.weights()
                missing = missing_components(record.run, record.path, registry)
        except StoreError as error:
            problems.append(str(error))
            continue
        if missing is None:
            usable.append(record)
        else:
            lacking.setdefault(missing, []).append(record.name)
    problems += [missing.describe(names) for missing, names in lacking.items()]
    if not usable:
        raise StoreError(problems[0])
    return usable, problems
