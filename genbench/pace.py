"""A step on as many CPU threads as make it quickest, among the counts that give the same bits; measured on the way."""

from __future__ import annotations

import copy
import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import BuiltinFunctionType, FunctionType

import torch
from torch import Tensor

from genbench.api import Setting
from genbench.capture import held_fast, own_attributes, usual_step
from genbench.machine import Arrangement, threads
from genbench.random import generator
from genbench.steps import PURPOSES, EagerStep, Parts, StepOf, Sums, add_terms, do_batch

WARM_UP = 3
"""Steps on one thread before anything is tried: optimisers make their state, modules fill caches."""
ROUNDS = 2
BLOCK = 8
"""A trial gives each count this many steps in a row, the first of which pays for the change, and that in rounds."""
WORTH = 1.1
"""More threads are taken where they are this many times as fast as fewer: less than that is left to other processes."""
HOPELESS = 3.0
"""Times a step on one thread, beyond which a step on several ends their trial."""
PATIENCE = 10.0
"""Steps on one thread whose time may be lost against them before a new trial: it takes one stalled step, or many."""
SHARE = 50.0
"""A trial comes again after so many times what it lost against the count that it chose."""
REST = 60.0
"""Where trials change nothing they come half as often each time, down to one in so many seconds."""


class MeasuredStep:
    """Eager steps of a small network, which have one thread each unless more are quicker and change nothing.

    How many are quicker depends on what else the machine does, now and later, so short trials are taken again and
    again, and at once where several threads turn out slower than one. No number may depend on that. So each count is
    first given one step that is undone afterwards: if parameters, buffers, gradients, optimisers' states or terms
    differ in one bit from those of one thread, that count is never used. Which kernels a step runs depends on its
    shapes and on what the model keeps outside of tensors, not on the values; where the latter has changed at an epoch's
    begin, each count is examined again. Where a step changes it, or something that could not be seen or undone
    (`transparent`), nothing is tried and there is one thread.
    """

    how = "eager"

    def __init__(self, parts: Parts, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """For up to `most` threads; on a CPU."""
        self.parts, self.clock = parts, clock
        self._step = EagerStep(parts)
        self._counts = (1, *(2**k for k in range(1, most.bit_length()) if 2**k < most), most) if most > 1 else (1,)
        self._examined, self._due = False, True
        self._held: dict[str, str] = {}
        self._warm = 0
        self._count = self._previous = 1
        self._steps_tried = 0
        self._queue: deque[int] = deque()
        self._times: dict[int, list[float]] = {}
        self._alone = 0.0  # seconds of a step on one thread
        self._lost = 0.0
        self._trial_took = self._next_trial = self._rest = 0.0
        self._taken: Counter[int] = Counter()

    @property
    def most_threads(self) -> int:
        """The most threads that may be chosen, 0 where only one gives the same bits or nothing was examined yet."""
        return self._counts[-1] if self._examined and len(self._counts) > 1 else 0

    @property
    def usual_threads(self) -> int:
        """The count that most steps so far had; 0 where there was no choice."""
        return self._taken.most_common(1)[0][0] if self.most_threads else 0

    def begin_epoch(self, epoch: int) -> None:
        """Pass it on; examine anew where the model keeps something else than before."""
        self._step.begin_epoch(epoch)
        if self._examined and self._kept() != self._held:
            self._due = True

    def do(self, step: int, indices: Tensor) -> None:
        """One step on the count of threads that is due, timed."""
        if len(self._counts) == 1:
            self._timed(1, step, indices)
        elif self._warm < WARM_UP:
            self._warm_up(step, indices)
        elif self._due:
            self._examine(step, indices)
        elif self._queue:
            self._try(step, indices)
        else:
            self._go_on(step, indices)

    def take(self) -> Sums:
        """The sums of the steps."""
        return self._step.take()

    # ------------------------------------------------------------ which counts give the same bits

    def _warm_up(self, step: int, indices: Tensor) -> None:
        """A step on one thread; the last one must leave what the model keeps outside of tensors as it was."""
        self._held = self._kept()
        self._timed(1, step, indices)
        self._warm += 1
        if self._warm == WARM_UP and not (self._kept() == self._held and transparent(self.parts)):
            self._counts = (1,)

    def _examine(self, step: int, indices: Tensor) -> None:
        """Do a step once with each count, undoing it but for the last, which is one thread's."""
        self._held = self._kept()
        digests: dict[int, bytes] = {}
        for count in self._counts[1:]:
            with undone(self.parts), threads(count):
                sums = self._bare(step, indices)
                digests[count] = digest(self.parts, sums)
        with threads(1):
            sums = self._bare(step, indices)
        add_terms(self._step.sums, sums)
        alone = digest(self.parts, sums)
        self._taken[1] += 1
        before = self._counts
        self._counts = (1, *(count for count, found in digests.items() if found == alone))
        if self._counts != before or not self._examined:
            self._count, self._rest = 1, 0.0
            self._begin_trial()
        self._examined, self._due = True, False

    def _bare(self, step: int, indices: Tensor) -> Sums:
        """One step, and its terms alone."""
        first, second = (generator(self.parts.device, self.parts.seed, purpose, step) for purpose in PURPOSES)
        sums: Sums = {}
        do_batch(self.parts, indices, first, second, sums)
        return sums

    def _kept(self) -> dict[str, str]:
        """What the model keeps outside of tensors, which may decide what a step does."""
        return {name: value for name, value in held_fast(self.parts).items() if not name.startswith(RATE)}

    # ------------------------------------------------------------ which of them is the quickest

    def _begin_trial(self) -> None:
        self._queue = deque([count for _ in range(ROUNDS) for count in self._counts for _ in range(BLOCK)])
        self._times = {count: [] for count in self._counts}
        self._trial_took, self._steps_tried, self._previous = 0.0, 0, 0

    def _try(self, step: int, indices: Tensor) -> None:
        """The next step of a trial."""
        count = self._queue.popleft()
        taken = self._timed(count, step, indices)
        self._trial_took, self._steps_tried = self._trial_took + taken, self._steps_tried + 1
        settled, self._previous = count == self._previous, count  # the first of a block finds another one's threads
        if settled:
            self._times[count].append(taken)
        if count > 1 and taken > (HOPELESS if settled else PATIENCE) * min(self._times[1]):
            self._queue = deque(other for other in self._queue if other != count)
            self._times.pop(count)
        if not self._queue:
            self._decide()

    def _decide(self) -> None:
        medians = {count: sorted(times)[len(times) // 2] for count, times in self._times.items()}
        best = min(medians.values())
        chosen = min(count for count, median in medians.items() if median <= WORTH * best)
        later = min(2.0 * self._rest, REST) if chosen == self._count else 0.0
        lost = self._trial_took - self._steps_tried * medians[chosen]
        self._rest = max(SHARE * lost, self._trial_took, later)
        self._next_trial = self.clock() + self._rest
        self._count, self._alone, self._lost = chosen, medians[1], 0.0

    def _go_on(self, step: int, indices: Tensor) -> None:
        """A step outside of trials; several threads are given up where they lose time against one."""
        taken = self._timed(self._count, step, indices)
        if self._count > 1:
            self._lost = max(0.0, self._lost + taken - self._alone)
        if self._lost > PATIENCE * self._alone or self.clock() >= self._next_trial:
            self._begin_trial()

    def _timed(self, count: int, step: int, indices: Tensor) -> float:
        """Do a step; its seconds."""
        began = self.clock()
        with threads(count):
            self._step.do(step, indices)
        self._taken[count] += 1
        return self.clock() - began


CONSTANT = (
    *(bool, int, float, complex, str, bytes, Setting),
    *(FunctionType, BuiltinFunctionType, type, torch.dtype, torch.device, torch.memory_format),
)
"""What a step is taken to leave as it is."""
RATE = "the learning rate of "
"""How `held_fast` names what an optimiser multiplies with, which decides no kernel."""


def arranged_step(arrangement: Arrangement) -> StepOf:
    """What makes the steps of a training that is arranged so."""
    if arrangement.at_most > arrangement.threads:
        return partial(MeasuredStep, most=arrangement.at_most)
    return usual_step


@contextmanager
def undone(parts: Parts) -> Iterator[None]:
    """Parameters, buffers, optimisers' states and torch's random state are afterwards what they were."""
    tensors = _tensors(parts)
    before = [tensor.detach().clone() for tensor in tensors]
    states = {name: copy.deepcopy(optimiser.state_dict()) for name, optimiser in parts.optimisers.items()}
    random = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(random)
        for name, optimiser in parts.optimisers.items():
            optimiser.load_state_dict(states[name])
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)


def digest(parts: Parts, sums: Sums) -> bytes:
    """Of every bit that a step may have changed: parameters, buffers, gradients, optimisers' states, its terms."""
    found = hashlib.blake2b(digest_size=16)

    def add(value: object) -> None:
        if isinstance(value, Tensor):
            found.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        elif isinstance(value, dict):
            for key in value:
                found.update(repr(key).encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            for member in value:
                add(member)
        else:
            found.update(repr(value).encode())

    for tensor in _tensors(parts):
        add(tensor)
        add(tensor.grad)
    for optimiser in parts.optimisers.values():
        add(optimiser.state_dict()["state"])
    add(sums)
    return found.digest()


def transparent(parts: Parts) -> bool:
    """Whether everything is in sight that a step may change, and can be undone.

    The modules keep parameters, buffers, plain values and collections of them, functions and their setting; an object
    or a tensor of another kind may change in ways that nobody sees.
    """
    known = {id(tensor) for tensor in _tensors(parts)}

    def seen(value: object) -> bool:
        if isinstance(value, dict):
            return all(seen(member) for pair in value.items() for member in pair)
        if isinstance(value, list | tuple | set | frozenset):
            return all(map(seen, value))
        return value is None or isinstance(value, CONSTANT) or id(value) in known

    return all(seen(value) for module in parts.model.modules() for value in own_attributes(module).values())


def _tensors(parts: Parts) -> list[Tensor]:
    """Parameters and buffers, each once, those that only a player has among them."""
    own = [*parts.model.parameters(), *parts.model.buffers()]
    own += [parameter for player in parts.players.values() for parameter in player.parameters]
    return list({id(tensor): tensor for tensor in own}.values())
