"""A static leaderboard of several people's bundles: an index, and a page for each dataset and protocol that ranks.

DIR/index.html            the leaderboards, the submissions, what was checked
DIR/DATASET-...html       a leaderboard: tables, pictures, how to repeat it
DIR/rows.csv              the tidy rows
DIR/genbench-site.json    the files of the site, so that a later one may replace it

The numbers are those of `genbench report` over the imported runs: the same rows, tables and pages. Links are relative.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import msgspec

from genbench import __version__
from genbench.analysis import notes
from genbench.analysis.formatting import format_estimate
from genbench.analysis.headline import MODELS_NAMED, join_words, verdict
from genbench.analysis.notes import ProtocolLegend
from genbench.analysis.selection import Leaderboard, leaderboards
from genbench.analysis.table import Column, Table, assemble
from genbench.errors import DataError, UsageError, one_line, shell_word
from genbench.reporting.csv_json import tidy_csv_lines
from genbench.reporting.export import file_name, run_pictures, thumbnails
from genbench.reporting.html import COMMANDS_SHOWN, Page, Picture, TableView, rendered, run_list, table_view
from genbench.storage.bundle import import_bundle, only_process
from genbench.storage.results import Row, protocols, rows
from genbench.storage.run_dir import RunRecord, read_run
from genbench.utils.io import PART, disk_full_error, read_bytes, shell_path, write_json, write_pieces, write_text

INDEX, ROWS, SITE = "index.html", "rows.csv", "genbench-site.json"
SITE_SCHEMA = 1
SITE_BYTES = 16 << 20
"""More than a genbench-site.json has."""

TUNED, UNTUNED, ELSEWHERE = "Tuned", "Not tuned", "Trained elsewhere"
TRAINING = ("run", "tune", "score", "reproduce")
"""The commands that make runs: a recorded command is shown where it is one of these."""

SHORT_HASH = 12
MAIN_FACTS = ("n", "unit", "method", "references", "extractor")
"""The fields of a protocol that the index shows; those in which two leaderboards of a dataset differ are shown too."""


@dataclass(frozen=True)
class Submission:
    """A bundle: its file's name without ".tar", its file's name and SHA-256, whether weights came along, its runs."""

    name: str
    file: str
    sha256: str
    weights: bool
    records: tuple[RunRecord, ...]


Check = Callable[[Sequence[Submission]], Mapping[str, str]]
"""Checks the runs of unpacked bundles; a line for each submission that it looked at, by its name."""


class SiteFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """genbench-site.json."""

    schema: int
    genbench: str
    bundles: dict[str, str]
    files: tuple[str, ...]


@dataclass(frozen=True)
class SubmissionView:
    """A submission in words: facts, the commands that trained its runs, and those that repeat them."""

    name: str
    size: str
    facts: Sequence[tuple[str, str]]
    trained: Sequence[str]
    repeat: Sequence[str]


@dataclass(frozen=True)
class SectionView:
    """The models of a leaderboard that stand in one table: the verdict, and those that lead with their numbers."""

    title: str
    verdict: str
    leaders: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class BoardView:
    """A leaderboard in the index."""

    href: str
    head: str
    protocol: str
    sections: Sequence[SectionView]


# ---------------------------------------------------------------- bundles


def collect(bundles: Sequence[Path], folder: Path, *, keep_first: bool = False) -> tuple[list[Submission], list[str]]:
    """Unpack bundles below a folder and check them as an import does; a line for runs that were left out.

    Raises `UsageError` for two bundles of one name, `DataError` or `StoreError` for the first bundle that is not sound,
    that is given twice, or (without `keep_first`) that holds a run which an earlier one holds too.
    """
    names: dict[str, Path] = {}
    for path in bundles:
        if (earlier := names.setdefault(path.stem.casefold(), path)) is not path:
            raise UsageError(f"{earlier} and {path} have one name, which says whose runs are whose: rename one of them")
    submissions: list[Submission] = []
    first: dict[str, Submission] = {}
    lines = []
    for place, path in enumerate(bundles):
        imported = import_bundle(path, folder / str(place))
        records = [read_run(folder / str(place) / name) for name in imported.new]
        origins = [record.imported for record in records if record.imported is not None]
        for submission in submissions:
            if submission.sha256 == origins[0].sha256:
                raise DataError(f"{path} is the same file as {submission.file}: leave one of them out")
        records = [record for record in records if record.run.role != "trial"]
        shared = [record for record in records if record.run.key in first]
        if shared and not keep_first:
            others = join_words(list(dict.fromkeys(first[record.run.key].file for record in shared)))
            held = f"the run {shared[0].name}" if len(shared) == 1 else f"{len(shared)} runs ({shared[0].name}, ...)"
            raise DataError(
                f"{path} holds {held} that {others} holds too, and a run counts once: pack it without them, or add"
                " --keep-first to take those of the bundle that is named first"
            )
        if shared:
            several = f"{len(shared)} run{'s' * (len(shared) > 1)} of {path}"
            lines.append(f"left out: {several}, which an earlier bundle holds too")
        kept = tuple(record for record in records if record.run.key not in first)
        name, file = (one_line(ValueError(text), 80) for text in (path.stem, path.name))
        submissions.append(Submission(name, file, origins[0].sha256, all(o.weights for o in origins), kept))
        first |= {record.run.key: submissions[-1] for record in kept}
    return submissions, lines


# ---------------------------------------------------------------- the folder


def write_site(
    target: Path,
    bundles: Sequence[Path],
    *,
    title: str = "",
    keep_first: bool = False,
    check: Check | None = None,
) -> tuple[list[str], list[str]]:
    """Write the site of some bundles into the folder `target`, whole or not at all, and return its pages.

    The second list has a line for what was left out. An earlier site is replaced in one step, any other folder that is
    not empty refused. Nothing is written before all bundles are checked. Raises what `collect` raises.
    """
    target = target.resolve()
    check_target(target)
    base = next(folder for folder in target.parents if folder.is_dir())
    with only_process(base, f".site-*{PART}"):
        temporary = base / f".site-{uuid4().hex[:8]}{PART}"
        try:
            temporary.mkdir()
            submissions, lines = collect(bundles, temporary / "bundles", keep_first=keep_first)
            checked = {} if check is None else check(submissions)
            tidy, pages = site_pages(submissions, title, checked)
            site = temporary / "site"
            for name, text in pages.items():
                write_text(site / name, text)
            write_pieces(site / ROWS, tidy_csv_lines(tidy))
            files = tuple(sorted([*pages, ROWS]))
            known = {submission.file: submission.sha256 for submission in submissions}
            write_json(site / SITE, msgspec.to_builtins(SiteFile(SITE_SCHEMA, __version__, known, files)))
            check_target(target)
            _replace(target, site, temporary / "earlier")
        except OSError as error:
            raise disk_full_error(base, error) or error from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return list(pages), lines


def check_target(target: Path) -> None:
    """`UsageError` unless the folder is absent, empty, or an earlier site and nothing else."""
    remedy = "name a new folder, or one that a site was written to"
    if target in (Path.cwd(), *Path.cwd().parents):
        raise UsageError(
            f"--out {target} is the working directory or above it, and a site replaces its folder: {remedy}"
        )
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"--out {target} is a file: {remedy}")
    entries = sorted(path.name for path in target.iterdir())
    if not entries:
        return
    try:
        site = msgspec.json.decode(read_bytes(target / SITE, SITE_BYTES), type=SiteFile)
    except (OSError, msgspec.MsgspecError, ValueError, RecursionError):
        raise UsageError(f"--out {target} is not empty and no earlier site: {remedy}") from None
    foreign = [name for name in entries if name not in (*site.files, SITE) or not (target / name).is_file()]
    if foreign:
        shown = one_line(ValueError(foreign[0]), 80)
        raise UsageError(
            f"--out {target} holds {shown}, which is no file of a site: move it away, or name a new folder"
        )


def _replace(target: Path, site: Path, earlier: Path) -> None:
    """Move the site into place; where that cannot be, an earlier one stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(earlier)
    try:
        site.rename(target)
    except BaseException:
        if earlier.exists():
            earlier.rename(target)
        raise


