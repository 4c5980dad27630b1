"""The choice of an executor: its options, checked, and the executor that they select. No torch until it is created."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from genbench.errors import UsageError, one_line, unknown

if TYPE_CHECKING:
    from genbench.execution.runner import Runner
    from genbench.execution.scheduler import Executor

ExecutorName = Literal["serial", "process", "ray", "slurm"]
EXECUTORS: tuple[ExecutorName, ...] = get_args(ExecutorName)

Positive = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]
Jobs = Annotated[int, Meta(ge=1)] | Literal["auto"]

EXECUTOR_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "ray": {"address": str, "cpus-per-run": Positive, "gpus-per-run": NotNegative},
    "slurm": {
        "cluster": Literal["slurm", "local"],
        "partition": str,
        "account": str,
        "qos": str,
        "constraint": str,
        "cpus-per-run": Annotated[int, Meta(ge=1)],
        "gpus-per-run": Annotated[int, Meta(ge=0)],
        "memory-gb": Positive,
    },
}
"""The options that an executor takes, with the types of their values."""


@dataclass(frozen=True)
class ExecutorConfig:
    """The options as given; None where an option was not given."""

    executor: ExecutorName | None = None
    jobs: int | Literal["auto"] | None = None
    timeout: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


SERIAL = ExecutorConfig()
"""One run after another in this process."""


def check_executor(
    executor: ExecutorName | None,
    jobs: int | Literal["auto"] | None,
    timeout: float | None,
    options: Mapping[str, Any],
) -> ExecutorConfig:
    """The choice, its options with their types; `UsageError` for options that do not fit each other or the executor."""
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
    return ExecutorConfig(executor, jobs, timeout, _typed(executor, options))


def parse_executor_options(texts: Sequence[str]) -> dict[str, str]:
    """The texts of `--executor-option KEY=VALUE` by key; `UsageError` for another form, or a key given twice."""
    values: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not value or key in values:
            raise UsageError(f"--executor-option {text}: it takes the form {key or 'KEY'}=VALUE, once")
        values[key] = value
    return values


def _typed(executor: str | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Executor options with their types; `UsageError` for one that the executor does not take."""
    types = EXECUTOR_OPTIONS.get(executor or "", {})
    values: dict[str, Any] = {}
    for key, value in given.items():
        text = f"{key}={value}"
        if not types:
            raise UsageError(
                f"--executor-option {text} needs --executor {' or --executor '.join(EXECUTOR_OPTIONS)};"
                f" {f'--executor {executor}' if executor else 'this process'} takes none"
            )
        if key not in types:
            raise unknown(f"option of --executor {executor} called", key, types)
        try:
            values[key] = msgspec.convert(value, types[key], strict=False)
        except msgspec.ValidationError as error:
            raise UsageError(f"--executor-option {text}: {one_line(error).replace('`', '')}") from None
        if isinstance(values[key], float) and not math.isfinite(values[key]):
            raise UsageError(f"--executor-option {text}: not a finite number")
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
