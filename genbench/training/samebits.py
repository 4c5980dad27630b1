"""Which counts of CPU threads give a training step the same bits: each of its operations is done again with each."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from genbench.training.device import threads

GRAIN = 32_768
"""Numbers below which torch's loops over elements and its sums have one thread (ATen's `GRAIN_SIZE`)."""
FEW = 16
"""Numbers below which two orders of adding may well round alike: a count that differs would not be found out."""
VECTOR_BYTES = 128
"""An elementwise loop does this much at once and what is left in another way, which may round otherwise. A thread's
share has to be a multiple of it: sigmoid differs in 3 of 100,003 numbers between one thread and three."""

LEAST = 1e-3
"""Seconds of its own before a step can say that others take too long."""
KNOWN = ("aten", "profiler", "genbench")
"""Whose operations the names below are; a plug-in's own may have the same names."""
OPTIMISER = re.compile(r"Optimizer\.step#(\w+)\.step")
"""How torch names an optimiser's step."""


def _names(words: str) -> frozenset[str]:
    return frozenset(words.split())


MOVING = _names(
    """alias arange argsort as_strided cat clone copy_ detach diagonal_backward empty empty_like empty_strided
    expand eye fill_ full full_like gather index index_select lift_fresh new_empty new_full new_ones new_zeros ones
    ones_like permute rand rand_like randint randn randn_like randperm scalar_tensor select_backward slice_backward
    sort squeeze stack unsqueeze zero_ zeros zeros_like _to_copy _unsafe_view normal_ uniform_ tril triu
    order_of_rows _record_function_enter_new _record_function_exit"""
)
"""Operations that add nothing up: moves, new memory, draws (which have one thread), rows put in order one by one."""
PRODUCTS = _names("mm addmm bmm baddbmm")
"""Matrix products: their library divides them as it likes, by their shapes."""
SUMS = _names("sum mean amax amin linalg_vector_norm cumsum scatter_add")
"""Sums. Threads divide the numbers that come out, unless that is a single one."""
COMPOSED = _names(
    """binary_cross_entropy binary_cross_entropy_with_logits huber_loss l1_loss logsumexp mse_loss smooth_l1_loss
    _log_softmax _softmax"""
)
"""Sums, or none, of what loops over elements have made."""
ELEMENTWISE = _names(
    """floor_divide softplus_backward mse_loss_backward _softmax_backward_data _log_softmax_backward_data _fused_adam_
    _fused_adamw_ _fused_sgd_ _foreach_add_ _foreach_mul_ _foreach_addcdiv_ _foreach_addcmul_ _foreach_lerp_"""
)
"""Those that torch does not tag as such."""
EXACT = _names(
    """abs add add_ clamp clamp_ clamp_max clamp_max_ clamp_min clamp_min_ div div_ eq ge gt le lt maximum minimum mul
    mul_ ne neg neg_ relu relu_ sign sqrt sqrt_ sub sub_ threshold_backward where"""
)
"""Those whose result IEEE 754 determines, however a loop goes about it; sums with a factor are not among them."""


