"""The command `genbench plot`: from kind and runs to a file. Torch is loaded by the kinds that need models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.completion import complete_metrics_of_runs
from genbench.cli.options import (
    FilePath,
    Whole,
    all_sources_option,
    changed_source_option,
    data_options,
    device_option,
    load_registry,
    plugin_option,
    run_paths,
)
from genbench.interface.context import make_data_config
from genbench.plotting.kinds import FROM_MODELS, FROM_ROWS, FROM_SEARCHES

if TYPE_CHECKING:
    from genbench.analysis.curves import By


@click.command(short_help="Draw a figure of RUNS.")
@click.argument("kind", type=click.Choice([*FROM_MODELS, *FROM_ROWS, *FROM_SEARCHES]), metavar="KIND")
@click.argument("runs", nargs=-1, type=FilePath(), callback=run_paths)
@click.option(
    "--out",
    "target",
    type=FilePath(dir_okay=False),
    metavar="FILE",
    help="The figure: .pdf, .svg or .png. [KIND.pdf]",
)
@click.option("--metric", metavar="METRIC", shell_complete=complete_metrics_of_runs, help="The metric shown.")
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(["images", "seconds", "flops"]),
    help="Unit of compute of curves; repeatable. [images, seconds]",
)
@click.option("--count", type=Whole(2, 32), default=12, show_default=True, metavar="N", help="Images in a row.")
@click.option("--seed", type=Whole(0), default=0, show_default=True, metavar="K", help="Seed of the prior draws.")
@all_sources_option
@device_option
@data_options
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
    all_sources: bool,
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
    reconstructions  test images and their reconstructions
    interpolations   between test images
    grid             a decoded latent plane, 12 x 12 (latent size 2)
    codes            test codes over the prior, and along the worst projection
    ranks            means with intervals, and the ranks that are possible
    curves           a metric against images and seconds (needs --snapshots)
    latent-size      a metric against the latent dimension
    ladder           the FID ladder (needs the metric fid-ladder)
    losses           loss terms against training images, a panel each
    tuning           the expected best validation value against trials (needs genbench tune)
    sensitivity      the validation value against each option (needs genbench tune)
    """
    from genbench.errors import StoreError
    from genbench.plotting.kinds import draw_models, draw_rows, draw_searches, drawable
    from genbench.plotting.style import checked_target, save
    from genbench.reporting.summary import compared_runs
    from genbench.storage.results import rows

    target = checked_target(target or Path(f"{kind}.pdf"))
    if kind in FROM_SEARCHES:
        drawing = draw_searches(kind, runs or (Path("runs"),))
        save(drawing.figure, target)
        click.echo(f"{drawing.caption}: {target}")
        return
    records = compared_runs(runs or (Path("runs"),), all_sources)
    if not records:
        raise StoreError("no run folder could be read")
    if kind in FROM_ROWS:
        drawing = draw_rows(kind, records, rows(records), metric, by or ("images", "seconds"))
    else:
        registry, data_config = (
            load_registry(plugins, allow_changed_source),
            make_data_config(data_root, download=download, skip_corrupt=skip_corrupt),
        )
        usable, problems = drawable(records, registry)
        for problem in problems:
            click.echo(f"genbench: left out: {problem}", err=True)
        drawing = draw_models(kind, usable, registry, data_config, device, seed, count)
    save(drawing.figure, target)
    click.echo(f"{drawing.caption}: {target}")
