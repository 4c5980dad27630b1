"""The commands on folders of runs: list, remove, pack, publish. Heavy modules are imported inside them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.options import (
    FilePath,
    Whole,
    changed_source_option,
    data_options,
    device_option,
    load_registry,
    out_option,
    plugin_option,
    run_folder,
    run_paths,
    runs_option,
)
from genbench.errors import UsageError

if TYPE_CHECKING:
    from genbench.storage.inventory import ListedRun

yes_option = click.option("--yes", is_flag=True, help="Do not ask.")

# ---------------------------------------------------------------- list and remove


def list_runs(paths: Sequence[Path], form: str) -> None:
    """Print the runs at or below the paths with their states."""
    from rich.console import Console

    from genbench.reporting.run_list import render_runs
    from genbench.storage.inventory import list_runs
    from genbench.storage.run_dir import find_runs

    listed = list_runs(find_runs(paths))
    if form == "json":
        click.echo(json.dumps([entry.plain() for entry in listed], indent=1))
    else:
        render_runs(Console(), listed)


@click.command(short_help="Remove RUNs.")
@click.argument("names_", metavar="RUN...", nargs=-1, required=True)
@runs_option
@yes_option
def rm(names_: tuple[str, ...], runs: Path, yes: bool) -> None:
    """Remove RUNs, named by path, name, or the beginning of the name; asks first. A run at work is never removed."""
    from genbench.storage.inventory import list_runs

    remove(list_runs(dict.fromkeys(run_folder(name, runs) for name in names_)), yes)


@click.command(short_help="Remove the runs of older plug-in sources, or trials.")
@click.argument("runs", nargs=-1, type=FilePath(), callback=run_paths)
@click.option("--trials", is_flag=True, help="The trials of finished searches instead.")
@yes_option
@plugin_option
def prune(runs: tuple[Path, ...], trials: bool, yes: bool, plugins: tuple[Path, ...]) -> None:
    """Remove the runs among RUNS whose plug-ins have another source now; asks first. [runs]

    Such runs stand apart in every table. Runs of plug-ins that are not loaded are kept: name their files by --plugin.
    Trials are not needed once their search is done: tuning.json keeps their options and values.
    """
    from genbench.storage.inventory import changed_components, finished_trials, list_runs
    from genbench.storage.run_dir import find_runs

    listed = list_runs(find_runs(runs or (Path("runs"),)))
    if trials:
        finished = finished_trials(listed)
        if not finished:
            click.echo(f"nothing to remove: none of {len(listed)} runs is a trial of a finished search")
            return
        remove(finished, yes)
        return
    registry = load_registry(plugins)
    outdated = [entry for entry in listed if entry.run is not None and changed_components(entry.run, registry)]
    if not outdated:
        click.echo(f"nothing to remove: no run of {len(listed)} is of an older source")
        return
    remove(outdated, yes, lambda entry: ", ".join(changed_components(entry.run, registry)) if entry.run else "")


def remove(listed: Sequence[ListedRun], yes: bool, reason: Callable[[ListedRun], str] | None = None) -> None:
    """Show the runs, ask, and remove those that no process works on; exit status 1 where one is left."""
    from genbench.reporting.run_list import in_bytes
    from genbench.storage.inventory import remove_run
    from genbench.storage.lock import RunLockedError

    for entry in listed:
        why = "" if reason is None else reason(entry)
        facts = f"{entry.state}, {in_bytes(entry.size)}" + (f", changed since: {why}" if why else "")
        click.echo(f"{entry.path}  ({facts})")
    several = f"{len(listed)} run{'s' * (len(listed) != 1)}, {in_bytes(sum(entry.size for entry in listed))}"
    try:
        agreed = yes or click.confirm(f"Remove {several}?")
    except click.Abort:  # nobody answers
        raise UsageError("nothing was removed: to remove without being asked, add --yes") from None
    if not agreed:
        click.echo("nothing was removed")
        return
    kept = 0
    for entry in listed:
        try:
            remove_run(entry.path)
        except RunLockedError:
            kept += 1
            click.echo(f"genbench: {entry.path} is kept: a process works on it; stop that process first", err=True)
    click.echo(f"removed {len(listed) - kept} run{'s' * (len(listed) - kept != 1)}")
    if kept:
        click.get_current_context().exit(1)


# ---------------------------------------------------------------- bundles


@click.group(short_help="Pack trained runs into one file, or import those of someone else.")
def bundle() -> None:
    """Pack trained runs into one file, or import those of someone else."""


@bundle.command(name="export", short_help="Pack trained RUNS into one file.")
@click.argument("runs", nargs=-1, required=True, type=FilePath(), callback=run_paths)
@click.option(
    "--out",
    "target",
    type=FilePath(dir_okay=False),
    required=True,
    metavar="FILE.tar",
    help="The bundle to write.",
)
@click.option("--no-weights", is_flag=True, help="Pack numbers and pictures alone; no further metric can be measured.")
def bundle_export(runs: tuple[Path, ...], target: Path, no_weights: bool) -> None:
    """Pack trained RUNS, run folders or folders of them, into one file for someone else's table."""
    from genbench.errors import StoreError, UsageError
    from genbench.storage.bundle import export_bundle
    from genbench.storage.run_dir import find_runs, read_runs

    if target.suffix.lower() != ".tar":
        raise UsageError(f"--out {target}: a bundle is a tar; name a file that ends in .tar")
    records, problems = read_runs(find_runs(runs))
    if problems:
        raise StoreError(problems[0])
    left_out = export_bundle(records, target, weights=not no_weights)
    for name in left_out:
        click.echo(f"genbench: left out, not trained: {name}", err=True)
    trials = len({record.name for record in records if record.run.role == "trial"})
    if trials:
        words = "trials of searches are no results; their options and values travel with the choices"
        click.echo(f"genbench: left out: {trials} {words}", err=True)
    count = len({record.name for record in records}) - len(left_out) - trials
    click.echo(f"{count} run{'s' * (count != 1)}, {target.stat().st_size:,} bytes: {target}")


