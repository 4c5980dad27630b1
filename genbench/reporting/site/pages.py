"""The pages of a site, from the records of its submissions. Everything is text to the templates, which escape it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from genbench import __version__
from genbench.analysis import notes
from genbench.analysis.formatting import format_estimate
from genbench.analysis.headline import MODELS_NAMED, verdict
from genbench.analysis.notes import ProtocolLegend
from genbench.analysis.selection import Leaderboard, leaderboards
from genbench.analysis.table import SPEED, Column, Table, assemble
from genbench.analysis.tuning import tuning_reports
from genbench.errors import shell_word
from genbench.reporting.export import file_name, run_pictures, thumbnails
from genbench.reporting.html import COMMANDS_SHOWN, Page, Picture, TableView, rendered, run_list, table_view
from genbench.reporting.site.submissions import Submission
from genbench.storage.results import Row, protocols, rows
from genbench.storage.run_dir import RunRecord
from genbench.utils.io import shell_path

INDEX, ROWS = "index.html", "rows.csv"

TUNED, UNTUNED, ELSEWHERE = "Tuned", "Not tuned", "Trained elsewhere"
TRAINING = ("run", "tune", "score", "reproduce")
"""The commands that make runs: a recorded command is shown where it is one of these."""

SHORT_HASH = 12
SEEDS_SHOWN = 10
MAIN_FACTS = ("n", "unit", "method", "references", "extractor")
"""The fields of a protocol that the index shows; those in which two leaderboards of a dataset differ are shown too."""


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
    compared = [row for row in tidy if row.metric_role != SPEED]  # machines differ, and their names say little
    for board in leaderboards(compared):
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
        searched = replace(page, tuning=tuning_reports([row for row in board.rows if row.trials], protocols=fields))
        sections = [
            _titled(table_view(searched if kind == TUNED else page, table), kind, table)
            for kind, table in tables.items()
        ]
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
        unranked=_unranked(compared, submitted),
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
    """Whose the runs of each group are: `ann, seeds 0 to 2; bob, seed 7`."""
    seeds: dict[str, dict[str, set[int]]] = {}
    for row in tidy:
        seeds.setdefault(row.group, {}).setdefault(owner[row.run], set()).add(row.seed)
    return {
        group: "; ".join(f"{name}, {_seeds(sorted(trained))}" for name, trained in by_owner.items())
        for group, by_owner in seeds.items()
    }


def _seeds(seeds: Sequence[int]) -> str:
    """Seeds in words: a choice among many shows.

    >>> _seeds([0, 1, 2]), _seeds([3, 17]), _seeds([5])
    ('seeds 0 to 2', 'seeds 3, 17', 'seed 5')
    """
    if len(seeds) > 2 and seeds[-1] - seeds[0] == len(seeds) - 1:
        return f"seeds {seeds[0]} to {seeds[-1]}"
    more = f" and {len(seeds) - SEEDS_SHOWN} more" if len(seeds) > SEEDS_SHOWN else ""
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds[:SEEDS_SHOWN]))}{more}"


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
    """The pictures of each group's first seed, as long as the page has room."""
    names = dict.fromkeys(row.first_run for table in tables for row in table.rows)
    shown = thumbnails([(name, path.stem, path) for name in names for path in run_pictures(by_run[name].path)])
    return {name: [picture for picture in pictures if picture.uri] for name, pictures in shown.items()}


def _versions(records: Iterable[RunRecord]) -> list[str]:
    """The versions of genbench that trained the runs."""
    versions = dict.fromkeys(record.provenance.get("genbench") for record in records)
    return [f"genbench {version}" for version in versions if version]


# ---------------------------------------------------------------- submissions


def _record(record: RunRecord) -> dict[str, object]:
    """A run's record as a page lists it; commands and hashes of bundles stand among the submissions."""
    provenance = {name: value for name, value in record.provenance.items() if name not in ("command", "imported")}
    bundle = "" if record.imported is None else record.imported.bundle
    return {"run": record.run.record(), "provenance": {**provenance, "bundle": bundle}}


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
