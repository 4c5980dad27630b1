"""Options and argument types that commands share, and how errors are printed. No torch."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec.inspect
from click.exceptions import NoArgsIsHelpError

from genbench.cli.completion import DISABLED, complete_names, complete_plugins, complete_settings
from genbench.cli.errors import ARGUMENTS, adapt_environment, show_error
from genbench.errors import UsageError
from genbench.interface.config import FIELDS, LISTS
from genbench.interface.context import load_plugins, plugin_problems
from genbench.registry.cache import cached_listing, get_listing
from genbench.utils.plugin_code import plugin_options

if TYPE_CHECKING:
    from genbench.registry.listing import ComponentNames, Kind, Listing
    from genbench.registry.loader import Registry

FC = TypeVar("FC", bound=Callable[..., Any] | click.Command)


class Finite(click.FloatRange):
    """A number within bounds; click itself takes "nan" and "inf", which every comparison with a bound lets pass."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            float(value)
        except ValueError:
            self.fail(f"{_shortened(value)} is not a number", param, ctx)
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number:g} is not a finite number", param, ctx)
        return number


class FilePath(click.Path):
    """A path; an empty one, as of a shell's variable that is not set, would be the working directory."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(path_type=Path, **attributes)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value) == "" or "\0" in str(value):
            self.fail(f"{str(value)!r} is no path: give a name, or . for this folder", param, ctx)
        return super().convert(value, param, ctx)


class Whole(click.IntRange):
    """A whole number within bounds; of a text that is none the refusal says what it may have meant.

    `most` bounds what no help need tell: the whole numbers of files and tensors.
    """

    def __init__(self, low: int, high: int | None = None, most: int = 2**63 - 1) -> None:
        super().__init__(low, high)
        self.most = most

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            int(value)
        except ValueError:
            meant = _meant_number(value)
            flag = f"{param.opts[0]} " if param is not None and param.opts else ""
            text = f"{_shortened(value)} is not a whole number"
            self.fail(text if meant is None else f"{text}: {flag}{meant}", param, ctx)
        number = int(super().convert(value, param, ctx))
        if number > self.most:
            self.fail(f"{_shortened(value)} is too large: at most {self.most:,}", param, ctx)
        return number


class WholeOr(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A whole number from 1, or one of some words."""

    name = "number"

    def __init__(self, *words: str) -> None:
        self.words = words

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        word = str(value).strip().lower()
        if word in self.words:
            return word
        try:
            return int(Whole(1).convert(value, param, ctx))
        except click.BadParameter as error:
            self.fail(f"{error.message} (possible: a whole number from 1, {', '.join(self.words)})", param, ctx)


def _shortened(text: str) -> str:
    """A value as a message quotes it."""
    return f"'{text}'" if len(text) <= 60 else f"'{text[:50]}...' of {len(text):,} characters"


def _meant_number(text: str) -> int | None:
    """What a text such as `2k`, `1e4`, `60,000` or `0,1,2` (three of them) may have meant; None for any other."""
    plain = text.strip().lower()
    if re.fullmatch(r"\d{1,3}(,\d{3})+", plain):
        return int(plain.replace(",", ""))
    if re.fullmatch(r"\d+(\s*,\s*\d+)+", plain):
        return plain.count(",") + 1
    if scaled := re.fullmatch(r"(\d+(?:\.\d+)?)\s*([km]|e\d)", plain):
        factor = {"k": 1e3, "m": 1e6}.get(scaled[2]) or float(f"1{scaled[2]}")
        return round(float(scaled[1]) * factor)
    return None


