"""Options and argument types that commands share, and how errors are printed. No torch."""

from __future__ import annotations

import math
import sys
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from genbench.cli.completion import DISABLED, complete_names, complete_plugins, complete_settings
from genbench.errors import GenbenchError, UsageError, one_line
from genbench.registry.cache import cache_folder, cache_listing, cached_listing, get_listing

if TYPE_CHECKING:
    from genbench.api import DataConfig
    from genbench.registry.listing import ComponentNames, Listing
    from genbench.registry.loader import Registry


class Finite(click.FloatRange):
    """A number within bounds; click itself takes "nan" and "inf", which every comparison with a bound lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number:g} is not a finite number", param, ctx)
        return number


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


SECTIONS = {
    "Train and evaluate": ("run", "reproduce", "evaluate"),
    "Look at runs": ("report", "curves", "plot", "show", "sample", "paper", "cite"),
    "Compare": ("compare", "power", "diff"),
    "Manage runs": ("rm", "prune", "bundle"),
    "Plug-ins": ("list", "new", "check", "docs", "completion"),
}
"""The commands as `genbench --help` groups them; each once."""


class CommandGroup(click.Group):
    """Commands in the order in which they are used; our errors are one line and exit status 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of the help; a command without a section is last."""
        placed = [name for section in SECTIONS.values() for name in section]
        return [name for name in placed if name in self.commands] + [n for n in self.commands if n not in placed]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A list for each section."""
        names, placed = self.list_commands(ctx), {name for section in SECTIONS.values() for name in section}
        further = {"Further commands": tuple(name for name in names if name not in placed)}
        limit = formatter.width - 6 - max(map(len, names))
        for title, section in (SECTIONS | further).items():
            rows = [(name, self.commands[name].get_short_help_str(limit)) for name in section if name in names]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows, col_spacing=2 + max(map(len, names)) - max(len(n) for n, _ in rows))

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a terminal that lacks a sign gets a question mark, not a traceback
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except GenbenchError as error:
            click.echo(f"genbench: {one_line(error, limit=4000)}", err=True)
            ctx.exit(2)
        except BrokenPipeError:  # the reader, such as `head`, has closed the pipe; click exits quietly
            raise
        except OSError as error:  # a full disk, a folder without write permission
            where = f" ({error.filename})" if error.filename else ""
            click.echo(f"genbench: {error.strerror or error}{where}; nothing that was written is lost", err=True)
            ctx.exit(2)


def _keep_disabled(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    ctx.meta[DISABLED] = names(ctx, param, values)


def plugin_option(command: Any) -> Any:
    """The options that select plug-ins; the names of --disable-plugin stay in the context, for `load_registry`."""
    for option in (
        click.option(
            "--disable-plugin",
            multiple=True,
            metavar="NAME",
            expose_value=False,
            callback=_keep_disabled,
            shell_complete=complete_plugins,
            help="Do not load an installed plug-in.",
        ),
        click.option(
            "--plugin",
            "plugins",
            multiple=True,
            type=click.Path(path_type=Path),
            metavar="FILE",
            help="Load a plug-in file; repeatable.",
        ),
    ):
        command = option(command)
    return command


set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME.OPTION=VALUE",
    shell_complete=complete_settings,
    help="Set an option of a component, e.g. swae.weight=10; repeatable.",
)
out_option = click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Folder of the runs.",
)
runs_option = click.option(
    "--runs",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Folder of the runs.",
)
controls_option = click.option(
    "--controls",
    multiple=True,
    callback=names,
    is_flag=False,
    flag_value="all",
    metavar="[C,...]",
    help="Measure controls as well: all, or those named (see `genbench list controls`).",
)
sampler_option = click.option(
    "--sampler",
    "samplers",
    multiple=True,
    callback=names,
    default=("prior",),
    show_default=True,
    metavar="S,...",
    shell_complete=complete_names("sampler"),
    help="Sources of the decoded samples, each measured by the metrics of samples (see `genbench list samplers`).",
)
tracker_option = click.option(
    "--tracker",
    "trackers",
    multiple=True,
    callback=names,
    metavar="T,...",
    shell_complete=complete_names("tracker"),
    help="Where losses and measurements are sent as well, e.g. tensorboard (see `genbench list trackers`).",
)
changed_source_option = click.option(
    "--allow-changed-source", is_flag=True, help="Accept plug-ins whose source has changed since the training."
)
device_option = click.option(
    "--device", default="auto", show_default=True, metavar="DEVICE", help="auto, cpu, cuda or cuda:i."
)

