"""The command `genbench reproduce`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from genbench.cli.completion import complete_names
from genbench.cli.engines import chosen_engine, engine_options
from genbench.cli.finite import Finite
from genbench.cli.options import (
    device_option,
    installed_names,
    load_registry,
    make_place,
    names,
    out_option,
    place_options,
    plugin_option,
    set_option,
)


@click.command(short_help="Run a paper's RECIPE beside its published numbers.")
@click.argument("name", metavar="RECIPE", shell_complete=complete_names("recipe"))
@click.option("--cells", multiple=True, callback=names, metavar="C,...", help="These parts of the recipe. [all]")
@click.option("--models", multiple=True, callback=names, metavar="M,...", help="These models of the cells. [all]")
@click.option(
    "--budget",
    type=Finite(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    metavar="F",
    help="Fraction of each run's images, or of an experiment's repeats; marked in the table.",
)
@click.option("--seeds", type=click.IntRange(1, 10_000), metavar="K", help="Training seeds, instead of the recipe's.")
@click.option(
    "--export",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the table and the study there.",
)
@set_option
@device_option
@place_options
@out_option
@engine_options
@plugin_option
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
def reproduce(
    name: str,
    cells: tuple[str, ...],
    models: tuple[str, ...],
    budget: float,
    seeds: int | None,
    export: Path | None,
    settings: tuple[str, ...],
    device: str,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    out: Path,
    plugins: tuple[Path, ...],
    dry_run: bool,
) -> None:
    """Run a paper's RECIPE and put published numbers and ours side by side.

    All its cells are planned before anything trains; the runs are ordinary ones in --out, skipped where they are done.
    """
    if installed := installed_names(plugins):
        installed.get("recipe", name)
    from genbench.cli.reproduction import RecipeOverrides
    from genbench.cli.reproduction import reproduce as carry_out

    registry, place = load_registry(plugins), make_place(data_root, download, skip_corrupt)
    wish, engine = RecipeOverrides(cells, models, budget, seeds, settings), chosen_engine()
    sys.exit(carry_out(name, wish, registry, place, device, out, export, dry_run=dry_run, engine=engine))