def names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Names of a repeatable option, each value one name or several with commas."""
    return tuple(name.strip() for value in values for name in value.split(",") if name.strip())


def some_names(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """Names of which there has to be one, where the option is given."""
    given = names(ctx, param, values)
    if values and not given:
        raise click.BadParameter(f"{', '.join(values)!r}: no name is given", ctx, param)
    return given


def counts(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
    """Whole numbers of at least 1 of a repeatable option, each value one number or several with commas."""
    return counts_within(1, 2**63 - 1)(ctx, param, values)


def counts_within(low: int, high: int) -> Callable[[click.Context, click.Parameter, tuple[str, ...]], tuple[int, ...]]:
    """The same within bounds."""

    def read(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[int, ...]:
        parts = [part for value in values for part in value.split(",")]
        try:
            numbers = tuple(map(int, parts))
        except ValueError:
            given = _shortened(", ".join(values))
            raise click.BadParameter(f"{given}: whole numbers with commas, as 2,8, are possible", ctx, param) from None
        for number in numbers:
            if not low <= number <= high:
                bound = f"at least {low}" if number < low else f"at most {high}"
                raise click.BadParameter(f"{_shortened(str(number))}: must be {bound}", ctx, param)
        return numbers

    return read


def study_option(name: str, flag: str = "", *, complete: Kind | None = None, **attributes: Any) -> Callable[[FC], FC]:
    """The flag of a field of `StudyConfig`, with its default and bounds; repeatable where the field is a list."""
    declared = FIELDS[name]
    types = declared.type.types if isinstance(declared.type, msgspec.inspect.UnionType) else (declared.type,)
    repeatable = FIELDS[name].encode_name in LISTS
    if repeatable:
        whole = isinstance(getattr(types[0], "item_type", None), msgspec.inspect.IntType)
        filled = bool(getattr(types[0], "min_length", None))
        attributes |= {"multiple": True, "callback": counts if whole else some_names if filled else names}
    elif (literal := next((each for each in types if isinstance(each, msgspec.inspect.LiteralType)), None)) is not None:
        words = [str(value) for value in literal.values]
        numbers = any(isinstance(each, msgspec.inspect.IntType) for each in types)
        attributes |= {"type": WholeOr(*words) if numbers else click.Choice(words)}
    elif (number := next((each for each in types if isinstance(each, msgspec.inspect.IntType)), None)) is not None:
        low, high = number.ge, number.le
        attributes |= {"type": Whole(low or 0, high if high and high <= MAX_SHOWN else None, high or 2**63 - 1)}
    if declared.default not in (None, ()):
        default = (",".join(map(str, declared.default)),) if repeatable else declared.default
        attributes |= {"default": default, "show_default": True}
    elif repeatable:
        attributes |= {"default": ()}
    if complete is not None:
        attributes |= {"shell_complete": complete_names(complete)}
    return click.option(flag or f"--{name.replace('_', '-')}", name, **attributes)


SECTIONS = {
    "Train and evaluate": ("run", "tune", "reproduce", "evaluate", "score", "config"),
    "Look at runs": ("report", "curves", "plot", "show", "sample", "paper", "cite"),
    "Compare": ("compare", "power", "diff"),
    "Manage runs": ("rm", "prune", "bundle", "site"),
    "Plug-ins": ("list", "new", "check"),
    "Help": ("docs", "news", "completion"),
}
"""The commands as `genbench --help` groups them; each once."""

MAX_SHOWN = 2**31 - 2
"""A larger bound, which is that of a file's numbers, is not told in the help."""


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

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = tuple(args)
        try:
            return super().parse_args(ctx, args)
        except NoArgsIsHelpError:
            raise
        except click.UsageError as error:
            ctx.exit(show_error(error, ctx))

    def invoke(self, ctx: click.Context) -> Any:
        adapt_environment()
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):  # a terminal that lacks a sign gets a question mark, not a traceback
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except (BrokenPipeError, click.exceptions.Exit, click.Abort, NoArgsIsHelpError):
            raise  # click exits quietly where the reader, such as `head`, has closed the pipe
        except Exception as error:
            ctx.exit(show_error(error, ctx))


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
            type=FilePath(),
            metavar="FILE",
            help="Load a plug-in file; repeatable.",
        ),
    ):
        command = option(command)
    return command


def set_option(text: str) -> Callable[[FC], FC]:
    """The option --set; `text` says of what, with an example, and what several values do."""
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="NAME.OPTION=VALUE",
        shell_complete=complete_settings,
        help=f"Set an option of {text}",
    )


