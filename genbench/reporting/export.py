"""An export of a study: tidy rows, tables in three formats, and one self-contained HTML file with thumbnails."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from genbench.analysis.notes import Protocols
from genbench.analysis.table import Table, choose_tables
from genbench.analysis.tuning import TuningReport, sensitivity_records, tuning_records
from genbench.errors import printable
from genbench.plotting.style import Drawing, encoded, save
from genbench.reporting.cost import Cost
from genbench.reporting.csv_json import records_csv, table_csv, tidy_csv, tidy_csv_lines, tidy_json, tidy_json_lines
from genbench.reporting.html import Page, Picture, render
from genbench.reporting.latex import latex
from genbench.reporting.markdown import markdown
from genbench.storage.results import Row
from genbench.utils.io import PART, write_atomically, write_pieces, write_text

if TYPE_CHECKING:
    from PIL.Image import Image as PillowImage

THUMBNAIL = 384
"""Pixels of the longer side of a run's picture in report.html; the file beside it has all of them."""

FIGURE = 150_000
"""Bytes up to which report.html shows a figure without loss; of a larger one, such as a grid of photographs, it shows
a lossy copy, and the files beside it have every pixel."""

QUALITY = 80
"""Of lossy pictures, 0 to 100: at 80 the photographs of a grid look as before, at a tenth of a PNG's size."""

PICTURES = 2_000_000
"""Characters of pictures in report.html, so that it stays under 3 MB: first the figures, then all samples, then all
reconstructions; the rest are named by their files."""

MOST_PIXELS = 40_000_000
"""Larger pictures are not decoded: a small file can claim any size."""

PNG = b"\x89PNG\r\n\x1a\n"
FIRST_FIGURES = ("ranks", "curves")
"""Figures at the top of the page."""

FIRST_PICTURES = ("samples", "reconstructions")
DATA = ("rows.csv", "rows.json", "table.csv", "table.md", "table.tex")
"""The data files of an export, in the order in which they are written."""


__all__ = ["RunFacts", "export", "table_latex", "table_markdown", "tidy_csv", "tidy_json"]


@dataclass(frozen=True)
class RunFacts:
    """A run beyond its rows: its name, its folder (for the pictures), the parsed run.json."""

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
    columns: Sequence[str] = (),
    title: str = "",
    anonymous: bool = False,
    tuning: Sequence[TuningReport] = (),
    spent: Cost | None = None,
    draw: Callable[[], tuple[Sequence[Drawing], Sequence[str]]] = lambda: ((), ()),
) -> tuple[Path, ...]:
    """Write the study into `folder` and return the files, report.html last.

    `runs` are the runs by their name in the rows, `protocols` the fields of each protocol by its hash, `command` the
    command line, `sort` the metric that ranks, `columns` those of the tables in their order, `tuning` what is known of
    tuned models, which tuning.csv and sensitivity.csv hold as well, `spent` the cost of the runs. `draw` makes the
    figures, written as PNG and PDF, and a line for each that could not be drawn, after the data files: figures of
    thousands of groups take far longer. Every file is whole or absent; the folder may exist.
    """
    runs, protocols = runs or {}, protocols or {}
    _sweep(folder)
    tables = choose_tables(rows, sort, columns)
    write_pieces(folder / "rows.csv", tidy_csv_lines(rows))
    write_pieces(folder / "rows.json", tidy_json_lines(rows))
    write_text(folder / "table.csv", table_csv(tables))
    write_text(folder / "table.md", markdown(tables, protocols, tuning))
    write_text(folder / "table.tex", latex(tables, protocols, tuning, chosen=bool(columns)))
    of_searches = {"tuning.csv": tuning_records(tuning), "sensitivity.csv": sensitivity_records(tuning)}
    searched = [folder / name for name, records in of_searches.items() if records]
    for path in searched:
        write_text(path, records_csv(of_searches[path.name]))
    drawings, problems = draw()
    pictures = _copy_pictures(folder / "pictures", tables, runs)
    stored = {name: facts.record for name, facts in runs.items()}
    shown, figures = _figures(folder / "figures", drawings)
    page = Page(
        printable(title),
        tables,
        protocols,
        thumbnails(pictures, PICTURES - sum(len(figure.uri) for figure in shown)),
        stored,
        rows,
        command,
        shown,
        problems,
        anonymous,
        cost=spent,
        tuning=tuning,
    )
    write_text(folder / "report.html", render(page))
    files = [folder / name for name in DATA] + searched + [path for _, _, path in pictures] + figures
    return (*files, folder / "report.html")


def _sweep(folder: Path) -> None:
    """Remove the temporary files of a killed export, in the folders that an export writes to and no deeper."""
    for subfolder in (folder, folder / "pictures", folder / "figures"):
        for left in subfolder.glob(f".*{PART}"):
            if left.is_file():
                left.unlink(missing_ok=True)


