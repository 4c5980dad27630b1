"""A step on as many CPU threads as make it quickest, among the counts that give the same bits; measured on the way."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial

from torch import Tensor

from genbench.training.cuda_graph import default_step
from genbench.training.device import DeviceConfig, threads
from genbench.training.samebits import SameBits
from genbench.training.step import EagerStep, StepOf, Sums, TrainContext

WARM_UP = 3
"""Steps on one thread before anything is tried: optimisers make their state, modules fill caches."""
EXAMINED = 4
"""Steps whose every operation a count of threads must do with one thread's bits before it is tried, and one more ahead
of every later trial and at every epoch's begin: a model may go on to other operations there."""
ROUNDS = 2
BLOCK = 8
"""A trial gives each count this many steps in a row, the first of which pays for the change, and that in rounds."""
WORTH = 1.1
"""More threads are taken where they are this many times as fast as fewer: less than that is left to other processes."""
HOPELESS = 3.0
"""Times a step on one thread, beyond which a step on several, but for the first of a block, ends their trial."""
PATIENCE = 10.0
"""Steps on one thread whose time may be lost against them before that: it takes one stalled step, or many."""
SHARE = 50.0
"""A trial comes again after so many times what it lost against the count that it chose."""
REST = 60.0
"""Where trials change nothing they come half as often each time, down to one in so many seconds."""


class MeasuredStep:
    """Eager steps of a small network, which have one thread each unless more are quicker and change nothing.

    How many are quicker depends on what else the machine does, now and later, so short trials are taken again and
    again, and at once where several threads turn out slower than one. No number may depend on that. So steps are
    examined first, on one thread, each of their operations done again with every other count (`SameBits`), and a count
    that changes a bit of any is never used; where an operation cannot be examined there is one thread. What is not seen
    is a model that goes on to other operations within an epoch, by what it keeps outside of tensors, until the next
    step that is examined.
    """

    how = "eager"

    def __init__(self, parts: TrainContext, most: int, clock: Callable[[], float] = time.perf_counter) -> None:
        """For up to `most` threads; on a CPU."""
        self.parts, self.clock = parts, clock
        self.most_threads = 0
        self._step = EagerStep(parts)
        self._counts = (1, *(2**k for k in range(1, most.bit_length()) if 2**k < most), most) if most > 1 else (1,)
        self._warm, self._due = WARM_UP, EXAMINED
        self._count = self._previous = 1
        self._queue: deque[int] = deque()
        self._times: dict[int, list[float]] = {}
        self._alone = self._lost = 0.0
        self._trial_took = self._next_trial = self._rest = 0.0
        self._steps_tried = 0
        self._taken: Counter[int] = Counter()

    @property
    def usual_threads(self) -> int:
        """The count that most steps so far had; 0 where there never was a choice."""
        return self._taken.most_common(1)[0][0] if self.most_threads else 0

    def on_epoch_start(self, epoch: int) -> None:
        """Pass it on; the next step is examined before several threads are used again."""
        self._step.on_epoch_start(epoch)
        self._due = max(self._due, 1)

    def do(self, step: int, indices: Tensor) -> None:
        """One step on the count of threads that is due, timed."""
        if len(self._counts) == 1:
            self._timed(1, step, indices)
        elif self._warm:
            self._warm -= 1
            self._timed(1, step, indices)
        elif self._due and (self._count > 1 or self._queue or self.clock() >= self._next_trial):
            self._examine(step, indices)
        elif self._queue:
            self._try(step, indices)
        else:
            self._go_on(step, indices)

    def take(self) -> Sums:
        """The sums of the steps."""
        return self._step.take()

    def _examine(self, step: int, indices: Tensor) -> None:
        """A step on one thread that finds out which of the others give its bits; a trial where one is due."""
        only_this = self._count > 1 and not self._queue and self.clock() < self._next_trial
        examination = SameBits((self._count,) if only_this else self._counts[1:], PATIENCE, self.clock)
        with examination:
            self._timed(1, step, indices)
        if examination.stalled:
            self._rest_after(examination.seconds)
            return
        self._due -= 1
        unfit = set(examination.asked).difference(examination.counts)
        if unfit:
            self._counts = tuple(count for count in self._counts if count not in unfit)
            self._count, self._rest, self._next_trial = 1, 0.0, self.clock()
            self._queue.clear()
        if len(self._counts) > 1 and not self._due:
            self.most_threads = max(self.most_threads, self._counts[-1])
            if not self._queue and self.clock() >= self._next_trial:
                self._begin_trial()

    def _rest_after(self, lost: float) -> None:
        """One thread, and no trial until what was lost is a small share of the time since."""
        self._queue.clear()
        self._count, self._rest = 1, SHARE * lost
        self._next_trial = self.clock() + self._rest

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
        if self._lost > PATIENCE * self._alone:
            self._next_trial = self.clock()
        if self.clock() >= self._next_trial:
            self._due = max(self._due, 1)

    def _timed(self, count: int, step: int, indices: Tensor) -> float:
        """Do a step; its seconds."""
        began = self.clock()
        with threads(count):
            self._step.do(step, indices)
        self._taken[count] += 1
        return self.clock() - began


def arranged_step(arrangement: DeviceConfig) -> StepOf:
    """What makes the steps of a training that is arranged so."""
    if arrangement.at_most > arrangement.threads:
        return partial(MeasuredStep, most=arrangement.at_most)
    return default_step
