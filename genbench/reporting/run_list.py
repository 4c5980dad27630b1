"""The list of runs on the console: state, date, images, size, and what tells runs of one label apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from rich.console import Console
from rich.table import Table
from rich.text import Text

from genbench.analysis.formatting import one_line_text
from genbench.storage.inventory import ListedRun

STYLES = {"trained": "green", "at work": "cyan", "interrupted": "yellow", "failed": "red", "damaged": "red"}


COLUMNS = 46
"""Characters of all columns but the names."""


def render_runs(console: Console, listed: Sequence[ListedRun]) -> None:
    """Print a line for each run, under it how it differs from runs of the same label, and the totals.

    Without the date where the names would be broken.
    """
    table = Table("run", "state", box=None, pad_edge=False, header_style="bold")
    dated = max((len(entry.name) for entry in listed), default=0) + COLUMNS <= console.width
    if dated:
        table.add_column("written")
    table.add_column("images", justify="right")
    table.add_column("size", justify="right", no_wrap=True)
    table.columns[0].overflow = "fold"
    for entry in listed:
        name = Text(one_line_text(entry.name))
        remark = entry.problem or ", ".join(entry.differs)
        if remark:
            name.append(f"\n  {one_line_text(remark)}", "dim")
        state = Text(entry.state + (" (imported)" if entry.imported else ""), STYLES.get(entry.state, ""))
        images = "" if entry.run is None else f"{entry.run.images:,}"
        date = [written(entry.written)] if dated else []
        table.add_row(name, state, *date, images, in_bytes(entry.size))
    console.print(table)
    counts = ", ".join(f"{count} {state}" for state, count in Counter(entry.state for entry in listed).items())
    total = in_bytes(sum(entry.size for entry in listed))
    console.print(f"{len(listed)} run{'s' * (len(listed) != 1)}, {total}: {counts}", highlight=False)


def written(time: datetime) -> str:
    """A time of day on this machine's clock: `27 Nov 21:40`, with the year where it is another one."""
    local = time.astimezone()
    year = "" if local.year == datetime.now().astimezone().year else f" {local.year}"
    return f"{local.day} {local:%b}{year} {local:%H:%M}"


def in_bytes(size: int) -> str:
    """A size with its unit.

    >>> in_bytes(900), in_bytes(1_500_000), in_bytes(3 << 30)
    ('900 B', '1.4 MiB', '3.0 GiB')
    """
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
