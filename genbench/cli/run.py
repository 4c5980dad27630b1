"""The bodies of `genbench run` and `genbench evaluate`, and what every command that trains needs."""

from __future__ import annotations

import signal
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from genbench.cli.executors import SERIAL, ExecutorConfig, create_executor
from genbench.cli.options import ARGUMENTS
from genbench.errors import StoreError, UsageError, one_line
from genbench.reporting.console import BrokenPipeConsole
from genbench.reporting.summary import readable_runs, show_table
from genbench.storage.lock import lock_run
from genbench.storage.provenance import command_line
from genbench.storage.run_dir import RUN, RunRecord, read_runs
from genbench.utils.io import shell_path

if TYPE_CHECKING:
    import torch

    from genbench.api import DataConfig
    from genbench.execution.runner import Runner
    from genbench.execution.scheduler import Executor, Outcome, RunStatus
    from genbench.experiment.config import ExperimentConfig
    from genbench.experiment.plan import Plan, PlanError
    from genbench.experiment.run import Component, Run
    from genbench.registry.loader import Registry

INTERRUPTED = 130


def run_study(
    config: ExperimentConfig,
    registry: Registry,
    data_config: DataConfig,
    device: str,
    out: Path,
    *,
    dry_run: bool,
    executor_config: ExecutorConfig = SERIAL,
) -> int:
    """Plan, train, evaluate, print; the exit status: 0, 1 where a run failed, 130 where it was interrupted."""
    from genbench.evaluation.snapshots import check_stored_snapshots
    from genbench.execution.scheduler import run_all, run_status
    from genbench.experiment.plan import PlanError, plan
    from genbench.training.distributed import init_distributed, launched, local_device
    from genbench.training.precision import check_precision
    from genbench.utils.torch_state import pick_device

    if launched() and executor_config != SERIAL:
        raise UsageError(
            "torchrun trains one model in several processes, one run after another: leave --executor, --jobs,"
            " --executor-option and --run-timeout off"
        )
    chosen = local_device(pick_device(device))
    check_precision(config.precision, chosen)
    try:
        planned = plan(config, registry, data_config)
    except PlanError as error:
        show_refusal(error, config)
        return 2
    if not dry_run:
        make_room(out)
    with stoppable() as stop, init_distributed(chosen) as distributed:
        # Plan; of several processes the main one prints.
        console = BrokenPipeConsole(quiet=not distributed.is_main_process)
        runner = make_runner(registry, planned, out, data_config, chosen, stop)
        runner.distributed = distributed
        status = run_status(planned, out)
        show_plan(console, planned, out, chosen, status, brief=not dry_run)
        for line in check_stored_snapshots(out, planned.runs, planned.snapshots):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if dry_run:
            show_estimate(console, planned, status.done, out, registry, chosen)
            return 0

        # Train and evaluate.
        done = frozenset(run.name for run in planned.runs if distributed.broadcast(run.name in status.done))
        with working(console, runner, planned, done, executor_config) as executor:
            outcome = run_all(planned, executor, runner, done)
        if not distributed.is_main_process:
            return 0
    metrics = [metric.name for metric in planned.metrics]
    records = status.records or _read_anew([runner.folder(run).path for run in planned.runs])
    show_table(console, records, metrics, sort=next(iter(metrics), None), select=config.select)
    return closing(console, outcome, out)


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
    from genbench.execution.scheduler import run_all, run_status
    from genbench.experiment.config import option_texts
    from genbench.experiment.plan import create_metric_components, plan_of_runs
    from genbench.training.distributed import launched
    from genbench.utils.torch_state import pick_device

    if launched():
        raise UsageError("torchrun trains one model in several processes, with genbench run; evaluate in one process")
    console, chosen = BrokenPipeConsole(), pick_device(device)
    components = create_metric_components(registry, metrics, settings, samplers)
    records = readable_runs(paths)
    untrained = [record.name for record in records if record.state != "trained"]
    trained = [(record.path, record.run) for record in records if record.state == "trained"]
    if untrained:
        console.print(f"left out, not trained: {', '.join(untrained)}", markup=False, soft_wrap=True)
    given = option_texts(settings, {"metric": tuple(metrics), "sampler": tuple(samplers)}, registry)
    plans: list[tuple[Path, Plan]] = plan_of_runs(trained, components, registry, data_config, given)
    total = 0
    with stoppable() as stop:
        for store, planned in plans:
            show_notes(console, planned)
            runner = make_runner(registry, planned, store, data_config, chosen, stop)
            done = run_status(planned, store).done
            show_estimate(console, planned, done, store, registry, chosen)
            with working(console, runner, planned, done, executor_config) as executor:
                outcome = run_all(planned, executor, runner, done)
            total = total or (INTERRUPTED if outcome.interrupted else int(bool(outcome.failed)))
    measured = [component.name for component in components]
    show_table(console, _read_anew([path for path, _ in trained]), measured, sort=None)
    return total


