"""Commands on finished runs. Like `cli`, it imports heavy modules inside the commands."""

from __future__ import annotations

from pathlib import Path

import click

from genbench.cli.finite import Finite
from genbench.cli.options import (
    changed_source_option,
    counts,
    device_option,
    load_registry,
    out_option,
    plugin_option,
    run_folder,
)


@click.command()
@click.argument("run_", metavar="RUN")
@out_option
def show(run_: str, out: Path) -> None:
    """Show one RUN: its options, provenance, state and numbers."""
    from genbench.reporting.summary import show_run

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
@changed_source_option
def sample(
    run_: str,
    count: int,
    seed: int,
    target: Path,
    runs: Path,
    device: str,
    plugins: tuple[Path, ...],
    allow_changed_source: bool,
) -> None:
    """Decode prior draws of a trained RUN into a picture."""
    from genbench.reporting.summary import sample_run

    sample_run(run_folder(run_, runs), load_registry(plugins, allow_changed_source), count, seed, target, device)


form_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print.",
)


@click.command(short_help="Compare groups A and B, paired by training seed.")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--metric", metavar="M", help="One metric, as report names it. [all that have a better direction]")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="The runs.")
@form_option
def compare(a: str, b: str, metric: str | None, runs: Path, form: str) -> None:
    """Compare two groups A and B of the table, paired by training seed.

    A and B are labels of the table, models that one group has, or names of runs. Prints the mean difference with its
    interval, a p-value, an effect size, a verdict, and how many more seeds would settle what is undecided.
    """
    from genbench.cli.compare import show_comparison

    show_comparison((runs,), a, b, metric, form)


@click.command(short_help="What numbers of seeds could show, by a PILOT.")
@click.argument("pilot", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--metric", default="fid", show_default=True, metavar="M", help="The metric, as report names it.")
@click.option("--difference", type=Finite(0, min_open=True), metavar="X", help="A difference to be found.")
@click.option(
    "--seeds", multiple=True, callback=counts, default=("3,5,10",), show_default=True, metavar="K,...", help="Seeds."
)
@form_option
def power(pilot: tuple[Path, ...], metric: str, difference: float | None, seeds: tuple[int, ...], form: str) -> None:
    """What numbers of seeds could show, by the runs of a PILOT: before anything else is trained."""
    from genbench.cli.compare import show_power

    show_power(pilot, metric, difference, seeds, form)


COMMANDS: tuple[click.Command, ...] = (compare, power, show, sample)
"""What `cli` adds to its own commands, in the order of the help."""
