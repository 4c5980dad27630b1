"""How errors are printed: what was given, what is possible, what to do. No torch."""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Sequence

import click

from genbench import __version__
from genbench.errors import GenbenchError, one_line, shell_word
from genbench.experiment.config import ExperimentConfig, PlanError
from genbench.utils.io import describe_os_error

ARGUMENTS = "genbench.arguments"
"""The key of a command's context that holds the arguments as they were typed."""

FLAGS = {
    "batch": "--batch",
    "metrics": "--metrics",
    "samplers": "--sampler",
    "snapshots": "--snapshots",
    "snapshot_metrics": "--snapshot-metrics",
    "select": "--select",
}
"""The options of `genbench run` by the field of the configuration that they fill, of those that a plan may repair."""


def adapt_environment() -> None:
    """Undo what a notebook, a container or a batch system sets for programs of another kind."""
    os.environ["MPLBACKEND"] = "agg"  # a notebook's backend need not be installed here, and no window is opened
    for name in ("COLUMNS", "LINES"):  # 0 in containers: the size is unknown, and not none
        if os.environ.get(name, "1").strip() in ("", "0"):
            del os.environ[name]
    if not os.environ.get("SOURCE_DATE_EPOCH", "0").isdecimal():  # importing NumPy's parts would fail
        del os.environ["SOURCE_DATE_EPOCH"]


def show_error(error: Exception, ctx: click.Context) -> int:
    """Print an error on stderr; the exit status: 2 for what the user or the system can mend, 1 for a fault of ours."""
    if isinstance(error, PlanError):
        _show_plan_error(error, ctx.meta.get(ARGUMENTS, ()))
    elif isinstance(error, GenbenchError):
        _show(one_line(error, limit=4000))
    elif isinstance(error, click.ClickException):
        _show(_usage(error))
    elif isinstance(error, OSError):  # a full disk, a folder without write permission
        _show(f"{describe_os_error(error)}; nothing that was written is lost")
    else:
        click.echo("".join(traceback.format_exception(error)), err=True)
        _show(
            "this is a fault of genbench; nothing that was written is lost. Please report it with the lines above, the"
            f" command, and these versions: genbench {__version__}, Python {platform.python_version()},"
            f" {platform.platform()}"
        )
        return 1
    return 2


def _show(text: str) -> None:
    click.echo(f"genbench: {text}", err=True)


def _usage(error: click.ClickException) -> str:
    """What click says of a command line, in one line, and where its options are listed."""
    text = one_line(Exception(error.format_message()), limit=4000)
    context = getattr(error, "ctx", None)
    return f"{text.rstrip('.')}; see `{context.command_path} --help`" if context else text


def _show_plan_error(error: PlanError, arguments: Sequence[str]) -> None:
    """All problems of a study and, where there is one, a command line without them."""
    problems = [one_line(Exception(problem), limit=4000) for problem in error.problems]
    _show(problems[0] if len(problems) == 1 else f"{len(problems)} problems:")
    for problem in problems if len(problems) > 1 else ():
        click.echo(f"  - {problem}", err=True)
    if error.config is None or error.repaired is None:
        return
    repaired = repaired_arguments(arguments, error.config, error.repaired)
    if repaired is not None:
        click.echo(f"This would run: {' '.join(map(shell_word, ['genbench', *repaired]))}", err=True)


def repaired_arguments(
    arguments: Sequence[str], config: ExperimentConfig, repaired: ExperimentConfig
) -> list[str] | None:
    """The arguments of `genbench run` for the repaired configuration; None where a study file sets what has to go."""
    changed = {flag for field, flag in FLAGS.items() if getattr(config, field) != getattr(repaired, field)}
    dropped = set(config.settings) - set(repaired.settings)
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, equals, value = argument.partition("=")
        if flag not in (*changed, "--set"):
            kept.append(argument)
            continue
        value = value if equals else next(rest, "")
        if flag != "--set":
            continue
        if value in dropped:
            dropped.remove(value)
        else:
            kept += [flag, value]
    if dropped:
        return None
    for field, flag in FLAGS.items():
        value = getattr(repaired, field)
        if flag in changed and value not in (None, ()):
            kept += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
    for setting in repaired.settings:
        kept += ["--set", setting] if setting not in config.settings else []
    return kept + ["--skip-impossible"] * (repaired.skip_impossible and not config.skip_impossible)
