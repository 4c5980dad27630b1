"""The commands for authors of plug-ins. No torch at import."""

from __future__ import annotations

from pathlib import Path

import click

from genbench.arguments import catalogue_index
from genbench.authoring import TRY, check_name, next_steps, write_plugin


@click.command()
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
def new(kind: str, name: str, package: bool, to: Path) -> None:
    """Write a plug-in of a KIND called NAME that works as it stands; the contract is in its comments."""
    check_name(kind, name, {offer.name for offer in catalogue_index().offers.get(kind, ())})
    for path in write_plugin(kind, name, to, package=package):
        click.echo(f"wrote {path}")
    click.echo("next:")
    for command in next_steps(kind, name, to, package=package):
        click.echo(f"  {command}")


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes genbench's commands, names and options on TAB."""
    from genbench.completing import script

    click.echo(script(shell))


COMMANDS = (new, completion)
