"""What the processes do that train beside the leader: the same steps of the same runs, and nothing else.

torchrun starts the same command N times. The leader plans, claims, writes, measures and reports as one process alone
would; the others plan too, and then wait for its word: the key of the next run that it trains, or `END`.
"""

from __future__ import annotations

from contextlib import suppress

from genbench.api import Images
from genbench.errors import GenbenchError
from genbench.execution.runner import Runner
from genbench.experiment.build import create_dataset
from genbench.experiment.plan import Plan
from genbench.experiment.run import Run
from genbench.storage.run_dir import CHECKPOINT
from genbench.training.device import on_device
from genbench.training.setup import TrainingJob
from genbench.utils.torch_state import isolated

END = -1


def accompany(bench: Runner, plan: Plan) -> None:
    """Train with the leader whatever it trains, until it is done.

    What the leader refuses or records as diverged is met here as well, and passed over; any other error ends this
    process, and torchrun with it all: the same command goes on from the last checkpoint.
    """
    runs = {int(run.key, 16): run for run in plan.runs}
    images = None
    while (word := bench.distributed.broadcast(END)) != END:
        images = images or _load(bench, runs[word])  # the leader has decoded it by now
        with suppress(GenbenchError), isolated(bench.device):
            _steps(bench, runs[word], images, plan)


def _load(bench: Runner, run: Run) -> Images:
    return on_device(create_dataset(bench.registry, run.dataset).load(bench.place), bench.device)


def _steps(bench: Runner, run: Run, images: Images, plan: Plan) -> None:
    job = TrainingJob(bench.registry, run, images, bench.device, bench.distributed, plan.threads)
    model = job.build_model()
    device_config, checkpoint = job.select_device_config(model), bench.folder(run).path / CHECKPOINT
    with job.start(model, device_config, checkpoint, snapshot_steps=plan.snapshots.steps(run)[:-1]) as states:
        for _ in states:
            pass
