"""The command line. Heavy modules are imported inside the commands: `genbench --help` loads no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from genbench import __version__
from genbench.cli import inspect, store
from genbench.cli import plugins as authoring
from genbench.cli.completion import complete_names
from genbench.cli.executors import executor_options, read_executor_config
from genbench.cli.options import (
    CommandGroup,
    changed_source_option,
    controls_option,
    counts,
    data_options,
    device_option,
    installed_names,
    left_at_defaults,
    load_registry,
    make_data_config,
    names,
    out_option,
    plugin_option,
    run_paths,
    sampler_option,
    set_option,
    snapshot_options,
    threads_option,
)
from genbench.cli.plot import plot
from genbench.cli.reproduce import reproduce
from genbench.errors import UsageError

if TYPE_CHECKING:
    from genbench.experiment.run import Precision

DEFAULT_METRICS = ("fid", "reconstruction", "latent-w2", "latent-sw", "nearest-train", "sharpness", "speed")
DEFAULT_EPOCHS = 3


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="genbench")
def main() -> None:
    """Is your prior, regulariser or decoder better than SWAE, WAE-GAN, WAE-MMD and a VAE, and are you sure?

    \b
    genbench run swae wae-gan wae-mmd vae --seeds 5       train and compare
    genbench report --export reports/mine/                export the tables
    genbench list                                         everything there is
    """


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_names("model"))
@click.option(
    "--dataset",
    default="glyphs",
    show_default=True,
    metavar="D",
    shell_complete=complete_names("dataset"),
    help="The dataset.",
)
@click.option(
    "--prior",
    "priors",
    multiple=True,
    callback=names,
    default=("normal",),
    show_default=True,
    help="Priors of the codes.",
    shell_complete=complete_names("prior"),
    metavar="P,...",
)
@click.option(
    "--latent-dim",
    "dims",
    multiple=True,
    callback=counts,
    default=("8",),
    show_default=True,
    help="Dimensions of the codes.",
    metavar="N,...",
)
@click.option(
    "--network",
    default="conv",
    show_default=True,
    metavar="NET",
    shell_complete=complete_names("network"),
    help="Encoder and decoder of every model.",
)
@click.option(
    "--seeds", type=click.IntRange(1, 10_000), default=1, show_default=True, metavar="K", help="Training seeds."
)
@click.option("--epochs", type=click.IntRange(1), metavar="E", help=f"Passes over the training set. [{DEFAULT_EPOCHS}]")
@click.option("--images", type=click.IntRange(1), metavar="N", help="Training images shown, instead of --epochs.")
@click.option("--batch", type=click.IntRange(2), default=128, show_default=True, metavar="B", help="Images per step.")
@click.option(
    "--metrics",
    multiple=True,
    callback=names,
    default=(",".join(DEFAULT_METRICS),),
    show_default=True,
    metavar="M,...",
    shell_complete=complete_names("metric"),
    help="The metrics; the first one ranks.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "tf32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Arithmetic of the training; losses and measurements stay in float32. tf32 needs a GPU.",
)
@snapshot_options
@sampler_option
@controls_option
@set_option
@device_option
@threads_option
@executor_options
@data_options
@out_option
@plugin_option
@click.option(
    "--skip-impossible",
    is_flag=True,
    help="Leave out the combinations of the grid that have no meaning, and say which and why.",
)
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
def run(
    models: tuple[str, ...],
    dataset: str,
    priors: tuple[str, ...],
    dims: tuple[int, ...],
    network: str,
    seeds: int,
    epochs: int | None,
    images: int | None,
    batch: int,
    metrics: tuple[str, ...],
    precision: Precision,
    snapshots: int,
    snapshot_metrics: tuple[str, ...],
    select: str | None,
    samplers: tuple[str, ...],
    controls: tuple[str, ...],
    settings: tuple[str, ...],
    device: str,
    threads: int | None,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    out: Path,
    plugins: tuple[Path, ...],
    skip_impossible: bool,
    dry_run: bool,
) -> None:
    """Train MODELs on a dataset and compare them in one table.

    The grid of models, priors, latent dimensions and seeds is checked before anything trains. Runs that are done are
    skipped, interrupted ones are resumed: re-run the same command.
    """
    if epochs is not None and images is not None:
        raise UsageError(f"--epochs {epochs} and --images {images}: give one of them")
    from genbench.experiment.config import ExperimentConfig, check_config

    config = ExperimentConfig(
        models=tuple(name for model in models for name in model.split(",") if name),
        dataset=dataset,
        priors=priors,
        latent_dims=dims,
        network=network,
        seeds=tuple(range(seeds)),
        batch=batch,
        metrics=metrics,
        epochs=None if images is not None else epochs or DEFAULT_EPOCHS,
        images=images,
        settings=settings,
        snapshots=snapshots,
        snapshot_metrics=snapshot_metrics,
        select=select,
        samplers=samplers,
        controls=controls,
        precision=precision,
        threads=threads,
        skip_impossible=skip_impossible,
        defaulted=frozenset({"options", *left_at_defaults("batch", "metrics")}),
    )
    executor = read_executor_config()
    if installed := installed_names(plugins):
        check_config(config, installed)
    from genbench.cli.run import run_study

    registry, data_config = load_registry(plugins), make_data_config(data_root, download, skip_corrupt)
    sys.exit(run_study(config, registry, data_config, device, out, dry_run=dry_run, executor_config=executor))


@main.command(short_help="Evaluate trained RUNS by further metrics.")
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path), callback=run_paths)
@click.option(
    "--metrics",
    multiple=True,
    callback=names,
    required=True,
    metavar="M,...",
    shell_complete=complete_names("metric"),
    help="The metrics.",
)
@sampler_option
@set_option
@device_option
@executor_options
@data_options
@plugin_option
@changed_source_option
def evaluate(
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    samplers: tuple[str, ...],
    settings: tuple[str, ...],
    device: str,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    plugins: tuple[Path, ...],
    allow_changed_source: bool,
) -> None:
    """Evaluate trained RUNS anew or by further metrics; nothing is trained. [runs]"""
    from genbench.experiment.config import check_metrics

    executor = read_executor_config()
    if installed := installed_names(plugins):
        check_metrics(metrics, samplers, settings, installed)
    from genbench.cli.run import measure_runs

    registry = load_registry(plugins, allow_changed_source)
    data_config = make_data_config(data_root, download, skip_corrupt)
    sys.exit(
        measure_runs(runs or (Path("runs"),), registry, data_config, device, metrics, settings, executor, samplers)
    )


for command in (reproduce, *inspect.COMMANDS, plot, *store.COMMANDS, *authoring.COMMANDS):
    main.add_command(command)
