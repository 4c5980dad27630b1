"""The group of commands on bundles: runs that travel. Like `cli.main`, it imports heavy modules inside the commands."""

from __future__ import annotations

from pathlib import Path

import click

from genbench.cli.options import out_option


@click.group(short_help="Pack trained runs into one file, or import those of someone else.")
def bundle() -> None:
    """Pack trained runs into one file, or import those of someone else."""


@bundle.command(name="export", short_help="Pack trained RUNS into one file.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
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
    count = len({record.name for record in records}) - len(left_out)
    click.echo(f"{count} run{'s' * (count != 1)}, {target.stat().st_size:,} bytes: {target}")


@bundle.command(name="import", short_help="Put the runs of a bundle beside your own.")
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE.tar")
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


COMMANDS: tuple[click.Command, ...] = (bundle,)
