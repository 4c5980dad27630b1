"""From flags and study files to studies, and back: executors, what `genbench run` reads, and `genbench config`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from genbench.cli.completion import DISABLED
from genbench.cli.options import FilePath, Finite, WholeOr, disabled_plugins, refuse_plugin_files, run_paths
from genbench.errors import StoreError, UsageError
from genbench.execution.executors.choice import (
    EXECUTOR_OPTIONS,
    EXECUTORS,
    ExecutorConfig,
    check_executor,
    parse_executor_options,
)
from genbench.interface.config import StudyConfig, override, study_config
from genbench.interface.study_file import SUFFIX, read_study, studies_of_runs, study_toml, write_study

META = "genbench.executor."
"""The prefix of these options in a command's context."""

FIELDS = {"executor": "executor", "jobs": "jobs", "run_timeout": "timeout", "executor_options": "options"}
"""The fields of `StudyConfig` and the names of these options."""


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta[f"{META}{param.name}"] = value


def executor_options(command: Any) -> Any:
    """The options that choose an executor; they stay in the context, for `read_executor_config`."""
    option = partial(click.option, expose_value=False, callback=_keep, is_eager=True)
    keys = "; ".join(f"{name}: {', '.join(options)}" for name, options in EXECUTOR_OPTIONS.items())
    command = option(
        "--executor-option",
        "options",
        multiple=True,
        metavar="KEY=VALUE",
        help=f"An option of the executor; repeatable. {keys}.",
    )(command)
    command = option(
        "--run-timeout",
        "timeout",
        type=Finite(0, min_open=True),
        metavar="SECONDS",
        help="Kill a run that takes longer; it is recorded as failed.",
    )(command)
    command = option(
        "--jobs",
        "jobs",
        type=WholeOr("auto"),
        metavar="N|auto",
        help="Runs at once; GPUs are assigned in turn. auto: one for each core or GPU. [1; ray, slurm: as many as fit]",
    )(command)
    return option(
        "--executor",
        "executor",
        type=click.Choice(EXECUTORS),
        help="In this process, in worker processes, on a Ray cluster, or as Slurm jobs. [serial; process for several"
        " runs at once or with --run-timeout]",
    )(command)


def given_executor_flags(context: click.Context) -> dict[str, Any]:
    """The options that were given, by the fields of `StudyConfig`."""
    values = {field: context.meta.get(f"{META}{name}") for field, name in FIELDS.items()}
    given = {field: value for field, value in values.items() if value not in (None, ())}
    if "executor_options" in given:
        given["executor_options"] = parse_executor_options(given["executor_options"])
    return given


def read_executor_config() -> ExecutorConfig:
    """The options of the command at work, checked; `UsageError` for those that do not fit each other."""
    meta = click.get_current_context().meta
    executor, jobs, timeout, texts = (meta.get(f"{META}{name}") for name in ("executor", "jobs", "timeout", "options"))
    return check_executor(executor, jobs, timeout, parse_executor_options(texts or ()))


def read_study_flags(
    arguments: tuple[str, ...], flags: Mapping[str, Any], command: str = "genbench run"
) -> StudyConfig:
    """The study of a command: that of the file among the arguments, if there is one, and the flags that were given."""
    context = click.get_current_context()
    refuse_plugin_files(arguments)
    files = [argument for argument in arguments if argument.endswith(SUFFIX)]
    models = [name for argument in arguments if argument not in files for name in argument.split(",") if name]
    if len(files) > 1:
        raise UsageError(f"{', '.join(files)}: a command runs one study file; run it once for each")
    given = {
        name: value for name, value in flags.items() if context.get_parameter_source(name) != ParameterSource.DEFAULT
    }
    given |= given_executor_flags(context)
    if disabled_plugins():
        given["disabled_plugins"] = disabled_plugins()
    if models:
        given["models"] = models
    study = override(read_study(Path(files[0])), given, files[0]) if files else study_config(given, command)
    context.meta[DISABLED] = study.disabled_plugins
    return study


@click.command(short_help="Write the study file that makes RUNS.")
@click.argument("runs", nargs=-1, type=FilePath(), callback=run_paths)
@click.option(
    "--write",
    type=FilePath(dir_okay=False),
    metavar="FILE.toml",
    help="Write the study to this file; where the runs are several grids, each to a file of its own.",
)
def config(runs: tuple[Path, ...], write: Path | None) -> None:
    """Print the study file with which `genbench run` makes RUNS: run folders, or folders of them. [runs]

    Every option is written out, so that a default that changes later changes no run.
    """
    from genbench.reporting.summary import readable_runs

    records = readable_runs(runs or (Path("runs"),))
    if not records:
        raise StoreError("no run folder could be read")
    studies = studies_of_runs(records)
    if write is None and len(studies) > 1:
        raise UsageError(
            f"these runs are {len(studies)} grids, each a study: name a file, --write study{SUFFIX}, and each is"
            " written beside it with a number"
        )
    if write is None:
        click.echo(study_toml(studies[0]), nl=False)
        return
    for number, study in enumerate(studies, 1):
        path = write if len(studies) == 1 else write.with_name(f"{write.stem}-{number}{write.suffix}")
        write_study(path, study)
        click.echo(f"wrote {path}")
