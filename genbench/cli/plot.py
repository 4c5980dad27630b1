"""The command `genbench plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.completion import complete_metrics_of_runs
from genbench.cli.options import (
    changed_source_option,
    device_option,
    load_registry,
    make_place,
    place_options,
    plugin_option,
)

if TYPE_CHECKING:
    from genbench.analysis.curves import By

FROM_NUMBERS = ("ranks", "curves", "latent-size", "ladder")
FROM_MODELS = ("samples", "reconstructions", "interpolations", "grid", "codes")


@click.command(short_help="Draw a figure of RUNS.")
@click.argument("kind", type=click.Choice([*FROM_MODELS, *FROM_NUMBERS]), metavar="KIND")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The figure: .pdf, .svg or .png. [KIND.pdf]",
)
@click.option("--metric", metavar="METRIC", shell_complete=complete_metrics_of_runs, help="The metric shown.")
@click.option(
    "--by", multiple=True, type=click.Choice(["images", "seconds", "flops"]), help="Of curves. [images and seconds]"
)
@click.option("--count", type=click.IntRange(2, 32), default=12, show_default=True, help="Images in a row.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the prior draws.")
@device_option
@place_options
@plugin_option
@changed_source_option
def plot(
    kind: str,
    runs: tuple[Path, ...],
    target: Path | None,
    metric: str | None,
    by: tuple[By, ...],
    count: int,
    seed: int,
    device: str,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    plugins: tuple[Path, ...],
    allow_changed_source: bool,
) -> None:
    """Draw a figure of RUNS: run folders, or folders of them. [runs] KINDs:

    \b
    samples          samples of all models, the same prior draws in a column
    reconstructions  test images and what the models make of them
    interpolations   between test images
    grid             a decoded latent plane, 25 x 25 (latent size 2)
    codes            test codes over the prior, and along the worst projection
    ranks            means with intervals, and the ranks that are possible
    curves           a metric against images and seconds (needs --snapshots)
    latent-size      a metric against the latent dimension
    ladder           the FID ladder (needs the metric fid-ladder)
    """
    from genbench.plotting.plot import Choices, plot_models, plot_rows

    places, out = runs or (Path("runs"),), target or Path(f"{kind}.pdf")
    chosen = Choices(metric, by, seed, count)
    if kind in FROM_NUMBERS:
        plot_rows(kind, places, out, chosen)
        return
    registry, place = load_registry(plugins, allow_changed_source), make_place(data_root, download, skip_corrupt)
    plot_models(kind, places, out, chosen, registry, place, device)
