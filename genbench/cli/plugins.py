"""The commands for authors of plug-ins. No torch at import."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

import click

from genbench.cli.options import load_listing, load_registry, plugin_option
from genbench.registry.listing import Kind
from genbench.registry.scaffold import TRY, check_name, next_steps, write_plugin


@click.command(short_help="Write a plug-in of a KIND that works as it stands.")
@click.argument("kind", type=click.Choice(list(TRY)))
@click.argument("name")
@click.option("--package", is_flag=True, help="Write a whole distribution, with a test, instead of one file.")
@click.option(
    "--to",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    metavar="DIR",
    help="Where to write it. [here]",
)
def new(kind: Kind, name: str, package: bool, to: Path) -> None:
    """Write a plug-in of a KIND called NAME that works as it stands; the contract is in its comments."""
    check_name(kind, name, load_listing(()).names(kind))
    for path in write_plugin(kind, name, to, package=package):
        click.echo(f"wrote {path}")
    click.echo("next:")
    for command in next_steps(kind, name, to, package=package):
        click.echo(f"  {command}")


@click.command(short_help="Print the script that completes on TAB in SHELL.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes genbench's commands, names and options on TAB."""
    from genbench.cli.completion import script

    click.echo(script(shell))


@click.command(short_help="Check plug-ins against the contract.")
@click.argument("names_", nargs=-1, metavar="[NAME]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print.",
)
@plugin_option
def check(names_: tuple[str, ...], form: Literal["table", "json"], plugins: tuple[Path, ...]) -> None:
    """Check NAMEs, all of each --plugin, or everything against the contract; exit status 1 where something fails."""
    from genbench.cli.checking import show_checks

    sys.exit(show_checks(load_registry(plugins), names_, plugins, form))


COMMANDS = (new, check, completion)
