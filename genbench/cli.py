"""The command line. Heavy modules are imported inside the commands: `genbench --help` loads no torch."""

from __future__ import annotations

import os
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genbench import __version__
from genbench.errors import GenbenchError, UsageError, one_line

if TYPE_CHECKING:
    from genbench.api import Place
    from genbench.plugins import Catalogue

DEFAULT_METRICS = ("fid", "reconstruction", "latent-w2", "latent-sw", "sharpness", "speed")
DEFAULT_EPOCHS = 3


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a repeatable option, each value one name or several with commas."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def counts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Whole numbers of at least 1 of a repeatable option, each value one number or several with commas."""
    try:
        numbers = tuple(int(part) for value in values for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{', '.join(values)}: not whole numbers", ctx, param) from None
    if numbers and min(numbers) < 1:
        raise click.BadParameter(f"{min(numbers)}: must be at least 1", ctx, param)
    return numbers


class Group(click.Group):
    """Commands in the order in which they are used; our errors are one line and exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As defined."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a terminal that lacks a sign gets a question mark, not a traceback
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except GenbenchError as error:
            click.echo(f"genbench: {one_line(error, limit=4000)}", err=True)
            ctx.exit(2)
        except BrokenPipeError:  # the reader, `head` say, has seen enough; click leaves quietly
            raise
        except OSError as error:  # a full disk, a folder that may not be written
            where = f" ({error.filename})" if error.filename else ""
            click.echo(f"genbench: {error.strerror or error}{where}; nothing that was written is lost", err=True)
            ctx.exit(2)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="genbench")
def main() -> None:
    """Is your prior, regulariser or decoder better than SWAE, WAE-GAN, WAE-MMD and a VAE, and are you sure?

    \b
    genbench run swae wae-gan wae-mmd vae --seeds 5       train and compare
    genbench report --export reports/mine/                export the tables
    genbench list                                         everything there is
    """


plugin_option = click.option(
    "--plugin", "plugins", multiple=True, type=click.Path(path_type=Path), metavar="FILE", help="Load a plug-in file."
)
set_option = click.option(
    "--set", "settings", multiple=True, metavar="NAME.OPTION=VALUE", help="Set an option, e.g. swae.weight=10."
)
out_option = click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder of the runs."
)
any_source_option = click.option(
    "--any-source", is_flag=True, help="Accept plug-ins whose source has changed since the training."
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i.")


def place_options(command: Any) -> Any:
    """The options that say where data lies."""
    for option in (
        click.option("--skip-corrupt", is_flag=True, help="Leave corrupt images out, and count them."),
        click.option("--download", is_flag=True, help="Allow downloads of datasets and weights."),
        click.option(
            "--data-root",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Where datasets lie. [~/.cache/genbench]",
        ),
    ):
        command = option(command)
    return command


@main.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option("--dataset", default="glyphs", show_default=True, metavar="D", help="The dataset.")
@click.option(
    "--prior", "priors", multiple=True, callback=names, default=("normal",), show_default=True, metavar="P,..."
)
@click.option(
    "--latent-dim", "dims", multiple=True, callback=counts, default=("8",), show_default=True, metavar="N,..."
)
@click.option("--network", default="conv", show_default=True, metavar="NET", help="Encoder and decoder of every model.")
@click.option(
    "--seeds", type=click.IntRange(1, 10_000), default=1, show_default=True, metavar="K", help="Training seeds."
)
@click.option("--epochs", type=click.IntRange(1), metavar="E", help=f"Passes over the training set. [{DEFAULT_EPOCHS}]")
@click.option("--images", type=click.IntRange(1), metavar="N", help="Training images shown, instead of --epochs.")
@click.option("--batch", type=click.IntRange(2), default=128, show_default=True, metavar="B", help="Images in a step.")
@click.option("--metrics", multiple=True, callback=names, default=(",".join(DEFAULT_METRICS),), show_default=True)
@set_option
@device_option
@place_options
@out_option
@plugin_option
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
    settings: tuple[str, ...],
    device: str,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    out: Path,
    plugins: tuple[Path, ...],
    dry_run: bool,
) -> None:
    """Train MODELs on a dataset and compare them in one table.

    The grid of models, priors, latent dimensions and seeds is checked whole before anything trains. What is done is
    skipped, what was interrupted goes on: repeat the command.
    """
    if epochs is not None and images is not None:
        raise UsageError(f"--epochs {epochs} and --images {images}: say how long to train with one of them")
    from genbench.commands import run_study
    from genbench.plan import Grid

    grid = Grid(
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
    )
    catalogue, place = _load(plugins), _place(data_root, download, skip_corrupt)
    sys.exit(run_study(grid, catalogue, place, device, out, dry_run=dry_run))


@main.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "--export", type=click.Path(path_type=Path), metavar="DIR", help="Write csv, json, md, tex and html there."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "csv", "json", "md", "tex"]),
    default="table",
    show_default=True,
    help="csv and json print the tidy rows alone.",
)
@click.option("--sort", metavar="METRIC", help="Rank by this metric. [the first one]")
def report(runs: tuple[Path, ...], export: Path | None, form: str, sort: str | None) -> None:
    """Show and export the comparison of RUNS: run folders, or folders of them. [runs]"""
    from genbench.results import report_runs

    report_runs(runs or (Path("runs"),), export, form, sort)


@main.command(name="list")
@click.argument(
    "kind",
    required=False,
    type=click.Choice(["models", "priors", "networks", "datasets", "metrics", "plugins"]),
)
@plugin_option
def list_(kind: str | None, plugins: tuple[Path, ...]) -> None:
    """Show everything that the plug-ins offer, with options, defaults, meanings and sources."""
    from genbench.listing import show_catalogue

    show_catalogue(_load(plugins), kind)


@main.command()
@click.argument("run_", metavar="RUN")
@out_option
def show(run_: str, out: Path) -> None:
    """Show one RUN: its options, provenance, state and numbers."""
    from genbench.results import show_run

    show_run(_run_folder(run_, out))


@main.command()
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

    sample_run(_run_folder(run_, runs), _load(plugins, any_source), count, seed, target, device)


@main.command()
@click.argument("runs", nargs=-1, type=click.Path(path_type=Path))
@click.option("--metrics", multiple=True, callback=names, required=True, help="The metrics.")
@set_option
@device_option
@place_options
@plugin_option
@any_source_option
def measure(
    runs: tuple[Path, ...],
    metrics: tuple[str, ...],
    settings: tuple[str, ...],
    device: str,
    data_root: Path | None,
    download: bool,
    skip_corrupt: bool,
    plugins: tuple[Path, ...],
    any_source: bool,
) -> None:
    """Measure trained RUNS anew or by further metrics; nothing is trained. [runs]"""
    from genbench.commands import measure_runs

    catalogue, place = _load(plugins, any_source), _place(data_root, download, skip_corrupt)
    sys.exit(measure_runs(runs or (Path("runs"),), catalogue, place, device, metrics, settings))


# ---------------------------------------------------------------- shared by the commands


def _load(files: tuple[Path, ...], any_source: bool = False) -> Catalogue:
    """The catalogue; broken plug-ins cost one line on stderr each."""
    from genbench.plugins import load

    catalogue = load(files)
    catalogue.any_source = any_source
    for plugin in catalogue.broken:
        click.echo(f"genbench: plug-in '{plugin.name}' of {plugin.origin} is broken: {plugin.cause}", err=True)
    return catalogue


def _place(data_root: Path | None, download: bool, skip_corrupt: bool) -> Place:
    from genbench.api import Place

    home = Path(os.environ.get("GENBENCH_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "genbench")
    cache = home.expanduser()
    if data_root is not None and not data_root.is_dir() and not download:
        raise UsageError(f"--data-root {data_root}: there is no such folder")
    return Place(
        data_root=data_root or cache / "data",
        cache=cache,
        download=download,
        skip_corrupt=skip_corrupt,
        workers=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
    )


def _run_folder(name: str, out: Path) -> Path:
    """A run's folder from its path, its name, or the beginning of its name where that is unique."""
    from genbench.errors import unknown

    if (Path(name) / "run.json").exists():
        return Path(name)
    names = [path.parent.name for path in out.glob("*/run.json")]
    matching = [candidate for candidate in names if candidate == name] or [c for c in names if c.startswith(name)]
    if len(matching) == 1:
        return out / matching[0]
    if matching:
        raise UsageError(f"'{name}' fits {len(matching)} runs in {out}: {', '.join(sorted(matching)[:4])}")
    raise unknown(f"run in {out} called", name, names)
