"""The bodies of `genbench run` and `genbench evaluate`, and what every command that trains needs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.execution.executors.choice import SERIAL, ExecutorConfig
from genbench.experiment.run import distinct_names
from genbench.interface.context import data_config_of, make_room, stoppable
from genbench.reporting.console import BrokenPipeConsole, ConsoleWriter
from genbench.reporting.summary import compared_runs, readable_runs, show_table, show_time
from genbench.storage.provenance import command_line
from genbench.storage.run_dir import RUN, RunRecord, read_runs
from genbench.storage.study import mixed_images, without_copies
from genbench.utils.io import shell_path

if TYPE_CHECKING:
    import torch

    from genbench.api import DataConfig
    from genbench.execution.runner import Runner
    from genbench.execution.scheduler import Executor, Outcome, RunStatus
    from genbench.experiment.plan import Plan
    from genbench.experiment.run import Run
    from genbench.interface.config import StudyConfig
    from genbench.interface.score import ScoreConfig
    from genbench.interface.session import Session
    from genbench.registry.loader import Registry

INTERRUPTED = 130


def run_study(study: StudyConfig, registry: Registry, *, dry_run: bool, write: Path | None, form: str) -> int:
    """Plan, train, evaluate, print; the exit status: 0, 1 where a run failed, 130 where it was interrupted."""
    from genbench.execution.progress import show_progress
    from genbench.execution.scheduler import run_all
    from genbench.interface.session import open_study
    from genbench.interface.study_file import write_study

    data_config = data_config_of(study)
    with (
        stoppable(announce) as stop,
        open_study(study, registry, data_config, command_line(), stop) as session,
    ):
        # Plan; of several processes the main one prints.
        planned, out, distributed = session.plan, study.folder, session.runner.distributed
        console = BrokenPipeConsole(quiet=not distributed.is_main_process)
        if write is not None and distributed.is_main_process:
            write_study(write, study)
            click.echo(f"Written to {write}: genbench run {shell_path(write)}", err=form == "json")
        if not dry_run:
            make_room(out)
        if form == "json":
            click.echo(plan_json(planned, session.status))
            return 0
        show_plan(console, planned, out, session.runner.device, session.status, brief=not dry_run)
        for line in session.warnings:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if dry_run:
            show_estimate(console, session, registry)
            return 0

        # Train and evaluate.
        with session.working(show_progress(console, planned, session.remaining), warner(console)) as executor:
            outcome = run_all(planned, executor, session.runner, session.done)
        if not distributed.is_main_process:
            return 0
    show_results(console, session, study)
    return closing(console, outcome, out)


def show_results(console: Console, session: Session, study: StudyConfig) -> None:
    """Print the table of a study after its work."""
    from genbench.registry.loader import recipe_texts
    from genbench.reproduction.recipe import published_values

    metrics = list(dict.fromkeys(metric.name for metric in session.plan.metrics))
    records = _readable(session)
    if any(record.measurements or record.selections for record in records):  # else nothing but failures, listed below
        show_table(
            console,
            records,
            metrics,
            sort=next(iter(metrics), None),
            select=study.select,
            published=lambda: published_values(recipe_texts(session.runner.registry)),
        )
        show_time(console, records)
    for line in mixed_images(records):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def measure_runs(
    paths: Sequence[Path],
    registry: Registry,
    data_config: DataConfig,
    device: str,
    metrics: Sequence[str],
    settings: Sequence[str],
    executor_config: ExecutorConfig = SERIAL,
    samplers: Sequence[str] = ("prior",),
) -> int:
    """Evaluate trained runs; the exit status as in `run_study`."""
    from genbench.execution.progress import show_progress
    from genbench.execution.scheduler import run_all
    from genbench.interface.session import evaluable, open_evaluations

    console, records = BrokenPipeConsole(), readable_runs(paths)
    untrained = [record.name for record in records if record.state != "trained"]
    if untrained:
        console.print(f"left out, not trained: {', '.join(untrained)}", markup=False, soft_wrap=True)
    trained, problems = evaluable(records, registry)
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    total = 0
    with stoppable(announce) as stop:
        sessions = open_evaluations(
            trained,
            metrics,
            settings,
            samplers,
            registry,
            data_config,
            device,
            command_line(),
            stop,
            executor_config,
        )
        for session in sessions:
            show_notes(console, session.plan)
            show_estimate(console, session, registry)
            progress = show_progress(console, session.plan, session.remaining)
            with session.working(progress, warner(console)) as executor:
                outcome = run_all(session.plan, executor, session.runner, session.done)
            total = total or (INTERRUPTED if outcome.interrupted else int(bool(outcome.failed)))
    measured = [component.name for component in sessions[0].runner.metrics]
    records, _ = without_copies([record for session in sessions for record in _readable(session)])
    show_table(console, records, measured, sort=None)
    return total


def score_results(config: ScoreConfig, registry: Registry, data_config: DataConfig) -> int:
    """Measure results from elsewhere and show them among the runs of the folder; the exit status as in `run_study`."""
    from genbench.execution.progress import show_progress
    from genbench.execution.scheduler import run_all
    from genbench.interface.score import open_score

    console = BrokenPipeConsole()
    with stoppable(announce) as stop:
        session, notes = open_score(config, registry, data_config, command_line(), stop)
        for note in notes:
            console.print(note, markup=False, highlight=False, soft_wrap=True)
        with session.working(show_progress(console, session.plan, session.remaining), warner(console)) as executor:
            outcome = run_all(session.plan, executor, session.runner, session.done)

    # The table of all runs on this dataset, then what does not apply.
    run, metrics = session.plan.runs[0], list(dict.fromkeys(metric.name for metric in session.plan.metrics))
    records = [record for record in compared_runs([config.out]) if record.run.dataset == run.dataset]
    if any(record.measurements for record in records):
        show_table(console, records, metrics, sort=next(iter(metrics), None))
    for record in records:
        for entry in record.measurements.values() if record.run == run else ():
            if entry.inapplicable:
                line = f"not applicable: {entry.metric}: {entry.inapplicable}"
                console.print(line, markup=False, highlight=False, soft_wrap=True)
    return closing(console, outcome, config.out)


def announce(text: str) -> None:
    """Print a line on stderr."""
    click.echo(text, err=True)


def _readable(session: Session) -> Sequence[RunRecord]:
    """The records of a session's runs after the work; a line on stderr for each that cannot be read."""
    records, problems = session.records()
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    return records