out_option = study_option("out", type=FilePath(), metavar="DIR", help="Folder of the runs.")
runs_option = click.option(
    "--runs",
    type=FilePath(),
    default=Path("runs"),
    show_default=True,
    metavar="DIR",
    help="Folder of the runs.",
)
form_option = click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Format of the output.",
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
sampler_option = study_option(
    "samplers",
    "--sampler",
    metavar="S,...",
    complete="sampler",
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
all_sources_option = click.option(
    "--all-sources", is_flag=True, help="Show also runs of earlier sources of plug-ins and of earlier data."
)
device_option = study_option("device", metavar="DEVICE", help="auto, cpu, cuda or cuda:i.")
threads_option = study_option(
    "threads", metavar="N", help="CPU threads of a training. [1 for small steps, all cores for large ones]"
)
ensemble_option = study_option(
    "ensemble",
    metavar="N|off|auto",
    help="Train up to N runs that differ by seed, or by options that are real numbers, as one tensor program. auto: on"
    " a GPU where it is measured to be faster, unless --executor, --jobs or --run-timeout is given; off on a CPU.",
)


def snapshot_options(command: Any) -> Any:
    """The options of snapshots: how many, their metrics, and the selection of the best."""
    for option in (
        study_option(
            "select", metavar="METRIC", help="Take the final numbers of each run's best snapshot by this metric."
        ),
        study_option(
            "snapshot_metrics",
            metavar="M,...",
            help="Metrics of the snapshots, on validation images. [the first of --metrics]",
        ),
        study_option(
            "snapshots",
            metavar="N",
            help="Keep N snapshots of each training, evenly spaced, its end among them.",
        ),
    ):
        command = option(command)
    return command


def piece_option(name: str, text: str) -> Callable[[FC], FC]:
    """The option of a piece of results from elsewhere."""
    return click.option(f"--{name}", type=FilePath(), metavar="PATH", help=text)


def data_options(command: Any) -> Any:
    """The options of the data: its folder, downloads, corrupt images."""
    for option in (
        click.option("--skip-corrupt", is_flag=True, help="Leave corrupt images out, and count them."),
        click.option("--download", is_flag=True, help="Allow downloads of datasets and weights."),
        click.option(
            "--data-root",
            type=FilePath(),
            metavar="DIR",
            help="Folder of the datasets. [data in GENBENCH_CACHE or ~/.cache/genbench]",
        ),
    ):
        command = option(command)
    return command


def load_registry(files: tuple[Path, ...], allow_changed_source: bool = False) -> Registry:
    """The loaded plug-ins; each broken or slow one is a line on stderr."""
    registry, listing = load_plugins(files, disabled_plugins(), allow_changed_source=allow_changed_source)
    show_plugin_problems(listing)
    return registry


def installed_names(files: tuple[Path, ...]) -> ComponentNames | None:
    """The names of the installed components, by which a typing error is refused before torch is imported.

    None where plug-ins have to be loaded: with plug-in files, or where nothing is cached.
    """
    return None if files else cached_listing(disabled_plugins())


def load_listing(files: tuple[Path, ...]) -> Listing:
    """The listing; each broken or slow plug-in is a line on stderr."""
    listing = get_listing(files, disabled_plugins())
    show_plugin_problems(listing)
    return listing


def disabled_plugins() -> tuple[str, ...]:
    """The names of --disable-plugin of the command at work."""
    context = click.get_current_context(silent=True)
    return tuple(context.meta.get(DISABLED, ())) if context else ()


def refuse_plugin_files(names: Iterable[str]) -> None:
    """Raise `UsageError` for a Python file among names of components: --plugin takes one file, and is repeated."""
    files = [name for name in names if name.endswith(".py")]
    if files:
        kind = "is a plug-in file" if len(files) == 1 else "are plug-in files"
        each = "give it" if len(files) == 1 else "give each"
        raise UsageError(
            f"{', '.join(files)} {kind}, not a name: {each} with its own --plugin: {plugin_options(files)}"
        )


def show_plugin_problems(listing: Listing) -> None:
    """A line on stderr for each plug-in that is broken or slow."""
    for problem in plugin_problems(listing):
        click.echo(f"genbench: {problem}", err=True)


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
