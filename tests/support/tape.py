"""A stand-in for a CUDA graph on the CPU: operations on fixed memory, recorded once, replayed without Python.

As in a graph, numbers of Python are baked in, each result is written to the memory that it had when recorded, nothing
is done while recording, and an operation that waits on the device is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Operations = Callable[[], None]


@dataclass
class TapeRecorder:
    """Counts warm-up steps and recordings."""

    warmed: int = 0
    recorded: int = 0

    def warm(self, operations: Operations) -> None:
        self.warmed += 1
        operations()

    def record(self, operations: Operations, noises: Sequence[Generator]) -> Operations:
        self.recorded += 1
        states = [noise.get_state() for noise in noises]
        tape = Tape()
        try:
            with tape:
                operations()
        finally:  # recording does nothing
            for noise, state in zip(noises, states, strict=True):
                noise.set_state(state)
            tape.undo()
        return tape.replay


@dataclass
class Tape(TorchDispatchMode):
    """The operations within, each with the tensors that it read and made."""

    lines: list[tuple[Any, Any, Any, list[Tensor]]] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    before: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("operation not permitted when stream is capturing")
        for tensor in tensors((args, kwargs)):
            if storage_key(tensor) not in self.known:
                self.known.add(storage_key(tensor))
                whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())  # type: ignore[call-overload]
                self.before.append((whole, whole.clone()))
        made = func(*args, **kwargs)
        self.lines.append((func, args, kwargs, list(tensors(made))))
        self.known |= {storage_key(tensor) for tensor in tensors(made)}
        return made

    def undo(self) -> None:
        for memory, content in self.before:
            memory.copy_(content)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, kept in self.lines:
            for old, new in zip(kept, tensors(func(*args, **kwargs)), strict=True):
                if storage_key(old) != storage_key(new):
                    old.copy_(new)


def storage_key(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def tensors(tree: Any) -> Iterable[Tensor]:
    return (leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor))
