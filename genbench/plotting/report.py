"""The figures of a report: those that rows and stored pictures allow, and those that need trained models.

Each function returns the drawings that are possible, and one line for each that is not. Torch is loaded by
`model_drawings` alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from genbench.analysis.tuning import search_values
from genbench.errors import GenbenchError, UsageError, one_line
from genbench.plotting.curves import losses, row_figures
from genbench.plotting.images import STORED, ImageRow, Pixels, prior_key, prior_titles, stored, strips
from genbench.plotting.style import Drawing
from genbench.plotting.tuning import budget_figure, sensitivity_figure
from genbench.storage.results import ELSEWHERE, Row
from genbench.storage.run_dir import SAMPLES, RunRecord, searches_of

if TYPE_CHECKING:
    import torch

    from genbench.api import DataConfig
    from genbench.registry.loader import Registry

SAMPLE_ROWS = 24
"""Groups in the report's figure of samples; all samples are beside the table."""

LOGS_READ = 200
"""Runs of which a report reads the logs."""

MODEL_KINDS = ("reconstructions", "interpolations", "grid", "codes")
"""The figures that need models; samples come from the stored pictures."""


def row_drawings(records: Sequence[RunRecord], rows: Sequence[Row]) -> tuple[list[Drawing], list[str]]:
    """The figures that rows and stored pictures allow."""
    figures, problems = row_figures(rows)
    samples = sample_strips(records, rows)
    if not samples:
        return figures, ["samples: these runs have no sample pictures", *problems]
    cut = f"; {SAMPLE_ROWS} of {len(samples)} groups are shown" if len(samples) > SAMPLE_ROWS else ""
    caption = f"Samples: in each block a column is the same draw of a fixed prior; a learned one has its own draws{cut}"
    return [strips("samples", caption, samples[:SAMPLE_ROWS]), *figures], problems


def loss_drawings(records: Sequence[RunRecord]) -> tuple[list[Drawing], list[str]]:
    """The figure of the losses along the trainings, whose logs are read for it."""
    if len(records) > LOGS_READ:
        return [], [f"losses: {len(records):,} runs have too many logs; genbench plot losses draws any"]
    try:
        return [losses(records)], []
    except UsageError as error:
        return [], [f"losses: {one_line(error)}"]


def search_drawings(records: Sequence[RunRecord]) -> tuple[list[Drawing], list[str]]:
    """The figures of the searches that chose the options of some runs; nothing where none was searched."""
    searches = search_values(searches_of(records).values())
    drawings: list[Drawing] = []
    problems: list[str] = []
    for draw in (budget_figure, sensitivity_figure) if searches else ():
        try:
            drawings.append(draw(searches))
        except UsageError as error:
            problems.append(one_line(error))
    return drawings, problems


def sample_strips(records: Sequence[RunRecord], rows: Sequence[Row], count: int = 12) -> list[ImageRow]:
    """The stored samples of each model by the run of its lowest seed, in blocks whose columns are the same draws.

    A block is one dataset, prior with its options, latent size and seed, which determine the draws of a fixed prior.
    Models that were trained elsewhere have a block of a dataset, with the first samples that were given.
    """
    by_name = {record.name: record for record in records if record.has(SAMPLES)}
    first: dict[tuple[str, str], Row] = {}
    for row in sorted(rows, key=lambda row: row.seed):
        if row.role in ("model", "external") and row.stage == "final" and row.run in by_name:
            first.setdefault((row.dataset, row.group), row)
    priors = {row.run: by_name[row.run].run.record()["prior"] for row in first.values()}
    titles = prior_titles(priors[row.run] for row in first.values() if row.role == "model")

    def block(row: Row) -> str:
        if row.role == "external":
            return f"{row.dataset}, {ELSEWHERE}"
        return f"{row.dataset}, prior {titles[prior_key(priors[row.run])]}, d = {row.latent_dim}, seed {row.seed}"

    def pictures(record: RunRecord) -> Pixels:
        results = record.provenance.get("results")
        given = results.get("samples-n") if isinstance(results, dict) else None
        return stored(record.path / SAMPLES, count, min(STORED, given) if isinstance(given, int) else STORED)

    def order(row: Row) -> tuple[str, bool, str, int, int, str]:
        drawn = (row.latent_dim, row.seed) if row.role == "model" else (0, 0)
        return row.dataset, row.role == "external", prior_key(priors[row.run]), *drawn, row.label

    image_rows = [
        ImageRow(row.label.removesuffix(f" ({ELSEWHERE})"), pictures(by_name[row.run]), block(row))
        for row in sorted(first.values(), key=order)
    ]
    return [image_row for image_row in image_rows if len(image_row.images)]


def model_drawings(
    records: Sequence[RunRecord], registry: Registry, data_config: DataConfig, device: torch.device
) -> tuple[list[Drawing], list[str]]:
    """The figures of the first groups, each by its trained run of the lowest seed."""
    import torch

    from genbench.plotting.latent import GROUPS, FigureBuilder, TrainedGroup, loaded, lowest

    kinds = ", ".join(MODEL_KINDS)
    try:
        runs = lowest(records)
    except GenbenchError as error:
        return [], [f"{kinds}: {one_line(error)}"]
    problems: list[str] = []
    if len(runs) > GROUPS:
        problems.append(f"{kinds}: of {len(runs)} groups the first {GROUPS} are drawn; genbench plot draws any")
    groups: list[TrainedGroup] = []
    for (dataset, label), record in list(runs.items())[:GROUPS]:
        try:
            groups.append(loaded(label, record, registry, device))
        except GenbenchError as error:
            problems.append(f"{label} ({dataset}): {one_line(error)}")
    drawings: list[Drawing] = []
    builder = FigureBuilder(groups, registry, data_config, device, seed=0, count=12)
    for kind, draw in builder.kinds().items():
        if kind not in MODEL_KINDS or not groups:
            continue
        try:
            with torch.no_grad():
                drawings.append(draw())
        except GenbenchError as error:
            problems.append(f"{kind}: {one_line(error)}")
    return drawings, problems
