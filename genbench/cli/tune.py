"""`genbench tune`: the same search for every model, and a study of the choices."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from genbench.cli.completion import complete_names
from genbench.cli.options import (
    FilePath,
    Whole,
    data_options,
    device_option,
    ensemble_option,
    installed_names,
    load_registry,
    out_option,
    plugin_option,
    set_option,
    study_option,
    threads_option,
)
from genbench.cli.study import executor_options, read_study_flags
from genbench.errors import StoreError
from genbench.experiment.config import check_config
from genbench.interface.config import DEFAULT_EPOCHS, lower_case
from genbench.interface.context import data_config_of, make_room, stoppable
from genbench.storage.provenance import command_line

if TYPE_CHECKING:
    from rich.console import Console

    from genbench.execution.scheduler import Outcome
    from genbench.interface.session import Session
    from genbench.interface.tuning import TuneConfig, Tuning
    from genbench.registry.loader import Registry

SEARCH = ("trials", "metric", "space", "algorithm", "by", "search_seed")
"""The flags of the search; all others are those of a study."""


@click.command(short_help="Search the options of MODELs equally, then compare the choices.")
@click.argument(
    "models", nargs=-1, required=True, metavar="[STUDY.toml] [MODEL...]", shell_complete=complete_names("model")
)
@click.option("--trials", type=Whole(2, 10_000), default=30, show_default=True, metavar="N", help="Trials a model.")
@click.option(
    "--metric",
    metavar="M",
    shell_complete=complete_names("metric"),
    help="The metric on validation images that chooses. [the first of --metrics]",
)
@click.option(
    "--space", type=FilePath(dir_okay=False), metavar="FILE.toml", help="Search spaces, in place of those declared."
)
@click.option(
    "--algorithm",
    type=click.Choice(["random", "halving", "tpe", "gp"]),
    default="random",
    show_default=True,
    help="How trials are drawn: halving stops those that are worse early; tpe and gp are samplers of optuna.",
)
@click.option(
    "--by",
    type=click.Choice(["trials", "images", "seconds", "flops"]),
    default="trials",
    show_default=True,
    help="What models have alike: trials, or the cost of training; then the cheapest model has --trials.",
)
@click.option(
    "--search-seed", type=Whole(0), default=10_000, show_default=True, metavar="K", help="The trials' training seed."
)
@study_option("seeds", metavar="K", help="Training seeds of the final runs.")
@study_option("dataset", metavar="D", complete="dataset", help="The dataset.")
@study_option("priors", "--prior", metavar="P", complete="prior", help="The prior of the codes.")
@study_option("latent_dims", "--latent-dim", metavar="N", help="The dimension of the codes.")
@study_option("network", metavar="NET", complete="network", help="Encoder and decoder of every model.")
@study_option("epochs", metavar="E", help=f"Passes over the training set of each run. [{DEFAULT_EPOCHS}]")
@study_option("images", metavar="N", help="Training images shown to each run, instead of --epochs.")
@study_option("batch", metavar="B", help="Images per step.")
@study_option("metrics", metavar="M,...", complete="metric", help="The metrics of the final runs, on test images.")
@study_option("precision", help="Arithmetic of the training.")
@set_option("a component, e.g. fid.count=5000; repeatable. Those that are set are not searched.")
@device_option
@threads_option
@ensemble_option
@executor_options
@data_options
@out_option
@plugin_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
def tune(models: tuple[str, ...], dry_run: bool, **flags: Any) -> None:
    """Search the options of MODELs equally, then compare the choices on fresh seeds.

    Every model has the same number of trials, which are measured on validation images alone; the first one has the
    default options. The best trial's options are trained anew on --seeds fresh seeds and measured once on test images.
    Runs that are done are skipped: re-run the same command to resume. More: genbench docs tuning.
    """
    given = {name: flags.pop(name) for name in SEARCH}
    study = read_study_flags(models, flags, "genbench tune")
    from genbench.interface.tuning import tune_config

    given |= {"space": None if given["space"] is None else str(given["space"])}
    given["metric"] = lower_case([given["metric"]])[0]
    config = tune_config(study, given, "genbench tune")
    study.executor_config()
    if installed := installed_names(study.plugin_files):
        check_config(config.final().experiment(), installed)
    sys.exit(run_tuning(config, load_registry(study.plugin_files), dry_run=dry_run))


def run_tuning(config: TuneConfig, registry: Registry, *, dry_run: bool) -> int:
    """Search, choose, train the choices, print; the exit status as of `genbench run`."""
    from genbench.analysis.tuning import budget_lines, search_values
    from genbench.cli import run
    from genbench.execution.progress import show_progress
    from genbench.execution.scheduler import run_all
    from genbench.interface.session import open_study
    from genbench.interface.tuning import mark_tuned, open_tuning
    from genbench.reporting.console import BrokenPipeConsole, ConsoleWriter
    from genbench.tuning.choice import choice_line

    console, data_config, out = BrokenPipeConsole(), data_config_of(config.study), config.study.folder
    writer = ConsoleWriter(console)

    def do(session: Session) -> Outcome:
        progress = show_progress(console, session.plan, session.remaining)
        with session.working(progress, run.warner(console)) as executor:
            return run_all(session.plan, executor, session.runner, session.done)

    with stoppable(run.announce) as stop:
        # Search.
        with open_tuning(config, registry, data_config, command_line(), stop) as tuning:
            show_search(console, tuning, brief=not dry_run)
            if dry_run:
                return 0
            make_room(out)
            outcome = tuning.run(do, writer.line)
        if outcome is not None:
            status = run.closing(console, outcome, out)
            if outcome.locked and not status:
                count = len(outcome.locked)
                raise StoreError(
                    f"nothing is chosen yet: {count} trial{'s' * (count != 1)} of the search ran in another process:"
                    " repeat this command when that one has ended"
                )
            return status
        for record in tuning.records():
            writer.line(choice_line(record))
        for line in budget_lines(search_values(tuning.records())):
            writer.line(line)

        # Train the choices on fresh seeds, and measure them on test images.
        final = config.final(tuning.records())
        with open_study(final, registry, data_config, command_line(), stop) as session:
            run.show_plan(console, session.plan, out, session.runner.device, session.status, brief=True)
            outcome = do(session)
            mark_tuned(tuning, session.plan.runs, out)
    run.show_results(console, session, final)
    return run.closing(console, outcome, out)


def show_search(console: Console, tuning: Tuning, *, brief: bool) -> None:
    """The plan of a search: how many trials of what, by which metric, and what is done."""
    from genbench.cli.run import batches_words
    from genbench.reporting.console import ConsoleWriter
    from genbench.storage.schema import space_words
    from genbench.tuning.space import stored_space

    config, plan, writer = tuning.config, tuning.base.plan, ConsoleWriter(console)
    first, info, seeds = tuning.searches[0].base, plan.dataset_info, tuning.final_runs // len(tuning.searches)
    alike = (
        f"{config.trials} trials each"
        if config.by == "trials"
        else f"equal {config.by}, {config.trials} trials at most"
    )
    writer.line(
        f"{len(tuning.searches)} model{'s' * (len(tuning.searches) != 1)} on {first.dataset.name}, {alike}"
        f" ({config.algorithm} search, seed {config.search_seed}), chosen by {tuning.metric.name} on"
        f" {info.validation:,} validation images; then {seeds} fresh seed{'s' * (seeds != 1)} each on {info.test:,}"
        f" test images. {batches_words(first.images, first.batch)}, on {tuning.base.runner.device}"
    )
    for search in tuning.searches:
        if search.key in tuning.stored:
            writer.line(f"{search.model}: its search is done (tuning.json)")
        elif search.note:
            writer.line(search.note)
    if brief:
        return
    from rich.table import Table  # not for --help

    table = Table("model", "parameters", "searched", box=None, pad_edge=False, header_style="bold")
    for search, run in zip(tuning.searches, plan.runs, strict=True):
        table.add_row(search.model, f"{plan.size(run):,}", space_words(stored_space(search.space)) or "nothing")
    console.print(table)