def table_markdown(
    rows: Sequence[Row],
    *,
    sort: str | None = None,
    columns: Sequence[str] = (),
    protocols: Protocols | None = None,
    tuning: Sequence[TuningReport] = (),
) -> str:
    """The tables of the rows as Markdown."""
    return markdown(choose_tables(rows, sort, columns), protocols, tuning)


def table_latex(
    rows: Sequence[Row],
    *,
    sort: str | None = None,
    columns: Sequence[str] = (),
    protocols: Protocols | None = None,
    tuning: Sequence[TuningReport] = (),
) -> str:
    """The tables of the rows for print with LaTeX; without `columns` the main number of each metric."""
    return latex(choose_tables(rows, sort, columns), protocols, tuning, chosen=bool(columns))


def _copy_pictures(folder: Path, tables: Iterable[Table], runs: Mapping[str, RunFacts]) -> list[tuple[str, str, Path]]:
    """Copy the pictures of each group's first seed; the run, the caption and the copy of each."""
    names = dict.fromkeys(row.first_run for table in tables for row in table.rows)
    copied = []
    for name in names:
        for source in run_pictures(runs[name].folder) if name in runs else ():
            copy = folder / f"{file_name(name)}-{file_name(source.stem)}.png"
            write_atomically(copy, partial(_copy, source))
            copied.append((name, source.stem, copy))
    return copied


def run_pictures(folder: Path) -> list[Path]:
    """The PNG files of a run, samples and reconstructions first."""
    order = {name: position for position, name in enumerate(FIRST_PICTURES)}
    paths = (path for path in folder.glob("*.png") if path.is_file() and _starts_as_png(path))
    return sorted(paths, key=lambda path: (order.get(path.stem, len(order)), path.stem))


def _starts_as_png(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(PNG)) == PNG


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


def file_name(name: str) -> str:
    """A name that is safe as part of a file's; names that had to be changed stay distinct by a hash."""
    safe = re.sub(r"[^A-Za-z0-9._=-]+", "-", name)[:80].lstrip(".-")
    return safe if safe == name else f"{safe}-{hashlib.sha256(name.encode()).hexdigest()[:8]}".lstrip("-")


def _figures(folder: Path, drawings: Sequence[Drawing]) -> tuple[list[Picture], list[Path]]:
    """Write the figures, and show those that the page has room for."""
    shown: list[Picture] = []
    files: list[Path] = []
    room = PICTURES
    for drawing in drawings:
        for form in ("png", "pdf"):
            files.append(folder / f"{drawing.name}.{form}")
            save(drawing.figure, files[-1])
        uri = _figure_uri((folder / f"{drawing.name}.png").read_bytes(), encoded(drawing.figure, "svg"))
        uri = uri if len(uri) <= room else ""
        room -= len(uri)
        inches = round(drawing.figure.get_figwidth(), 2)
        shown.append(
            Picture(
                drawing.caption,
                uri,
                f"figures/{drawing.name}.png",
                inches,
                f"figures/{drawing.name}.pdf",
                drawing.name in FIRST_FIGURES,
            )
        )
    return shown, files


def _figure_uri(png: bytes, svg: bytes) -> str:
    """A figure as the data: URI of its smallest form without loss; of a large one a lossy form."""
    from PIL import Image

    large = min(len(png), len(svg)) > FIGURE
    with Image.open(io.BytesIO(png)) as picture:
        webp = _webp(picture.convert("RGB"), lossless=not large)
    return _data_uri("svg+xml", svg) if len(svg) <= len(webp) else _data_uri("webp", webp)


def thumbnails(pictures: Sequence[tuple[str, str, Path]], room: int = PICTURES) -> dict[str, list[Picture]]:
    """The pictures by run: thumbnails as long as they fit into `room` characters, the others by their file alone."""
    order = {caption: position for position, caption in enumerate(FIRST_PICTURES)}
    by_run: dict[str, list[Picture]] = {}
    for run, caption, path in sorted(pictures, key=lambda picture: order.get(picture[1], len(order))):
        uri = _thumbnail(path) if room > 0 else ""
        room -= len(uri)
        by_run.setdefault(run, []).append(Picture(caption, uri if room >= 0 else "", f"pictures/{path.name}"))
    return by_run


def _thumbnail(path: Path) -> str:
    """A picture as the data: URI of a small lossy one; "" where it cannot be read."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return ""
            small = picture.convert("L" if picture.mode in ("L", "1", "I;16") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # SyntaxError: Pillow's for a bad PNG
        return ""
    small.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    return _data_uri("webp", _webp(small))


def _webp(picture: PillowImage, *, lossless: bool = False) -> bytes:
    """A picture as WebP, which every browser has shown since 2020."""
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", lossless=lossless, quality=QUALITY)
    return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