def _read_anew(paths: Sequence[Path]) -> list[RunRecord]:
    """The records, read again; runs that were never begun have none."""
    records, problems = read_runs(path for path in paths if (path / RUN).exists())
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    return records


@contextmanager
def working(
    console: Console, runner: Runner, planned: Plan, done: Collection[str], config: ExecutorConfig
) -> Iterator[Executor]:
    """The executor for the runs that are not done, while their progress is shown."""
    from genbench.cli.progress import show_progress

    total = len(planned.runs) - len(done)
    with show_progress(console, planned, total) as shown, create_executor(config, runner, total) as executor:
        runner.callback = shown
        yield executor


def make_room(out: Path, flag: str = "--out") -> None:
    """Make a folder before anything trains: one that cannot be written to is refused at once."""
    folder = ""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".", ignore_cleanup_errors=True) as folder:  # noqa: SIM117
            with lock_run(Path(folder)):
                pass
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{flag} {out}: a part of this path is a file; name a folder") from None
    except OSError as error:
        raise UsageError(
            f"{flag} {out}: the folder cannot be written to ({error.strerror}); name another one"
        ) from None
    except StoreError as error:
        cause = str(error).removeprefix(folder).strip()
        raise UsageError(f"{flag} {out} {cause}") from None


def closing(console: Console, outcome: Outcome, out: Path) -> int:
    """Print the last lines: failed runs, the folder, the next command; the exit status."""
    for name, problem in outcome.failed.items():
        console.print(f"[red]failed[/] {escape(name)}: {escape(problem)}", soft_wrap=True, highlight=False)
    if outcome.stopped:
        console.print("Stopped, since every further run would meet this. Mend it and re-run the same command.")
    for name in outcome.locked:
        console.print(f"skipped: {escape(name)} is running in another process", soft_wrap=True, highlight=False)
    if outcome.interrupted and not outcome.stopped:
        console.print("Interrupted. Re-run the same command to resume.")
    console.print(
        f"Everything is in {out}/ (models, pictures, numbers). All columns and protocols: genbench report"
        f" {shell_path(out)}; tables and page: --export reports/NAME/",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return INTERRUPTED if outcome.interrupted and not outcome.stopped else int(bool(outcome.failed))


def show_plan(
    console: Console, planned: Plan, store: Path, device: torch.device, status: RunStatus, *, brief: bool
) -> None:
    """The cells of a plan, their parameters and states; in brief one line."""
    from genbench.experiment.plan import changed_sources
    from genbench.experiment.run import split_sampler

    runs, states = planned.runs, status.states
    first, summary = runs[0], planned.dataset_info
    counts = ", ".join(f"{count} {state}" for state, count in Counter(states.values()).items())
    controls = sum(run.role == "control" for run in runs)
    trained = len(runs) - controls
    beside = f" and {controls} control{'s' * (controls > 1)}" if controls else ""
    console.print(
        f"{trained} run{'s' * (trained != 1)}{beside} on {first.dataset.name} ({summary.train:,} training images,"
        f" {'x'.join(map(str, summary.shape))}), network {first.network.name}, {first.images:,} images each"
        f" in batches of {first.batch}{'' if first.precision == 'float32' else f', {first.precision}'},"
        f" on {device}: {counts}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    new = [run for run in runs if states[run.name] == "new"]
    if changed := changed_sources(new, stored_runs(store, new)):
        metrics = ",".join(dict.fromkeys(split_sampler(metric)[0].name for metric in planned.metrics)) or "METRIC"
        sources = ", ".join(f"the {name} ({count} run{'s' * (count != 1)})" for name, count in changed.items())
        console.print(
            f"new because its source has changed since the training: {sources}; restore it to keep the trained runs, or"
            f" evaluate them as they are: genbench evaluate {shell_path(store)} --metrics {metrics}"
            " --allow-changed-source",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    show_notes(console, planned)
    if brief:
        return
    table = Table("model", "prior", "d", "parameters", "seeds", "state", box=None, pad_edge=False, header_style="bold")
    cells: dict[tuple[str, str, int], list[Run]] = {}
    for run in runs:
        cells.setdefault((run.model.name, run.prior.name, run.latent_dim), []).append(run)
    for (model, prior, dim), members in cells.items():
        state = Counter(states[run.name] for run in members)
        words = ", ".join(f"{count} {name}" for name, count in state.items())
        size, control = f"{planned.size(members[0]):,}", members[0].role == "control"
        cell = ("control " + model, prior, str(dim), "-", "-") if control else (model, prior, str(dim), size)
        table.add_row(*cell, *([] if control else [str(len(members))]), words)
    console.print(table)
    show_options(console, planned)


def show_notes(console: Console, planned: Plan) -> None:
    """What was left out of a study, and the counts that follow its dataset."""
    for note in planned.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


FLAGS = {
    "batch": "--batch",
    "metrics": "--metrics",
    "samplers": "--sampler",
    "snapshots": "--snapshots",
    "snapshot_metrics": "--snapshot-metrics",
    "select": "--select",
}
"""The options of `genbench run` by the field of the configuration that they fill, of those that a plan may repair."""


def show_refusal(error: PlanError, config: ExperimentConfig) -> None:
    """Print all problems of a study and, where there is one, a command line without them."""
    problems = [one_line(Exception(problem), 4000) for problem in error.problems]
    click.echo(f"genbench: {problems[0]}" if len(problems) == 1 else f"genbench: {len(problems)} problems:", err=True)
    for problem in problems if len(problems) > 1 else ():
        click.echo(f"  - {problem}", err=True)
    if error.repaired is not None:
        arguments = click.get_current_context().meta.get(ARGUMENTS, ())
        click.echo(f"This would run: {command_line(repaired_arguments(arguments, config, error.repaired))}", err=True)


def repaired_arguments(arguments: Sequence[str], config: ExperimentConfig, repaired: ExperimentConfig) -> list[str]:
    """The arguments of `genbench run` for the repaired configuration in place of the given one."""
    changed = {flag for field, flag in FLAGS.items() if getattr(config, field) != getattr(repaired, field)}
    dropped = set(config.settings) - set(repaired.settings)
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in (*changed, "--set"):
            kept.append(argument)
            continue
        value = value if equals else next(rest, "")
        if flag == "--set" and value not in dropped:
            kept += [flag, value]
    for field, flag in FLAGS.items():
        value = getattr(repaired, field)
        if flag in changed and value:
            kept += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
    for setting in repaired.settings:
        kept += ["--set", setting] if setting not in config.settings else []
    return kept + ["--skip-impossible"] * (repaired.skip_impossible and not config.skip_impossible)


def show_estimate(
    console: Console, planned: Plan, done: Collection[str], store: Path, registry: Registry, device: torch.device
) -> None:
    """Print what the runs that are not done will take."""
    from genbench.execution.estimate import estimate

    if len(done) == len(planned.runs):
        return
    records, _ = read_runs(file.parent for file in store.glob(f"*/{RUN}"))
    words = estimate(planned, done, records, registry, device).words
    console.print(words, markup=False, highlight=False, soft_wrap=True)


def stored_runs(store: Path, new: Collection[Run]) -> list[Run]:
    """The runs of a store that differ from new ones in the key alone."""
    labels = {run.label for run in new}
    paths = [file.parent for file in store.glob(f"*/{RUN}") if file.parent.name.rpartition("-")[0] in labels]
    return [record.run for record in read_runs(paths)[0]]


def show_options(console: Console, planned: Plan) -> None:
    """Print every option of every component of the plan."""
    first = planned.runs[0]
    chosen: dict[str, Component] = {first.dataset.name: first.dataset, first.network.name: first.network}
    for run in planned.runs:
        chosen |= {run.model.name: run.model, run.prior.name: run.prior}
    chosen |= {metric.name: metric for metric in planned.metrics}
    console.print()
    for name, component in chosen.items():
        words = ", ".join(f"{option.replace('_', '-')}={value}" for option, value in component.options) or "no options"
        console.print(f"[bold]{escape(name)}[/]  {escape(words)}", highlight=False)


# ---------------------------------------------------------------- surroundings


def make_runner(
    registry: Registry,
    planned: Plan,
    out: Path,
    data_config: DataConfig,
    device: torch.device,
    stop: Callable[[], bool],
) -> Runner:
    """The runner of one command, for the runs of a plan."""
    from genbench.execution.runner import Runner
    from genbench.storage.provenance import arguments, provenance
    from genbench.training.distributed import processes

    facts = {**provenance(device, arguments()), "processes": processes()}
    return Runner(
        registry, out, data_config, device, facts, planned.metrics, planned.snapshots, planned.threads, stop=stop
    )


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """A function that is true after Ctrl-C or SIGTERM; a second Ctrl-C raises `KeyboardInterrupt`."""
    stopping = False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        click.echo("stopping after this step; press Ctrl-C again to stop at once", err=True)

    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