@bundle.command(name="import", short_help="Put the runs of a bundle beside your own.")
@click.argument("file", type=FilePath(), metavar="FILE.tar")
@out_option
def bundle_import(file: Path, out: Path) -> None:
    """Put the runs of a bundle beside your own: the command that trained them then skips them.

    Nothing in a bundle is executed. All of its runs are taken, or none; a run of yours is never overwritten.
    """
    from genbench.storage.bundle import import_bundle

    done = import_bundle(file, out)
    for name in done.same:
        click.echo(f"the same is there already: {name}")
    for name in done.new:
        click.echo(f"imported: {name}")
    click.echo(f"{len(done.new)} imported into {out}/, {len(done.same)} skipped")


# ---------------------------------------------------------------- leaderboards


@click.command(short_help="Make a static leaderboard of several people's BUNDLES.")
@click.argument("bundles", nargs=-1, required=True, type=FilePath(), metavar="BUNDLE...")
@click.option(
    "--out",
    "target",
    type=FilePath(file_okay=False),
    required=True,
    metavar="DIR",
    help="The folder to write; an earlier site is replaced.",
)
@click.option("--title", default="", metavar="TEXT", help="Title of the index. [Leaderboard]")
@click.option(
    "--verify",
    type=Whole(0, 100_000),
    default=0,
    show_default=True,
    metavar="N",
    help="Measure N runs of each bundle anew from their weights, and refuse a bundle with other numbers.",
)
@device_option
@data_options
@plugin_option
@changed_source_option
def site(
    bundles: tuple[Path, ...],
    target: Path,
    title: str,
    verify: int,
    device: str,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    plugins: tuple[Path, ...],
    allow_changed_source: bool,
) -> None:
    """Make a static leaderboard of several people's BUNDLES: a page for each dataset and protocol.

    A bundle's file says whose it is: ann.tar is ann's. Every number is computed anew from the runs; a bundle whose
    records contradict each other is refused, and then nothing is written.
    """
    from genbench.errors import printable
    from genbench.reporting.site.folder import write_site

    check = None
    if verify:
        from genbench.interface.context import make_data_config
        from genbench.interface.recheck import remeasured

        registry = load_registry(plugins, allow_changed_source)
        data_config = make_data_config(data_root, download=download, skip_corrupt=skip_corrupt)
        check = partial(remeasured, count=verify, registry=registry, data_config=data_config, device=device, warn=_warn)
    pages, lines = write_site(target, bundles, title=printable(title), check=check)
    for line in lines:
        _warn(line)
    boards, packed = len(pages) - 1, len(bundles)
    click.echo(
        f"{boards} leaderboard{'s' * (boards != 1)} of {packed} bundle{'s' * (packed != 1)}: {target / pages[0]}"
    )


def _warn(text: str) -> None:
    click.echo(f"genbench: {text}", err=True)


COMMANDS: tuple[click.Command, ...] = (rm, prune, bundle, site)