def warner(console: Console) -> Callable[[str], None]:
    """A function that prints a warning while the runs go on."""

    def warn(text: str) -> None:
        console.print(f"! {text}", style="yellow", markup=False, highlight=False, soft_wrap=True)

    return warn


@contextmanager
def working(
    console: Console, runner: Runner, planned: Plan, status: RunStatus, config: ExecutorConfig
) -> Iterator[Executor]:
    """The executor for the runs that are not done, while their progress is shown."""
    from genbench.execution.progress import show_progress
    from genbench.interface.session import Session

    session = Session(planned, runner, status, status.done, config)
    with session.working(show_progress(console, planned, session.remaining), warner(console)) as executor:
        yield executor


def closing(console: Console, outcome: Outcome, out: Path) -> int:
    """Print the last lines: failed runs, the folder, the next command; the exit status."""
    for name, problem in outcome.failed.items():
        console.print(f"[red]failed[/] {escape(name)}: {escape(problem)}", soft_wrap=True, highlight=False)
    if outcome.stopped:
        console.print("Stopped, since every further run would meet this. Mend it and re-run the same command.")
    if outcome.failed:
        first = shell_path(out / next(iter(outcome.failed)))
        console.print(f"with its trace: genbench show {first}", markup=False, soft_wrap=True, highlight=False)
    for name in outcome.locked:
        console.print(f"skipped: {escape(name)} is running in another process", soft_wrap=True, highlight=False)
    if outcome.interrupted and not outcome.stopped:
        console.print("Interrupted. Re-run the same command to resume.")
    folder = shell_path(out)
    writer = ConsoleWriter(console)
    writer.line(f"Everything is in {folder}: models, pictures, numbers. All columns: genbench report {folder}")
    writer.line("Counts, p-values and protocols: add --notes. Tables, figures and a page: add --export reports/NAME")
    return INTERRUPTED if outcome.interrupted and not outcome.stopped else int(bool(outcome.failed))


def plan_json(planned: Plan, status: RunStatus) -> str:
    """The plan as JSON: each run with its record, key, state and parameters, the dataset, metrics and snapshots."""
    runs = [
        {
            "name": run.name,
            "key": run.key,
            "state": status.states[run.name],
            "parameters": planned.size(run) or None,
            **run.record(),
        }
        for run in planned.runs
    ]
    plain = {
        "dataset": {"name": planned.runs[0].dataset.name, **asdict(planned.dataset_info)},
        "runs": runs,
        "metrics": [{"name": metric.name, "options": metric.values} for metric in planned.metrics],
        "snapshots": {
            "count": planned.snapshots.count,
            "metrics": [{"name": metric.name, "options": metric.values} for metric in planned.snapshots.metrics],
            "select": None if planned.snapshots.select is None else planned.snapshots.select.name,
        },
    }
    return json.dumps(plain, indent=1)


