"""The largest loss on the FID ladder: the decoder, holes between the codes, or latent mismatch. No torch.

The ladder belongs to a role, not to a metric: any metric whose measurements have the role "ladder" and these components
is shown as one.
"""

from __future__ import annotations

from genbench.analysis.formatting import format_value
from genbench.analysis.table import Table, TableRow

ROLE = "ladder"
"""The role of its measurements: see `genbench.api.Measurement`."""

RUNGS = ("real", "reconstructions", "mixture", "gaussian", "prior")
"""The components of such a metric, a part of the role's contract."""

SHARE = 0.5
"""The share of the way from the floor to the prior above which a step is "mostly" the cause."""


def ladder(table: Table) -> list[str]:
    """A sentence for each line of a table that has a ladder: its rungs, and which step costs most."""
    return [sentence for line in table.rows if (sentence := _sentence(table, line))]


def _sentence(table: Table, line: TableRow) -> str:
    scores: dict[str, float] = {}
    for column, cell in zip(table.columns, line.cells, strict=True):
        if column.role == ROLE and cell is not None:
            rung = column.metric.partition(".")[2]
            scores.setdefault(rung, cell.estimate.mean)
    if not {"reconstructions", "mixture", "prior"} <= scores.keys():
        return ""
    rungs = ", ".join(f"{rung} {format_value(scores[rung], digits=3).plain}" for rung in RUNGS if rung in scores)
    return f"FID ladder of {line.label}: {rungs}: {verdict(scores)}"


def verdict(rungs: dict[str, float]) -> str:
    """Which step from the floor to the prior costs most, in words.

    The steps: floor to reconstructions (the decoder), reconstructions to the better of the fitted densities (codes
    between those of images decode badly), fitted density to the prior (the codes do not follow it).

    The reconstructions are of the references themselves: a perfect decoder's are at 0, below the floor of other real
    images, which samples cannot pass. Such a rung counts as the floor: nothing is lost up to there.
    """
    floor = rungs.get("real", 0.0)
    rebuilt = max(rungs["reconstructions"], floor)
    fitted = min(rungs["mixture"], rungs.get("gaussian", rungs["mixture"]))
    steps = {
        "the decoder": rebuilt - floor,
        "holes between the codes": fitted - rebuilt,
        "latent mismatch": rungs["prior"] - fitted,
    }
    whole = rungs["prior"] - floor
    cause = max(steps, key=lambda name: steps[name])
    if whole <= 0.0 or steps[cause] <= 0.0:
        return "nothing is lost"
    share = steps[cause] / whole
    degree = "mostly" if share > SHARE else "most of all"
    lost = format_value(steps[cause], digits=3).plain
    if steps[cause] > whole:  # "312 of 291" would be no share
        regained = format_value(steps[cause] - whole, digits=3).plain
        return f"{degree} {cause} ({lost}, of which other steps win back {regained})"
    return f"{degree} {cause} ({lost} of {format_value(whole, digits=3).plain})"
