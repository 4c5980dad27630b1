"""The options of executors, and the executor that they select. No torch until it is created."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import click

from genbench.cli.options import Finite
from genbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from genbench.execution.runner import Runner
    from genbench.execution.scheduler import Executor

EXECUTORS = ("serial", "process", "ray", "slurm")
META = "genbench.executor."
"""The prefix of these options in a command's context."""


EXECUTOR_OPTIONS: Mapping[str, Mapping[str, Callable[[str], Any]]] = {
    "ray": {"address": str, "cpus-per-run": Finite(0, min_open=True), "gpus-per-run": Finite(0)},
    "slurm": {
        "cluster": click.Choice(("slurm", "local")),
        "partition": str,
        "account": str,
        "qos": str,
        "constraint": str,
        "cpus-per-run": click.IntRange(1),
        "gpus-per-run": click.IntRange(0),
        "memory-gb": Finite(0, min_open=True),
    },
}
"""The keys of `--executor-option` that an executor takes, and how a value is read."""


@dataclass(frozen=True)
class ExecutorConfig:
    """The options as given; None where an option was not given."""

    executor: str | None = None
    jobs: int | Literal["auto"] | None = None
    timeout: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


SERIAL = ExecutorConfig()
"""One run after another in this process."""


class _Jobs(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A whole number from 1, or auto."""

    name = "jobs"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """The number, or auto."""
        return "auto" if value == "auto" else int(click.IntRange(1).convert(value, param, ctx))


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    ctx.meta[f"{META}{param.name}"] = value


def executor_options(command: Any) -> Any:
    """The options that choose an executor; they stay in the context, for `read_executor_config`."""
    option = partial(click.option, expose_value=False, callback=_keep, is_eager=True)
    keys = "; ".join(f"{name}: {', '.join(readers)}" for name, readers in EXECUTOR_OPTIONS.items())
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
        type=_Jobs(),
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


def read_executor_config() -> ExecutorConfig:
    """The options of the command at work, checked; `UsageError` for those that do not fit each other."""
    meta = click.get_current_context().meta
    executor, jobs, timeout = (meta.get(f"{META}{name}") for name in ("executor", "jobs", "timeout"))
    if executor == "serial" and jobs not in (None, 1):
        raise UsageError(
            f"--executor serial does one run at a time: leave off one of --executor serial and --jobs {jobs}"
        )
    if executor == "serial" and timeout is not None:
        raise UsageError(
            "--executor serial cannot end a run that is stuck: leave off one of --executor serial and --run-timeout"
        )
    if executor in ("ray", "slurm") and jobs == "auto":
        raise UsageError(f"--jobs auto counts the cores of this machine: with --executor {executor} give a number")
    return ExecutorConfig(executor, jobs, timeout, read_options(executor, meta.get(f"{META}options", ())))


def read_options(executor: str | None, texts: tuple[str, ...]) -> dict[str, Any]:
    """The values of `--executor-option KEY=VALUE` by key; `UsageError` for one that the executor does not take."""
    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        readers = EXECUTOR_OPTIONS.get(executor or "", {})
        if not readers:
            raise UsageError(
                f"--executor-option {text} needs --executor {' or --executor '.join(EXECUTOR_OPTIONS)};"
                f" {f'--executor {executor}' if executor else 'this process'} takes none"
            )
        if key not in readers:
            raise unknown(f"option of --executor {executor} called", key, readers)
        if not equals or not value or key in values:
            raise UsageError(f"--executor-option {text}: it takes the form {key}=VALUE, once")
        try:
            values[key] = readers[key](value)
        except click.UsageError as error:
            raise UsageError(f"--executor-option {text}: {error.format_message()}") from None
    return values


@contextmanager
def create_executor(config: ExecutorConfig, runner: Runner, runs: int) -> Iterator[Executor]:
    """The executor of checked options, for so many runs; nothing is started before the first one is submitted."""
    executor = _executor(config, runner, runs)
    try:
        yield executor
    finally:
        executor.shutdown()


def _executor(config: ExecutorConfig, runner: Runner, runs: int) -> Executor:
    jobs = available_devices(runner) if config.jobs == "auto" else config.jobs
    if config.executor == "ray":
        from genbench.execution.executors.ray import RayExecutor

        return RayExecutor(runner, jobs, config.timeout, config.options)
    if config.executor == "slurm":
        from genbench.execution.executors.slurm import SlurmExecutor

        return SlurmExecutor(runner, jobs, config.timeout, config.options)
    if config.executor == "process" or (jobs or 1) > 1 or config.timeout is not None:
        from genbench.execution.executors.process import ProcessExecutor

        return ProcessExecutor(runner, max(1, min(jobs or 1, runs)), config.timeout)
    from genbench.execution.executors.serial import SerialExecutor

    return SerialExecutor(runner)


def available_devices(runner: Runner) -> int:
    """The GPUs of this machine where runs train on them, else the cores that this process may use."""
    if runner.device.type == "cuda":
        import torch

        return torch.cuda.device_count()
    from joblib import cpu_count

    return int(cpu_count())
