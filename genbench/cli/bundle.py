"""The commands on bundles: runs that travel. Like `cli`, it imports heavy modules inside the commands."""

from __future__ import annotations

from pathlib import Path

import click

from genbench.cli.options import out_option


@click.command(name="export-bundle", short_help="Pack trained RUNS into one file.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.zip",
    help="The bundle.",
)
@click.option("--no-weights", is_flag=True, help="Numbers and pictures alone; no further metric can be measured.")
def export_bundle(runs: tuple[Path, ...], target: Path, no_weights: bool) -> None:
    """Pack trained RUNS, run folders or folders of them, into one file for someone else's table."""
    from genbench.errors import UsageError
    from genbench.storage.bundle import export_bundle
    from genbench.storage.run_dir import find

    if target.suffix.lower() != ".zip":
        raise UsageError(f"--out {target}: a bundle is a zip; name a file that ends in .zip")
    folders = find(runs)
    left = export_bundle(folders, target, weights=not no_weights)
    for name in left:
        click.echo(f"genbench: left out, not trained: {name}", err=True)
    count = len({folder.name for folder in folders}) - len(left)
    click.echo(f"{count} run{'s' * (count != 1)}, {target.stat().st_size:,} bytes: {target}")


@click.command(name="import-bundle", short_help="Put the runs of a bundle beside your own.")
@click.argument("bundle", type=click.Path(path_type=Path), metavar="FILE.zip")
@out_option
def import_bundle(bundle: Path, out: Path) -> None:
    """Put the runs of a bundle beside your own: the command that trained them then skips them.

    Nothing in a bundle is executed. All of its runs are taken, or none; a run of yours is never overwritten.
    """
    from genbench.storage.bundle import import_bundle

    done = import_bundle(bundle, out)
    for name in done.same:
        click.echo(f"the same is there already: {name}")
    for name in done.new:
        click.echo(f"imported: {name}")
    click.echo(f"{len(done.new)} imported into {out}/, {len(done.same)} skipped")


COMMANDS: tuple[click.Command, ...] = (export_bundle, import_bundle)
