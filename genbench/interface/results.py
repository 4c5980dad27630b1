"""Numbers of runs for Python and notebooks: tidy rows, tables and figures."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from genbench.analysis import notes
from genbench.analysis.formatting import format_estimate
from genbench.analysis.selection import select_options
from genbench.analysis.table import Table, assemble
from genbench.analysis.tuning import TuningReport
from genbench.errors import StoreError, UsageError, unknown
from genbench.reporting import export
from genbench.reporting.console import render
from genbench.reporting.summary import known_tuning, rows_of_study
from genbench.storage.results import Row, protocols, rows
from genbench.storage.run_dir import RunRecord, find_runs, read_runs
from genbench.storage.study import mixed_images, without_copies, without_trials

if TYPE_CHECKING:
    import pandas as pd

    from genbench.interface.config import StudyConfig
    from genbench.plotting.style import Drawing

TableFormat = Literal["text", "md", "tex", "csv", "json"]


class Results:
    """The numbers of runs, a row for each run, metric and protocol; what `load_results` returns.

    Iteration yields the rows (`genbench.Row`). In a notebook the object shows itself as a ranked table, `print` prints
    it, and so does rich.

    Example:
        >>> import genbench
        >>> results = genbench.load_results("runs")
        >>> sorted({row.model for row in results})
        ['swae', 'vae']
        >>> [row.value for row in results if row.metric == "reconstruction.pixel"][0] < 0.3
        True
    """

    def __init__(
        self, records: Sequence[RunRecord], tidy: Sequence[Row] | None = None, sort: str | None = None
    ) -> None:
        """Of records that were read; `tidy` are the rows that are shown, by default all, `sort` the ranking metric."""
        self._records = tuple(records)
        self.rows: tuple[Row, ...] = tuple(rows(records) if tidy is None else tidy)
        """The tidy rows."""
        self.sort = sort
        """The metric that ranks; None: the first one."""

    @property
    def runs(self) -> tuple[Path, ...]:
        """The run folders, for `genbench.load_model`."""
        return tuple(record.path for record in self._records)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def select_options_by(self, metric: str) -> Results:
        """The results in which each model has its best options by a metric on validation images.

        Args:
            metric: A metric that was measured at snapshots, as the table or `row.metric` names it.

        Raises:
            UsageError: The runs have no such number.
        """
        tidy, _ = select_options(list(self.rows), metric)
        return Results(self._records, tidy, self.sort)

    def to_pandas(self) -> pd.DataFrame:
        """The rows as a data frame; each option of the runs is a column `NAME.OPTION`.

        Raises:
            UsageError: pandas is not installed.

        Example:
            >>> frame = genbench.load_results("runs").to_pandas()      # doctest: +SKIP
            >>> frame[frame.metric == "fid"].groupby("swae.weight").value.mean()      # doctest: +SKIP
        """
        try:
            import pandas as pd
        except ImportError:
            raise UsageError("to_pandas needs pandas: pip install 'genbench[pandas]'") from None
        plain = []
        for row in self.rows:
            columns = row.as_dict()
            del columns["options"], columns["defaults"]
            plain.append({**columns, **row.options})
        return pd.DataFrame(plain)

    def table(self, form: TableFormat = "text", *, sort: str | None = None, width: int = 120) -> str:
        """The ranked table as text.

        Args:
            form: "text" as the command prints it, with notes and protocols; "md" Markdown, "tex" LaTeX; "csv" and
                "json" the tidy rows.
            sort: The metric that ranks. [`self.sort`, else the first one]
            width: Characters of a line of "text".

        Raises:
            UsageError: There is no such form or metric.

        Example:
            >>> import genbench
            >>> print(genbench.load_results("runs").table("md").splitlines()[0])
            ## glyphs · 2 models · 2 seeds · ranked by reconstruction.pixel
        """
        ranking = sort or self.sort
        match form:
            case "text":
                return self._text(ranking, width, brief=False)
            case "md":
                return export.table_markdown(self.rows, sort=ranking, tuning=self._tuning())
            case "tex":
                return export.table_latex(self.rows, sort=ranking, tuning=self._tuning())
            case "csv":
                return export.tidy_csv(self.rows)
            case "json":
                return export.tidy_json(self.rows)
        raise unknown("form of a table called", form, ("text", "md", "tex", "csv", "json"))

    def plot(
        self,
        kind: str = "ranks",
        *,
        metric: str | None = None,
        by: Sequence[Literal["images", "seconds", "flops"]] = ("images", "seconds"),
        seed: int = 0,
        count: int = 12,
        device: str = "auto",
        data_root: str | Path | None = None,
        plugins: Iterable[str | Path] = (),
    ) -> Drawing:
        """A figure, which a notebook shows; `.figure` is matplotlib's, and `.save("ranks.pdf")` writes it.

        Args:
            kind: As of `genbench plot`: "ranks", "curves", "latent-size", "ladder", "losses" need records alone,
                "tuning" and "sensitivity" the searches of `genbench tune` beside the runs;
                "samples", "reconstructions", "interpolations", "grid", "codes" need the trained models.
            metric: The metric shown. [the first one]
            by: Units of compute of "curves".
            seed: Seed of the prior draws.
            count: Images in a row.
            device: "auto", "cpu", "cuda" or "cuda:i".
            data_root: Folder of the datasets.
            plugins: Plug-in files that the runs need.

        Raises:
            UsageError: There is no such kind, or the runs lack what it needs.
            DataError: The dataset is missing.

        Example:
            >>> import genbench
            >>> genbench.load_results("runs").plot("ranks", metric="reconstruction.pixel").name
            'ranks'
        """
        from genbench.interface.context import load_plugins, make_data_config
        from genbench.plotting.kinds import (
            FROM_MODELS,
            FROM_ROWS,
            FROM_SEARCHES,
            draw_models,
            draw_rows,
            draw_searches,
            drawable,
        )

        if kind in FROM_ROWS:
            return draw_rows(kind, self._records, self.rows, metric, tuple(by))
        if kind in FROM_SEARCHES:
            return draw_searches(kind, [record.path for record in self._records])
        if kind not in FROM_MODELS:
            raise unknown("figure called", kind, (*FROM_ROWS, *FROM_SEARCHES, *FROM_MODELS))
        root = None if data_root is None else Path(data_root)
        data_config = make_data_config(root, download=False, skip_corrupt=False)
        registry, _ = load_plugins([Path(file) for file in plugins])
        usable, _ = drawable(self._records, registry)
        return draw_models(kind, usable, registry, data_config, device, seed, count)

    # ---------------------------------------------------------------- representations

    def __repr__(self) -> str:
        models = list(dict.fromkeys(row.label for row in self.rows))
        datasets = ", ".join(dict.fromkeys(row.dataset for row in self.rows))
        return f"<{type(self).__name__}: {len(self._records)} runs on {datasets or 'nothing'}: {', '.join(models)}>"

    def __str__(self) -> str:
        return self._text(self.sort, 120, brief=True)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text.from_ansi(
            self._text(self.sort, options.max_width, brief=True, color=console.color_system is not None)
        )

    def _repr_html_(self) -> str:
        tables = assemble(self.rows, self.sort) if self.rows else ()
        return "\n".join(map(_html, tables)) or "<p>no runs to report</p>"

    def _tuning(self) -> tuple[TuningReport, ...]:
        return known_tuning(self.rows, protocols(self._records))

    def _text(self, sort: str | None, width: int, *, brief: bool, color: bool = False) -> str:
        file = io.StringIO()
        console = Console(file=file, width=width, force_terminal=color, legacy_windows=False)
        fields = protocols(self._records)
        render(console, self.rows, sort=sort, protocols=fields, tuning=self._tuning(), brief=brief)
        return file.getvalue().strip("\n")


class Study(Results):
    """The results of `genbench.run`: the study, its numbers, and the runs that failed."""

    def __init__(
        self, config: StudyConfig, metrics: Sequence[str], records: Sequence[RunRecord], failed: Mapping[str, str]
    ) -> None:
        """Of the records of its runs; `metrics` are those of its plan, `failed` are causes by the name of the run."""
        tidy, ranking = rows_of_study(records, metrics, next(iter(metrics), None), config.select)
        super().__init__(records, tidy, ranking)
        self.config = config
        """The study with every argument."""
        self.failed = dict(failed)
        """The cause of each run that failed, by its name."""

    def save(self, path: str | Path) -> None:
        """Write the study to a file, which `genbench run FILE.toml` runs and `genbench.read_study` reads.

        Raises:
            UsageError: The file's name does not end in .toml, or another study is in it.
        """
        from genbench.interface.study_file import write_study

        write_study(Path(path), self.config)


def load_results(paths: str | Path | Iterable[str | Path] = "runs") -> Results:
    """The results of runs, as `genbench report` shows them.

    Args:
        paths: Run folders, or folders of them.

    Returns:
        Their numbers. A run that cannot be read is left out with a warning.

    Raises:
        StoreError: There is no run, or copies of one have different numbers.

    Example:
        >>> import genbench
        >>> genbench.load_results("runs")
        <Results: 4 runs on glyphs: swae, vae>
    """
    folders = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    records, problems = read_runs(find_runs(folders))
    for problem in problems:
        warnings.warn(f"left out: {problem}", stacklevel=2)
    if not records:
        raise StoreError("no run folder could be read")
    unique, lines = without_copies(without_trials(records)[0])
    for line in (*lines, *mixed_images(unique)):
        warnings.warn(line, stacklevel=2)
    return Results(unique)


def _html(table: Table) -> str:
    """A ranked table as HTML, in the style of the notebook."""
    heads = ["<th style='text-align:left'>model</th>"]
    for column in table.columns:
        small = "".join(f"<br><small>{escape(text)}</small>" for text in notes.below_head(column))
        heads.append(f"<th>{escape(notes.head(column))}{small}</th>")
    lines = []
    for title, members in notes.blocks(table.rows):
        if title:
            lines.append(f"<tr><td colspan='{1 + len(table.columns)}'><em>{escape(title)}</em></td></tr>")
        for row in members:
            cells = [f"<td style='text-align:left'>{escape(row.label)}{_state(row.state)}</td>"]
            for cell in row.cells:
                text = "" if cell is None else f"{format_estimate(cell.estimate).plain}{notes.SIGNS[cell.mark]}"
                bold = cell is not None and cell.mark in {"best", "lead"}
                cells.append(f"<td>{f'<b>{escape(text)}</b>' if bold else escape(text)}</td>")
            lines.append(f"<tr>{''.join(cells)}</tr>")
    remarks = "".join(f"<br><small>{escape(note)}</small>" for note in notes.notes(table))
    return (
        f"<p><b>{escape(notes.title(table))}</b></p><table><thead><tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table><p>{remarks.removeprefix('<br>')}</p>"
    )


def _state(state: str) -> str:
    return f" <small>{escape(state)}</small>" if state else ""