threads_option = click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="CPU threads of a training. [1 for small steps, all cores for large ones]",
)


def snapshot_options(command: Any) -> Any:
    """The options of snapshots: how many, their metrics, and the selection of the best."""
    for option in (
        click.option(
            "--select", metavar="METRIC", help="Take the final numbers of each run's best snapshot by this metric."
        ),
        click.option(
            "--snapshot-metrics",
            multiple=True,
            callback=names,
            metavar="M,...",
            help="Metrics of the snapshots, on validation images. [the first of --metrics]",
        ),
        click.option(
            "--snapshots",
            type=click.IntRange(0),
            default=0,
            metavar="N",
            help="Keep N snapshots of each training, evenly spaced, its end among them.",
        ),
    ):
        command = option(command)
    return command


def data_options(command: Any) -> Any:
    """The options of the data: its folder, downloads, corrupt images."""
    for option in (
        click.option("--skip-corrupt", is_flag=True, help="Leave corrupt images out, and count them."),
        click.option("--download", is_flag=True, help="Allow downloads of datasets and weights."),
        click.option(
            "--data-root",
            type=click.Path(path_type=Path),
            metavar="DIR",
            help="Folder of the datasets. [~/.cache/genbench/data]",
        ),
    ):
        command = option(command)
    return command


def load_registry(files: tuple[Path, ...], allow_changed_source: bool = False) -> Registry:
    """The loaded plug-ins; each broken or slow one is a line on stderr."""
    from genbench.registry.loader import list_registry, load

    disabled = _disabled()
    registry = load(files, disabled=disabled)
    registry.allow_changed_source = allow_changed_source
    listing = list_registry(registry)
    if not files and cached_listing(disabled) is None:
        cache_listing(listing, disabled)
    show_plugin_problems(listing)
    return registry


def installed_names(files: tuple[Path, ...]) -> ComponentNames | None:
    """The names of the installed components, by which a typing error is refused before torch is imported.

    None where plug-ins have to be loaded: with plug-in files, or where nothing is cached.
    """
    return None if files else cached_listing(_disabled())


def load_listing(files: tuple[Path, ...]) -> Listing:
    """The listing; each broken or slow plug-in is a line on stderr."""
    listing = get_listing(files, _disabled())
    show_plugin_problems(listing)
    return listing


def _disabled() -> tuple[str, ...]:
    context = click.get_current_context(silent=True)
    return tuple(context.meta.get(DISABLED, ())) if context else ()


def show_plugin_problems(listing: Listing) -> None:
    """A line on stderr for each plug-in that is broken or slow."""
    for plugin in listing.plugins:
        prefix = f"genbench: plug-in '{plugin.name}' of {plugin.origin}"
        if plugin.state == "broken":
            click.echo(f"{prefix} is broken: {plugin.cause}", err=True)
        if plugin.note:
            click.echo(f"{prefix} {plugin.note}", err=True)


def make_data_config(data_root: Path | None, download: bool, skip_corrupt: bool) -> DataConfig:
    """The folders of data and caches, checked."""
    from joblib import cpu_count

    from genbench.api import DataConfig

    cache = cache_folder()
    if data_root is not None and not data_root.is_dir() and not download:
        raise UsageError(f"--data-root {data_root}: there is no such folder")
    return DataConfig(
        data_root=data_root or cache / "data",
        cache=cache,
        download=download,
        skip_corrupt=skip_corrupt,
        workers=cpu_count(),
    )


def run_folder(name: str, out: Path) -> Path:
    """A run's folder from its path, its name, the beginning of its name, or parts of it, where that is unique."""
    from genbench.storage.inventory import match_run

    return match_run(name, out)


def run_paths(ctx: click.Context, param: click.Parameter, values: tuple[Path, ...]) -> tuple[Path, ...]:
    """The folders that RUNS arguments name: paths, or runs in runs/ as `run_folder` finds them."""
    store = Path("runs")
    known = store.is_dir()
    return tuple(
        value if value.exists() or value.parent != Path() or not known else run_folder(str(value), store)
        for value in values
    )
