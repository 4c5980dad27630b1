"""The figures of a report that need no models: from the rows, and from the pictures in run folders. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from genbench.plotting.curves import possible
from genbench.plotting.images import ImageRow, prior_key, prior_titles, stored, strips
from genbench.plotting.style import Drawing
from genbench.storage.results import Row
from genbench.storage.run_dir import SAMPLES, RunRecord

SAMPLE_ROWS = 24
"""Groups in the report's figure of samples; all samples stand beside the table."""


def drawn(records: Sequence[RunRecord], tidy: Sequence[Row]) -> tuple[list[Drawing], list[str]]:
    """The figures that rows and stored pictures allow, and what they do not allow, each in a line."""
    figures, told = possible(tidy)
    its = sample_strips(records, tidy)
    if not its:
        return figures, ["samples: these runs have no sample pictures", *told]
    cut = f"; {SAMPLE_ROWS} of {len(its)} groups are shown" if len(its) > SAMPLE_ROWS else ""
    caption = f"Samples: in each block a column is the same draw of the prior{cut}"
    return [strips("samples", caption, its[:SAMPLE_ROWS]), *figures], told


def sample_strips(records: Sequence[RunRecord], tidy: Sequence[Row]) -> list[ImageRow]:
    """The stored samples of each model by the run of its lowest seed, in blocks whose columns are the same draws.

    A block is one dataset, prior with its options, latent size and seed: what decides the draws.
    """
    by_name = {record.name: record for record in records if record.has(SAMPLES)}
    first: dict[tuple[str, str], Row] = {}
    for row in sorted(tidy, key=lambda row: row.seed):
        if row.role == "model" and row.stage == "final" and row.run in by_name:
            first.setdefault((row.dataset, row.group), row)
    priors = {row.run: by_name[row.run].run.record()["prior"] for row in first.values()}
    titles = prior_titles(priors.values())
    ordered = sorted(
        first.values(), key=lambda row: (row.dataset, prior_key(priors[row.run]), row.latent_dim, row.seed, row.label)
    )
    its = [
        ImageRow(
            row.label,
            stored(by_name[row.run].path / SAMPLES, 12),
            f"{row.dataset}, prior {titles[prior_key(priors[row.run])]}, d = {row.latent_dim}, seed {row.seed}",
        )
        for row in ordered
    ]
    return [strip for strip in its if len(strip.images)]
