"""One run after another in this process."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from genbench.execution.runner import Runner, RunOutcome
from genbench.experiment.run import Run


class SerialExecutor:
    """Does runs while they are submitted."""

    in_process = True

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def submit(self, runs: Sequence[Run]) -> Future[list[RunOutcome]]:
        """Do the runs; of several distributed processes the main one decodes the dataset first."""
        future: Future[list[RunOutcome]] = Future()
        runner, (first, *others) = self._runner, runs
        if runner.distributed.is_main_process and not runner.stop():
            runner.load_images(first)
        future.set_result(runner.run_ensemble(runs) if others else [runner.run(first)])
        return future

    def interrupt(self) -> None:
        """Do nothing: `submit` returns after the runs."""

    def shutdown(self) -> None:
        """Do nothing: there are no workers."""