class SameBits(TorchDispatchMode):
    """Within it every operation is done as ever, and again with other counts of threads on copies of what it changes.

    What comes of a step is hence what would come of it without: nothing is undone. `counts` are at last those whose
    every operation gave the bits of the count at hand. None is left, and `refused` names the operation, where one
    is none of those above: it may depend on values (`item`, a mask's selection), have no fixed order (an accumulating
    `index_put`), or round alike too often to be found out (a convolution in bfloat16, whose result hides most of it;
    one number that is the sum of many).
    """

    def __init__(
        self, counts: Sequence[int], patience: float = math.inf, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        """For counts of threads, those beside the one at hand; `stalled` where they took `patience` times its time."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked, self.counts = tuple(counts), list(counts)
        self.refused, self.stalled = "", False
        self.seconds = 0.0
        self._patience, self._clock = patience, clock
        self._own = 0.0
        self._within: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Do it, and find out."""
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__ if func.namespace in KNOWN else str(func)
        self._follow(name, args)
        if not self.counts or self.stalled or self._harmless(func, name, args):
            return func(*args, **kwargs)
        spare = [_writable_copies(func, args, kwargs) for _ in self.counts]
        began = self._clock()
        result = func(*args, **kwargs)
        self._own += self._clock() - began
        came = list(_tensors((result, args, kwargs)))
        if not _examinable(func, name, result, came):
            self.counts, self.refused = [], name
        elif name in PRODUCTS or _largest(came) >= GRAIN:
            exact = name in PRODUCTS | SUMS or (name in EXACT and kwargs.get("alpha", 1) == 1)
            for count, (its, own) in zip(tuple(self.counts), spare, strict=True):
                began = self._clock()
                with threads(count):
                    again = func(*its, **own)
                self.seconds += self._clock() - began
                fits = (exact or _whole_vectors(came, count)) and _equal(came, list(_tensors((again, its, own))))
                if not fits:
                    self.counts.remove(count)
                    self.refused = name
            self.stalled = self.seconds > self._patience * len(spare) * max(self._own, LEAST)
        return result

    def _follow(self, name: str, args: tuple[Any, ...]) -> None:
        """Keep the names of what torch records functions of: an optimiser's step is one."""
        if name == "_record_function_enter_new":
            self._within.append(args[0])
        elif name == "_record_function_exit" and self._within:
            self._within.pop()

    def _harmless(self, func: Any, name: str, args: tuple[Any, ...]) -> bool:
        """Whether threads have no part in it. Torch's optimisers look at a number only to correct moments by it."""
        if name == "_local_scalar_dense":
            return any(hasattr(torch.optim, found[1]) for found in map(OPTIMISER.fullmatch, self._within) if found)
        return func.is_view or (name in MOVING and not _masks(name, args))


def _examinable(func: Any, name: str, result: Any, came: Sequence[Tensor]) -> bool:
    """Whether doing it again would show that threads change a bit."""
    if not all(tensor.layout is torch.strided and tensor.device.type == "cpu" for tensor in came):
        return False
    if any(tensor.is_conj() or tensor.is_neg() for tensor in came):
        return False
    made = [tensor for tensor in _tensors(result) if tensor.is_floating_point()]
    if name in PRODUCTS:
        return all(tensor.numel() >= FEW and tensor.dtype in (torch.float32, torch.float64) for tensor in made)
    if name in SUMS | COMPOSED:
        return all(tensor.numel() >= FEW for tensor in made) or _largest(came) < GRAIN
    if torch.Tag.nondeterministic_seeded in func.tags:
        return False
    return name in ELEMENTWISE or torch.Tag.pointwise in func.tags


def _whole_vectors(came: Sequence[Tensor], count: int) -> bool:
    """Whether each of `count` threads has a multiple of what an elementwise loop does at once."""
    for tensor in came:
        shares = min(count, -(-tensor.numel() // GRAIN))
        if shares > 1 and -(-tensor.numel() // shares) * tensor.element_size() % VECTOR_BYTES:
            return False
    return True


def _masks(name: str, args: tuple[Any, ...]) -> bool:
    """Whether a tensor chooses by truth: how many numbers come out depends on values."""
    return name == "index" and any(tensor.dtype in (torch.bool, torch.uint8) for tensor in _tensors(args[1:]))


def _writable_copies(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """The arguments, copied where the operation writes to them and is large enough to be done again."""
    schema = func._schema.arguments
    written = {argument.name for argument in schema if argument.alias_info is not None and argument.alias_info.is_write}
    if not written or _largest(_tensors((args, kwargs))) < GRAIN:
        return list(args), dict(kwargs)

    def copied(name: str, value: Any) -> Any:
        return tree_map_only(Tensor, torch.clone, value) if name in written else value

    positional = [copied(argument.name, value) for argument, value in zip(schema, args, strict=False)]
    return positional, {name: copied(name, value) for name, value in kwargs.items()}


def _largest(tensors: Iterable[Tensor]) -> int:
    return max((tensor.numel() for tensor in tensors), default=0)


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _equal(some: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    """Bit for bit, the NaN of one being that of the other."""
    return all(a is b or torch.equal(_bits(a), _bits(b)) for a, b in zip(some, others, strict=True))


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)
