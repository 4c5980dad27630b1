"""A training step recorded once and replayed: on a GPU one CUDA graph, every move with its optimiser step in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from genbench.errors import UsageError, one_line
from genbench.training.step import EAGER_FALLBACK, PURPOSES, EagerStep, Step, Sums, TrainContext, do_batch
from genbench.utils.rng import derive_seed

Work = Callable[[], None]

WARM_UP = 3
"""Steps done one operation at a time before the recording: optimisers make their state, libraries choose kernels. They
are steps of the training like any other, so that nothing has to be undone."""


class Recorder(Protocol):
    """Records work on fixed memory, without doing it, and gives back what does it again."""

    def warm(self, work: Work) -> None:
        """Do the work as it will be recorded, but for real."""

    def record(self, work: Work, noises: Sequence[Generator]) -> Work:
        """A function that does the work again, with `noises` in the state that they have then.

        Raises whatever the work raises where it cannot be recorded; nothing of it is done then.
        """


class CudaRecorder:
    """Records CUDA graphs on a stream of its own; they are replayed on the stream that is current then."""

    def __init__(self, device: torch.device) -> None:
        """For one device."""
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def warm(self, work: Work) -> None:
        """On the side stream, which waits for the current one and is waited for."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            work()
        current.wait_stream(self.stream)

    def record(self, work: Work, noises: Sequence[Generator]) -> Work:
        """One graph with a memory pool of its own; other threads may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        for noise in noises:
            graph.register_generator_state(noise)  # its seed and offset are read at each replay
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


class CapturedStep:
    """Replays a recording of `do_batch`: the batch's indices and the generators' seeds are put in before each replay.

    What a recording holds fast and cannot see change (numbers kept by the model, learning rates) is compared at every
    epoch's begin; where it has changed, the next step is recorded anew. A tensor that is changed in place needs none
    of that. A step that cannot be recorded is done eagerly from then on, and `how` says why.
    """

    most_threads = usual_threads = 0

    def __init__(self, parts: TrainContext, recorder: Recorder) -> None:
        """For some parts; nothing is recorded before `WARM_UP` steps are done."""
        self.parts, self.recorder = parts, recorder
        self.indices = torch.zeros(parts.batch, dtype=torch.int64, device=parts.device)
        self.noises = [Generator(device=parts.device) for _ in PURPOSES]
        self.sums: Sums = {}
        self.how = "graph"
        self.recordings = 0
        self._warm = 0
        self._held: dict[str, str] = {}
        self._replay: Work | None = None

    def on_epoch_start(self, epoch: int) -> None:
        """Pass it on; drop the recording where it holds what is no longer so."""
        self.parts.on_epoch_start(epoch)
        if self._replay is not None and graph_inputs(self.parts) != self._held:
            self._replay = None

    def do(self, step: int, indices: Tensor) -> None:
        """One step: for real while warming up, then by replay."""
        self.indices.copy_(indices)
        for noise, purpose in zip(self.noises, PURPOSES, strict=True):
            noise.manual_seed(derive_seed(self.parts.seed, purpose, step))
        if self.how != "graph":
            self._work()
        elif self._warm < WARM_UP:
            self._do_warm()
        else:
            if self._replay is None:
                self._replay = self._record()
            (self._replay or self._work)()

    def take(self) -> Sums:
        """A copy of the sums, which go on in the same memory from zero."""
        taken = {name: value.clone() for name, value in self.sums.items()}
        for value in self.sums.values():
            value.zero_()
        return taken

    def _work(self) -> None:
        first, second = self.noises
        do_batch(self.parts, self.indices, first, second, self.sums)

    def _do_warm(self) -> None:
        before = graph_inputs(self.parts)
        self.recorder.warm(self._work)
        self._warm += 1
        changed = sorted(name for name, value in graph_inputs(self.parts).items() if before.get(name) != value)
        if self._warm == WARM_UP and changed:  # the first steps may fill caches
            self._fall_back(f"{', '.join(changed)} changes within a step")

    def _record(self) -> Work | None:
        """The replay of a fresh recording, or None where there can be none."""
        sums = dict(self.sums)
        self._held = graph_inputs(self.parts)
        try:
            replay = self.recorder.record(self._work, self.noises)
            new = sorted(set(self.sums) - set(sums))
            if new:
                raise UsageError(f"the term {', '.join(new)} is not in every step")
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a plug-in may do anything in a step; without a recording it may well run
            self.sums = sums
            self._fall_back(f"{type(error).__name__}: {one_line(error)}")
            return None
        self.recordings += 1
        return replay

    def _fall_back(self, reason: str) -> None:
        self.how = f"{EAGER_FALLBACK}{reason}"
        for parameter in self.parts.model.parameters():
            parameter.grad = None  # it may lie in the memory of a recording that is gone


def default_step(parts: TrainContext) -> Step:
    """Recorded on a GPU, eager elsewhere."""
    return CapturedStep(parts, CudaRecorder(parts.device)) if parts.device.type == "cuda" else EagerStep(parts)


# ---------------------------------------------------------------- what a recording holds fast

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}


def graph_inputs(parts: TrainContext) -> dict[str, str]:
    """What a recording takes as it is, by name: learning rates, the Python state of every module, where tensors lie."""
    held = {
        f"the learning rate of {name}": repr([group["lr"] for group in optimizer.param_groups])
        for name, optimizer in parts.optimizers.items()
    }
    for path, module in parts.model.named_modules():
        own = {name: value for name, value in vars(module).items() if name not in _OF_TORCH}
        tensors = {**module._parameters, **module._buffers}
        held |= {f"{path}.{name}".lstrip("."): _plain(value) for name, value in {**own, **tensors}.items()}
    return held


def _plain(value: Any) -> str:
    """Numbers, words and collections of them by value, tensors by their place, anything else by identity."""
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value)
    if isinstance(value, Tensor):
        return f"tensor at {value.data_ptr()}"
    if isinstance(value, dict):
        return repr([(_plain(key), _plain(member)) for key, member in value.items()])
    if isinstance(value, list | tuple | set | frozenset):
        return repr([_plain(member) for member in value])
    return f"{type(value).__name__} {id(value)}"
