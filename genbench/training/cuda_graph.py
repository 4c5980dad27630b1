"""A training step recorded once and replayed: on a GPU one CUDA graph holds all losses and their optimizer steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from genbench.errors import UsageError, one_line
from genbench.training.step import EAGER_FALLBACK, EagerStep, Step, StepContext, Sums

Operations = Callable[[], None]

WARM_UP = 3
"""Steps done eagerly before the recording: optimizers create their state, libraries choose kernels. They are steps of
the training like any other, so nothing has to be undone."""


class Recorder(Protocol):
    """Records operations on fixed memory without doing them, and returns a function that does them."""

    def warm(self, operations: Operations) -> None:
        """Do the operations where they will be recorded."""

    def record(self, operations: Operations, noises: Sequence[Generator]) -> Operations:
        """A function that does the operations again, with `noises` in the state that they have when it is called.

        Raises whatever the operations raise where they cannot be recorded; nothing of them is done then.
        """


class CudaRecorder:
    """Records CUDA graphs on a side stream; they are replayed on the stream that is current then."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def warm(self, operations: Operations) -> None:
        """Do the operations on the side stream; each stream waits for the other."""
        current = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(current)
        with torch.cuda.stream(self.stream):
            operations()
        current.wait_stream(self.stream)

    def record(self, operations: Operations, noises: Sequence[Generator]) -> Operations:
        """Record one graph with a private memory pool; other threads may use the device meanwhile."""
        graph = torch.cuda.CUDAGraph()
        for noise in noises:
            graph.register_generator_state(noise)  # its seed and offset are read at each replay
        with torch.cuda.graph(graph, stream=self.stream, capture_error_mode="thread_local"):
            operations()
        return graph.replay


class CapturedStep:
    """Replays a recording of `do_batch`; the batch's indices and random numbers are set before each replay.

    The Python values that are baked into a recording (numbers kept by the model, learning rates; `graph_inputs`) are
    compared at the start of every epoch; where one has changed, the next step is recorded anew. A tensor that is
    changed in place needs no new recording. A step that cannot be recorded is done eagerly from then on, and `how`
    says why.
    """

    def __init__(self, context: StepContext, recorder: Recorder) -> None:
        self.context, self.recorder = context, recorder
        self.indices = torch.zeros(context.batch_shape, dtype=torch.int64, device=context.device)
        self.sums: Sums = {}
        self.how = "graph"
        self.recordings = 0
        self._warm = 0
        self._inputs: dict[str, str] = {}
        self._replay: Operations | None = None

    def on_epoch_start(self, epoch: int) -> None:
        """Pass the epoch on; drop the recording where a value in it is out of date."""
        self.context.on_epoch_start(epoch)
        if self._replay is not None and graph_inputs(self.context) != self._inputs:
            self._replay = None

    def run(self, step: int, indices: Tensor) -> None:
        """One step: eagerly while warming up, then by replay."""
        self.indices.copy_(indices)
        self.context.noise.prepare(step)
        if self.how != "graph":
            self._do_batch()
        elif self._warm < WARM_UP:
            self._warm_up()
        else:
            if self._replay is None:
                self._replay = self._record()
            (self._replay or self._do_batch)()

    def take_sums(self) -> Sums:
        """A copy of the sums, which go on in the same memory from zero."""
        taken = {name: value.clone() for name, value in self.sums.items()}
        for value in self.sums.values():
            value.zero_()
        return taken

    def _do_batch(self) -> None:
        self.context.do_batch(self.indices, self.sums)

    def _warm_up(self) -> None:
        before = graph_inputs(self.context)
        self.recorder.warm(self._do_batch)
        self._warm += 1
        changed = sorted(name for name, value in graph_inputs(self.context).items() if before.get(name) != value)
        if self._warm == WARM_UP and changed:  # the first steps may fill caches
            self._fall_back(f"{', '.join(changed)} changes within a step")

    def _record(self) -> Operations | None:
        """The replay of a new recording, or None where the step cannot be recorded."""
        sums = dict(self.sums)
        self._inputs = graph_inputs(self.context)
        try:
            replay = self.recorder.record(self._do_batch, self.context.noise.generators)
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
        for optimizer in self.context.optimizers.values():
            optimizer.zero_grad(set_to_none=True)  # gradients may lie in the memory of a recording that is gone


def default_step(context: StepContext) -> Step:
    """A CUDA graph on a GPU, eager operations elsewhere."""
    return CapturedStep(context, CudaRecorder(context.device)) if context.device.type == "cuda" else EagerStep(context)


# ---------------------------------------------------------------- inputs of a recording

_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}


def graph_inputs(context: StepContext) -> dict[str, str]:
    """Everything baked into a CUDA graph, by name: learning rates, module attributes, tensor addresses."""
    inputs = {
        f"the learning rate of {name}": repr([group["lr"] for group in optimizer.param_groups])
        for name, optimizer in context.optimizers.items()
    }
    inputs["the operations of a step"] = str(context.version)
    for path, module in context.model.named_modules():
        attributes = {name: value for name, value in vars(module).items() if name not in _OF_TORCH}
        tensors = {**module._parameters, **module._buffers}
        inputs |= {f"{path}.{name}".lstrip("."): _text(value) for name, value in {**attributes, **tensors}.items()}
    return inputs


def _text(value: Any) -> str:
    """Numbers, strings and collections of them by value, tensors by address, anything else by identity."""
    if value is None or isinstance(value, bool | int | float | complex | str):
        return repr(value)
    if isinstance(value, Tensor):
        return f"tensor at {value.data_ptr()}"
    if isinstance(value, dict):
        return repr([(_text(key), _text(member)) for key, member in value.items()])
    if isinstance(value, list | tuple | set | frozenset):
        return repr([_text(member) for member in value])
    return f"{type(value).__name__} {id(value)}"
