"""The command line. Heavy modules are imported inside the commands: `genbench --help` loads no torch."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from genbench import __version__
from genbench.cli import inspect, store
from genbench.cli import plugins as authoring
from genbench.cli.completion import complete_names
from genbench.cli.options import (
    CommandGroup,
    FilePath,
    Whole,
    changed_source_option,
    controls_option,
    data_options,
    device_option,
    ensemble_option,
    form_option,
    installed_names,
    load_registry,
    names,
    out_option,
    piece_option,
    plugin_option,
    run_paths,
    sampler_option,
    set_option,
    snapshot_options,
    study_option,
    threads_option,
    tracker_option,
)
from genbench.cli.plot import plot
from genbench.cli.reproduce import reproduce
from genbench.cli.study import config as config_command
from genbench.cli.study import executor_options, read_executor_config, read_study_flags
from genbench.cli.tune import tune
from genbench.errors import UsageError
from genbench.experiment.config import check_config, check_metrics
from genbench.interface.config import DEFAULT_EPOCHS, lower_case
from genbench.interface.context import make_data_config


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
@click.argument("models", nargs=-1, metavar="[STUDY.toml] [MODEL...]", shell_complete=complete_names("model"))
@study_option("dataset", metavar="D", complete="dataset", help="The dataset.")
@study_option("priors", "--prior", metavar="P,...", complete="prior", help="Priors of the codes.")
@study_option("latent_dims", "--latent-dim", metavar="N,...", help="Dimensions of the codes.")
@study_option("network", metavar="NET", complete="network", help="Encoder and decoder of every model.")
@study_option("seeds", metavar="K", help="Training seeds.")
@study_option("epochs", metavar="E", help=f"Passes over the training set. [{DEFAULT_EPOCHS}]")
@study_option("images", metavar="N", help="Training images shown, instead of --epochs.")
@study_option("batch", metavar="B", help="Images per step.")
@study_option("metrics", metavar="M,...", complete="metric", help="The metrics; the first one ranks.")
@study_option(
    "precision", help="Arithmetic of the training; losses and measurements stay in float32. tf32 needs a GPU."
)
@snapshot_options
@sampler_option
@controls_option
@tracker_option
@set_option("a component, e.g. swae.weight=10; repeatable. Of several values, 1,10, each is a row.")
@device_option
@threads_option
@ensemble_option
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
@click.option(
    "--write",
    type=FilePath(dir_okay=False),
    metavar="FILE.toml",
    help="Write the study to a file, which `genbench run FILE.toml` runs.",
)
@form_option
def run(models: tuple[str, ...], dry_run: bool, write: Path | None, form: str, **flags: Any) -> None:
    """Train MODELs on a dataset and compare them in one table.

    The grid of models, priors, latent dimensions, options and seeds is checked before anything trains. Runs that are
    done are skipped, interrupted ones are resumed: re-run the same command. A study can also be a file; flags override
    what the file says.
    """
    if not models:
        hint = "; a word after --controls is its value: put the models first, or write --controls=all"
        raise click.UsageError(f"Missing MODEL or STUDY.toml{hint if flags['controls'] else ''}")
    if form == "json" and not dry_run:
        raise UsageError("--format json prints the plan: add --dry-run")
    study = read_study_flags(models, flags)
    files, config = study.plugin_files, study.experiment()
    study.executor_config()
    if installed := installed_names(files):
        check_config(config, installed)
    from genbench.cli.run import run_study

    sys.exit(run_study(study, load_registry(files), dry_run=dry_run, write=write, form=form))


@main.command(short_help="Evaluate trained RUNS by further metrics.")
@click.argument("runs", nargs=-1, type=FilePath(), callback=run_paths)
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
@set_option("a metric or sampler, e.g. fid.count=5000; repeatable. Of several values, each is a column.")
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
    executor = read_executor_config()
    metrics, samplers = lower_case(metrics), lower_case(samplers)
    if installed := installed_names(plugins):
        check_metrics(metrics, samplers, settings, installed)
    from genbench.cli.run import measure_runs

    registry = load_registry(plugins, allow_changed_source)
    check_metrics(metrics, samplers, settings, registry)
    data_config = make_data_config(data_root, download=download, skip_corrupt=skip_corrupt)
    sys.exit(
        measure_runs(runs or (Path("runs"),), registry, data_config, device, metrics, settings, executor, samplers)
    )


@main.command(short_help="Measure samples of a model that was trained elsewhere.")
@click.argument("name")
@piece_option("samples", "Samples: a folder or zip archive of pictures, or an .npz, .npy or .safetensors file.")
@piece_option("reconstructions", "The same of all test images, in the dataset's order.")
@piece_option("codes", "Codes of test images, (n, d), in an .npz, .npy or .safetensors file.")
@click.option(
    "--dataset", required=True, metavar="D", shell_complete=complete_names("dataset"), help="The dataset of the model."
)
@click.option(
    "--prior",
    default="normal",
    show_default=True,
    metavar="P",
    shell_complete=complete_names("prior"),
    help="The prior that --codes are compared with.",
)
@click.option("--seed", type=Whole(0), default=0, show_default=True, metavar="K", help="The model's training seed.")
@study_option("metrics", metavar="M,...", complete="metric", help="The metrics; the first one ranks.")
@set_option("a metric or of the prior, e.g. fid.count=5000; repeatable. Of several values, each is a column.")
@device_option
@data_options
@out_option
@plugin_option
def score(
    metrics: tuple[str, ...],
    plugins: tuple[Path, ...],
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    **given: Any,
) -> None:
    """Measure the results of a model NAME that was trained elsewhere; its row is marked so, and ranked like any other.

    Call it once for each training seed. Metrics that need what is not given are not applicable. Other files under the
    same name and seed are another run, and take the place of the earlier one in reports: `genbench docs external`.
    """
    from genbench.cli.run import score_results
    from genbench.interface.score import ScoreConfig

    config = ScoreConfig(**{**given, "metrics": lower_case(metrics)})
    data_config = make_data_config(data_root, download=download, skip_corrupt=skip_corrupt)
    sys.exit(score_results(config, load_registry(plugins), data_config))


for command in (tune, reproduce, config_command, *inspect.COMMANDS, plot, *store.COMMANDS, *authoring.COMMANDS):
    main.add_command(command)
