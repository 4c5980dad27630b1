"""One run after another in this process."""

from __future__ import annotations

from concurrent.futures import Future

from genbench.execution.runner import Runner, RunOutcome
from genbench.experiment.run import Run


class SerialExecutor:
    """Does a run while it is submitted."""

    in_process = True

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def submit(self, run: Run) -> Future[RunOutcome]:
        """Do the run; of several distributed processes the main one decodes the dataset first."""
        future: Future[RunOutcome] = Future()
        if self._runner.distributed.is_main_process and not self._runner.stop():
            self._runner.load_images(run)
        future.set_result(self._runner.run(run))
        return future

    def interrupt(self) -> None:
        """Do nothing: `submit` returns after the run."""

    def shutdown(self) -> None:
        """Do nothing: there are no workers."""
