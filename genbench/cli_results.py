"""Commands on finished runs. Like `cli`, it imports heavy modules inside the commands."""

from __future__ import annotations

from pathlib import Path

import click

from genbench.arguments import any_source_option, device_option, load_catalogue, out_option, plugin_option, run_folder


@click.command()
@click.argument("run_", metavar="RUN")
@out_option
def show(run_: str, out: Path) -> None:
    """Show one RUN: its options, provenance, state and numbers."""
    from genbench.results import show_run

    show_run(run_folder(run_, out))


@click.command()
@click.argument("run_", metavar="RUN")
@click.option("--count", type=click.IntRange(1, 100_000), default=64, show_default=True, help="How many samples.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the prior draws.")
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="FILE.png",
    help="The picture.",
)
@click.option(
    "--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of the runs."
)
@device_option
@plugin_option
@any_source_option
def sample(
    run_: str,
    count: int,
    seed: int,
    target: Path,
    runs: Path,
    device: str,
    plugins: tuple[Path, ...],
    any_source: bool,
) -> None:
    """Decode prior draws of a trained RUN into a picture."""
    from genbench.results import sample_run

    sample_run(run_folder(run_, runs), load_catalogue(plugins, any_source), count, seed, target, device)


COMMANDS: tuple[click.Command, ...] = (show, sample)
"""What `cli` adds to its own commands, in the order of the help."""