# ---------------------------------------------------------------- pages


def site_pages(
    submissions: Sequence[Submission], title: str, checked: Mapping[str, str]
) -> tuple[list[Row], dict[str, str]]:
    """The tidy rows of all submissions, and the pages of the site by the names of their files, the index first."""
    records = [record for submission in submissions for record in submission.records]
    owners = [submission.name for submission in submissions for _ in submission.records]
    tidy, fields = rows(records, owners=owners, tuned_apart=True), protocols(records)
    owner = {record.name: name for record, name in zip(records, owners, strict=True)}
    submitted = _submitted(tidy, owner)
    title = title or "Leaderboard"
    by_run = {record.name: record for record in records}
    boards: dict[str, list[BoardView]] = {}
    pages: dict[str, str] = {INDEX: ""}
    ranking: dict[str, list[Column]] = {}
    for board in leaderboards(tidy):
        href = _page_name(board, pages)
        runs = dict.fromkeys(row.run for row in board.rows)
        named = {owner[run] for run in runs}
        views = [_submission_view(s, checked) for s in submissions if s.name in named]
        tables = _sections(board)
        page = Page(
            title="",
            tables=list(tables.values()),
            protocols=fields,
            pictures=_shown_pictures(tables.values(), by_run),
            records={run: _record(by_run[run]) for run in runs},
            rows=board.rows,
            command="",
            submitted=submitted,
            apart=True,
        )
        sections = [_titled(table_view(page, table), kind, table) for kind, table in tables.items()]
        column = next(iter(tables.values())).columns[0]
        ranking.setdefault(board.dataset, []).append(column)
        (measured,) = notes.legend(Table(board.dataset, (column,), (), ()), fields).entries
        pages[href] = rendered(
            "board.html",
            title=f"{column.head} on {board.dataset}",
            site=title,
            index=INDEX,
            facts=[
                _counted(len(named), "submission"),
                _counted(len(runs), "run"),
                *_versions(by_run[run] for run in runs),
            ],
            protocol=measured,
            measured=notes.listed(measured.facts),
            sections=sections,
            submissions=views,
            run_list=run_list(page),
        )
        summary = [_section_view(kind, table, submitted) for kind, table in tables.items()]
        boards.setdefault(board.dataset, []).append(BoardView(href, column.head, board.protocol, summary))
    how: dict[str, str] = {}
    for dataset, columns in ranking.items():
        how |= _in_short(notes.legend(Table(dataset, tuple(columns), (), ()), fields))
    pages[INDEX] = rendered(
        "site.html",
        title=title,
        facts=[_counted(len(submissions), "submission"), _counted(len(records), "run"), f"genbench {__version__}"],
        boards=boards,
        how=how,
        submissions=[_submission_view(submission, checked) for submission in submissions],
        unranked=_unranked(tidy, submitted),
        rows=ROWS,
        verified=bool(checked),
    )
    return tidy, pages


