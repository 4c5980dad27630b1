"""A study written down: tidy rows, tables in four formats, and one self-contained HTML file with the pictures."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from genbench.analysis.notes import Protocols
from genbench.analysis.table import Table, assemble
from genbench.plotting.style import Drawing, encoded, save
from genbench.reporting.csv_json import table_csv, tidy_csv, tidy_csv_lines, tidy_json, tidy_json_lines
from genbench.reporting.embedding import embedded, shares
from genbench.reporting.html import Page, Picture, render
from genbench.reporting.markup import latex, markdown
from genbench.storage.results import Row
from genbench.utils.io import PART, write_atomically, write_pieces, write_text

EMBEDDED_BYTES = 6_000_000
"""Picture bytes that go into report.html; base64 makes them a third larger, and the file stays under 10 MB. Where there
are more, the largest are shown smaller.
"""

PNG = b"\x89PNG\r\n\x1a\n"
FIRST_PICTURES = ("samples", "reconstructions")
DATA = ("rows.csv", "rows.json", "table.csv", "table.md", "table.tex")
"""The data files of an export, in the order in which they are written."""


__all__ = ["RunFacts", "export", "table_latex", "table_markdown", "tidy_csv", "tidy_json"]


@dataclass(frozen=True)
class RunFacts:
    """What the store knows of a run beyond its rows: its name, its folder (for the pictures), the parsed run.json."""

    name: str
    folder: Path
    record: Mapping[str, object] = field(default_factory=dict)


def export(
    folder: Path,
    rows: Sequence[Row],
    *,
    runs: Mapping[str, RunFacts] | None = None,
    protocols: Protocols | None = None,
    command: str = "",
    sort: str | None = None,
    draw: Callable[[], tuple[Sequence[Drawing], Sequence[str]]] = lambda: ((), ()),
) -> tuple[Path, ...]:
    """Write the study into `folder` and return the files, report.html last.

    `runs` are the runs by their name in the rows, `protocols` the fields of each protocol by its hash, `command` what
    the user typed, `sort` the metric that ranks. `draw` makes the figures, written as PNG and PDF, and a line for each
    that could not be drawn, once the data files stand: figures of thousands of groups take far longer. Every file is
    whole or absent; the folder may exist.
    """
    runs, protocols = runs or {}, protocols or {}
    _sweep(folder)
    tables = assemble(rows, sort)
    write_pieces(folder / "rows.csv", tidy_csv_lines(rows))
    write_pieces(folder / "rows.json", tidy_json_lines(rows))
    write_text(folder / "table.csv", table_csv(tables))
    write_text(folder / "table.md", markdown(tables, protocols))
    write_text(folder / "table.tex", latex(tables, protocols))
    drawings, told = draw()
    pictures = _copy_pictures(folder / "pictures", tables, runs)
    records = {name: facts.record for name, facts in runs.items()}
    shown, figures = _figures(folder / "figures", drawings)
    inside = _embedded(pictures, EMBEDDED_BYTES - sum(len(figure.uri) for figure in shown) * 3 // 4)
    page = Page(folder.resolve().name, tables, protocols, inside, records, rows, command, shown, told)
    write_text(folder / "report.html", render(page))
    files = [folder / name for name in DATA] + [path for _, _, path in pictures] + figures
    return (*files, folder / "report.html")


def _sweep(folder: Path) -> None:
    """Remove what a killed export had half written, in the folders that an export writes to and no deeper."""
    for place in (folder, folder / "pictures", folder / "figures"):
        for left in place.glob(f".*{PART}"):
            if left.is_file():
                left.unlink(missing_ok=True)


def table_markdown(rows: Sequence[Row], *, sort: str | None = None, protocols: Protocols | None = None) -> str:
    """The tables of the rows as Markdown."""
    return markdown(assemble(rows, sort), protocols)


def table_latex(rows: Sequence[Row], *, sort: str | None = None, protocols: Protocols | None = None) -> str:
    """The tables of the rows as LaTeX with booktabs."""
    return latex(assemble(rows, sort), protocols)


def _copy_pictures(folder: Path, tables: Iterable[Table], runs: Mapping[str, RunFacts]) -> list[tuple[str, str, Path]]:
    """Copy the pictures of each group's first seed; the run, the caption and the copy of each."""
    names = dict.fromkeys(line.first_run for table in tables for line in table.lines)
    copied = []
    for name in names:
        for source in _pictures(runs[name].folder) if name in runs else ():
            copy = folder / f"{_file_name(name)}-{_file_name(source.stem)}.png"
            write_atomically(copy, partial(_copy, source))
            copied.append((name, source.stem, copy))
    return copied


def _pictures(folder: Path) -> list[Path]:
    """The PNG files of a run, samples and reconstructions first."""
    order = {name: place for place, name in enumerate(FIRST_PICTURES)}
    found = (path for path in folder.glob("*.png") if path.is_file() and _starts_as_png(path))
    return sorted(found, key=lambda path: (order.get(path.stem, len(order)), path.stem))


def _starts_as_png(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(PNG)) == PNG


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def _file_name(name: str) -> str:
    """A name that is safe as part of a file's; names that had to be changed stay distinct by a hash."""
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "-", name)[:80].lstrip(".-")
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def _figures(folder: Path, drawings: Sequence[Drawing]) -> tuple[list[Picture], list[Path]]:
    """Write the figures; the page shows the smaller of PNG and SVG, in half the room for all."""
    found: list[dict[str, bytes]] = []
    files: list[Path] = []
    for drawing in drawings:
        for form in ("png", "pdf"):
            files.append(folder / f"{drawing.name}.{form}")
            save(drawing.figure, files[-1])
        png = (folder / f"{drawing.name}.png").read_bytes()
        found.append({"svg+xml": encoded(drawing.figure, "svg"), "png": png})
    shown = []
    most = shares([min(map(len, forms.values())) for forms in found], EMBEDDED_BYTES // 2)
    for drawing, forms, each in zip(drawings, found, most, strict=True):
        vector = len(forms["svg+xml"]) <= min(each, len(forms["png"]))
        kind = "svg+xml" if vector else "png"
        inside, file = embedded(forms[kind], kind, each), f"figures/{drawing.name}.png"
        shown.append(Picture.of(inside, drawing.caption, file, round(drawing.figure.get_figwidth(), 2)))
    return shown, files


def _embedded(pictures: Sequence[tuple[str, str, Path]], room: int) -> dict[str, list[Picture]]:
    """The pictures by run, as data: URIs within the room: all samples first, then all reconstructions."""
    order = {caption: place for place, caption in enumerate(FIRST_PICTURES)}
    found: dict[str, list[Picture]] = {}
    its = sorted(pictures, key=lambda picture: order.get(picture[1], len(order)))
    most = shares([path.stat().st_size for _, _, path in its], room)
    for (run, caption, path), each in zip(its, most, strict=True):
        inside = embedded(path.read_bytes() if each else b"", "png", each)
        found.setdefault(run, []).append(Picture.of(inside, caption, f"pictures/{path.name}"))
    return found
