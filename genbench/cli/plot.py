"""The command `genbench plot`: from kind and runs to a file. Torch is loaded by the kinds that need models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench.cli.completion import complete_metrics_of_runs
from genbench.cli.options import (
    changed_source_option,
    data_options,
    device_option,
    load_registry,
    make_data_config,
    plugin_option,
    run_paths,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from genbench.analysis.curves import By
    from genbench.api import DataConfig
    from genbench.plotting.style import Drawing
    from genbench.registry.loader import Registry
    from genbench.storage.run_dir import RunRecord

FROM_ROWS = ("ranks", "curves", "latent-size", "ladder")
FROM_MODELS = ("samples", "reconstructions", "interpolations", "grid", "codes")


@click.command(short_help="Draw a figure of RUNS.")
@click.argument("kind", type=click.Choice([*FROM_MODELS, *FROM_ROWS]), metavar="KIND")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), callback=run_paths)
@click.option(
    "--out",
    "target",
    type=click.Path(path_type=Path, dir_okay=False),
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
@click.option(
    "--count", type=click.IntRange(2, 32), default=12, show_default=True, metavar="N", help="Images in a row."
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, metavar="K", help="Seed of the prior draws."
)
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
    """
    from genbench.errors import StoreError
    from genbench.plotting.style import checked_target, save
    from genbench.reporting.summary import readable_runs

    target = checked_target(target or Path(f"{kind}.pdf"))
    records = readable_runs(runs or (Path("runs"),))
    if not records:
        raise StoreError("no run folder could be read")
    if kind in FROM_ROWS:
        drawing = draw_rows(kind, records, metric, by or ("images", "seconds"))
    else:
        registry, data_config = (
            load_registry(plugins, allow_changed_source),
            make_data_config(data_root, download, skip_corrupt),
        )
        drawing = draw_models(kind, records, registry, data_config, device, seed, count)
    save(drawing.figure, target)
    click.echo(f"{drawing.caption}: {target}")


def draw_rows(kind: str, records: Sequence[RunRecord], metric: str | None, by: tuple[By, ...]) -> Drawing:
    """A figure of the numbers of the runs."""
    from genbench.plotting.curves import curves, fid_ladder, latent_size
    from genbench.plotting.ranks import ranks
    from genbench.storage.results import rows

    tidy = rows(records)
    draw: dict[str, Callable[[], Drawing]] = {
        "curves": lambda: curves(tidy, metric, by),
        "latent-size": lambda: latent_size(tidy, metric),
        "ladder": lambda: fid_ladder(tidy),
        "ranks": lambda: ranks(tidy, metric),
    }
    return draw[kind]()


def draw_models(
    kind: str,
    records: Sequence[RunRecord],
    registry: Registry,
    data_config: DataConfig,
    device: str,
    seed: int,
    count: int,
) -> Drawing:
    """A figure that needs the trained models."""
    import torch

    from genbench.plotting.latent import FigureBuilder, trained
    from genbench.utils.torch_state import pick_device

    chosen = pick_device(device)
    with torch.no_grad():
        groups = trained(_with_weights(records), registry, chosen)
        return FigureBuilder(groups, registry, data_config, chosen, seed, count).kinds()[kind]()


def _with_weights(records: Sequence[RunRecord]) -> list[RunRecord]:
    """The runs without those that were imported without weights; `StoreError` where none is left."""
    from genbench.errors import StoreError

    usable, problems = [], []
    for record in records:
        try:
            if record.run.role == "model" and record.state == "trained":
                record.folder.weights()
            usable.append(record)
        except StoreError as error:
            problems.append(str(error))
    if not usable:
        raise StoreError(problems[0])
    for problem in problems:
        click.echo(f"genbench: left out: {problem}", err=True)
    return usable