def _in_short(legend: ProtocolLegend) -> dict[str, str]:
    """The protocols of a dataset's leaderboards by their hash: their main facts, and those in which they differ."""
    several = len(legend.entries) > 1
    main = [(name, text) for name, text in legend.common if name in MAIN_FACTS]
    return {
        entry.protocol: notes.listed([fact for fact in (*entry.facts, *main) if several or fact[0] in MAIN_FACTS])
        for entry in legend.entries
    }


def _page_name(board: Leaderboard, pages: Iterable[str]) -> str:
    """The file of a leaderboard: names that differ by case alone are made distinct."""
    name = file_name(f"{board.dataset}-{board.metric}-{board.protocol}")
    taken, place, distinct = {page.casefold() for page in pages}, 1, name
    while f"{distinct}.html".casefold() in taken:
        place += 1
        distinct = f"{name}-{place}"
    return f"{distinct}.html"


def _sections(board: Leaderboard) -> dict[str, Table]:
    """The tables of a leaderboard by their titles; controls, which give the scale, stand in each."""
    kinds: dict[str, list[Row]] = {TUNED: [], UNTUNED: [], ELSEWHERE: []}
    for row in board.rows:
        kind = TUNED if row.trials else ELSEWHERE if row.role == "external" else UNTUNED
        for title in kinds if row.role == "control" else (kind,):
            kinds[title].append(row)
    tables = {}
    for title, members in kinds.items():
        if any(row.role != "control" for row in members):
            (tables[title],) = assemble(members, board.metric)
    return tables


def _titled(view: TableView, kind: str, table: Table) -> TableView:
    return replace(view, title=f"{kind} · {notes.size(table)}")


def _section_view(kind: str, table: Table, submitted: Mapping[str, str]) -> SectionView:
    """The bests of a table, or where none is known the first models, with their numbers and whose they are."""
    ranked = [(row, row.cells[0]) for row in table.rows if row.role == "model"]
    best = [(row, cell) for row, cell in ranked if cell is not None and cell.mark == "best"]
    leaders = [
        (row.label, format_estimate(cell.estimate).plain, submitted.get(row.group, ""))
        for row, cell in (best or ranked)[:MODELS_NAMED]
        if cell is not None
    ]
    return SectionView(f"{kind} · {notes.size(table)}", verdict(table).text, leaders)


