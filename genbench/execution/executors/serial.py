"""One run after another in this process; on a GPU, metrics that compute on the CPU go on beside the next one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future

from joblib import cpu_count

from genbench.execution.background import Background
from genbench.execution.runner import Runner, RunOutcome
from genbench.experiment.run import Run


class SerialExecutor:
    """Does runs while they are submitted."""

    in_process = True

    def __init__(self, runner: Runner) -> None:
        """On a CPU everything goes on one after another: two runs at once want the same cores."""
        self._runner = runner
        if runner.device.type == "cuda" and runner.distributed.world == 1:
            runner.background = Background(cpu_count())

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
        """Give up the measurements that still go on, if the command ends early."""
        if self._runner.background is not None:
            self._runner.background.close()
            self._runner.background = None