def show_plan(
    console: Console, planned: Plan, store: Path, device: torch.device, status: RunStatus, *, brief: bool
) -> None:
    """The cells of a plan, their parameters and states; in brief one line."""
    from genbench.experiment.plan import changed_sources

    runs, states, writer = planned.runs, status.states, ConsoleWriter(console)
    first, summary = runs[0], planned.dataset_info
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
    controls = sum(run.role == "control" for run in runs)
    trained = len(runs) - controls
    beside = f" and {controls} control{'s' * (controls > 1)}" if controls else ""
    writer.line(
        f"{trained} run{'s' * (trained != 1)}{beside} on {first.dataset.name} ({summary.train:,} training,"
        f" {summary.test:,} test, {summary.validation:,} validation images,"
        f" {'x'.join(map(str, summary.shape))}), network {first.network.name},"
        f" {batches_words(first.images, first.batch)}"
        f"{'' if first.precision == 'float32' else f', {first.precision}'},"
        f" on {device}: {counts}"
    )
    if summary.notes:
        console.print(f"images: {'; '.join(summary.notes)}", markup=False, highlight=False, soft_wrap=True)
    new = [run for run in runs if states[run.name] == "new"]
    for words, n in changed_sources(new, stored_runs(store, new)).items():
        writer.line(
            f"{n} trained run{'s' * (n > 1)} of {words} stay{'s' * (n == 1)} apart, and this study trains anew"
            " (genbench report shows the newest; --all-sources: all of them)"
        )
    show_notes(console, planned)
    if brief:
        return
    table = Table("model", "prior", "d", "parameters", "seeds", "state", box=None, pad_edge=False, header_style="bold")
    models, priors = distinct_names(run.model for run in runs), distinct_names(run.prior for run in runs)
    networks = distinct_names(run.network for run in runs)
    cells: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        model = models[run.model] + (f", {networks[run.network]}" if len(networks) > 1 else "")
        cells.setdefault((model, priors[run.prior], run.latent_dim), []).append(run)
    for (model, prior, dim), members in cells.items():
        state = Counter(states[run.name] for run in members)
        words = ", ".join(f"{count} {name}" for name, count in state.items())
        size, control = f"{planned.size(members[0]):,}", members[0].role == "control"
        cell = ("control " + model, prior, str(dim), "-", "-") if control else (model, prior, str(dim), size)
        table.add_row(*cell, *([] if control else [str(len(members))]), words)
    console.print(table)
    show_options(console, planned)


def batches_words(images: int, batch: int) -> str:
    """What a run is trained on: whole batches, which may hold more images than were asked for.

    >>> batches_words(4096, 128), batches_words(4000, 128)
    ('4,096 images each in batches of 128', '4,000 images each (32 batches of 128: 4,096)')
    """
    steps = -(-images // batch)
    if steps * batch == images:
        return f"{images:,} images each in batches of {batch:,}"
    return f"{images:,} images each ({steps:,} batch{'es' * (steps > 1)} of {batch:,}: {steps * batch:,})"


def show_notes(console: Console, planned: Plan) -> None:
    """What was left out of a study, and the counts that follow its dataset."""
    for note in planned.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def show_estimate(console: Console, session: Session, registry: Registry) -> None:
    """Print what the runs that are not done will take."""
    from genbench.execution.estimate import estimate

    if not session.remaining:
        return
    runner = session.runner
    records, _ = read_runs(file.parent for file in runner.store.glob(f"*/{RUN}"))
    words = estimate(session.plan, session.done, records, registry, runner.device).words
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def stored_runs(store: Path, new: Collection[Run]) -> list[Run]:
    """The runs of a store that differ from new ones in the key alone."""
    labels = {run.label for run in new}
    paths = [file.parent for file in store.glob(f"*/{RUN}") if file.parent.name.rpartition("-")[0] in labels]
    return [record.run for record in read_runs(paths)[0] if record.state == "trained"]


def show_options(console: Console, planned: Plan) -> None:
    """Print every option of every component of the plan."""
    components = [planned.runs[0].dataset, *(run.network for run in planned.runs)]
    components += [component for run in planned.runs for component in (run.model, run.prior)]
    console.print()
    for component in dict.fromkeys([*components, *planned.metrics]):
        words = ", ".join(f"{option.replace('_', '-')}={value}" for option, value in component.options) or "no options"
        console.print(f"[bold]{escape(component.name)}[/]  {escape(words)}", highlight=False)