def _submitted(tidy: Sequence[Row], owner: Mapping[str, str]) -> dict[str, str]:
    """Whose the runs of each group are: `ann`, or `ann (seeds 0, 1), bob (seed 2)`."""
    seeds: dict[str, dict[str, set[int]]] = {}
    for row in tidy:
        seeds.setdefault(row.group, {}).setdefault(owner[row.run], set()).add(row.seed)
    return {
        group: ", ".join(
            name
            if len(by_owner) == 1
            else f"{name} (seed{'s' * (len(trained) > 1)} {', '.join(map(str, sorted(trained)))})"
            for name, trained in by_owner.items()
        )
        for group, by_owner in seeds.items()
    }


def _unranked(tidy: Sequence[Row], submitted: Mapping[str, str]) -> list[str]:
    """A line for each group on no leaderboard."""
    ranked = {row.group for board in leaderboards(tidy) for row in board.rows}
    first: dict[str, Row] = {}
    for row in tidy:
        if row.group not in ranked and (row.group not in first or row.error):
            first[row.group] = row
    return [
        f"{row.label} on {row.dataset}, submitted by {submitted[group]}: {row.error or 'no number ranks it'}"
        for group, row in first.items()
    ]


def _shown_pictures(tables: Iterable[Table], by_run: Mapping[str, RunRecord]) -> Mapping[str, Sequence[Picture]]:
    """The pictures of each group's first seed."""
    names = dict.fromkeys(row.first_run for table in tables for row in table.rows)
    return thumbnails([(name, path.stem, path) for name in names for path in run_pictures(by_run[name].path)])


def _versions(records: Iterable[RunRecord]) -> list[str]:
    """The versions of genbench that trained the runs."""
    versions = dict.fromkeys(record.provenance.get("genbench") for record in records)
    return [f"genbench {version}" for version in versions if version]


# ---------------------------------------------------------------- submissions


def _record(record: RunRecord) -> dict[str, object]:
    """A run's record as a page lists it; of the command what a reader may type without harm."""
    provenance = {**record.provenance, "command": harmless(record.provenance.get("command"))}
    return {"run": record.run.record(), "provenance": provenance}


def harmless(command: object) -> str:
    """A recorded command, anew quoted for the shell, where it is one of genbench's that make runs; else "".

    >>> harmless("genbench run swae --set a.b='x y'"), harmless("genbench run swae; rm -rf ~"), harmless("curl x | sh")
    ("genbench run swae --set 'a.b=x y'", "genbench run 'swae;' rm -rf '~'", '')
    """
    try:
        words = shlex.split(command) if isinstance(command, str) and command.isprintable() else []
    except ValueError:
        return ""
    if words[:1] != ["genbench"] or words[1:2] not in [[name] for name in TRAINING]:
        return ""
    return " ".join(map(shell_word, words))


def _submission_view(submission: Submission, checked: Mapping[str, str]) -> SubmissionView:
    records = submission.records
    known: dict[str, dict[str, None]] = {"device": {}, "genbench": {}, "command": {}}
    for record in records:
        for fact, values in known.items():
            value = record.provenance.get(fact)
            text = harmless(value) if fact == "command" else value
            if isinstance(text, str) and text:
                values[text] = None
    models = dict.fromkeys(record.run.model.name for record in records if record.run.role != "control")
    facts = [
        ("models", ", ".join(models)),
        ("weights", "in the bundle" if submission.weights else "not in the bundle"),
        ("trained on", "; ".join(known["device"])),
        ("by genbench", ", ".join(known["genbench"])),
        ("measured anew", checked.get(submission.name, "")),
        ("bundle", f"{submission.file}, SHA-256 {submission.sha256[:SHORT_HASH]}\N{HORIZONTAL ELLIPSIS}"),
    ]
    file, folder = shell_path(submission.file), shell_path(submission.name)
    repeat = [f"genbench bundle import {file} --out {folder}", f"genbench report {folder}"]
    repeat.append(f"genbench config {folder} --write {shell_path(f'{submission.name}.toml')}")
    return SubmissionView(
        submission.name,
        f"{_counted(len(models), 'model')}, {_counted(len(records), 'run')}",
        [(name, text) for name, text in facts if text],
        list(known["command"])[:COMMANDS_SHOWN],
        repeat,
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
