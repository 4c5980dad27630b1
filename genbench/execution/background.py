"""Work of a finished run that goes on while the next run trains: exact optimal transport on CPU threads.

Threads, not processes: POT releases the interpreter's lock in its network simplex (a loop beside a solve of 1,500
points was never held up for more than 6 ms), and nothing has to be copied or imported anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Finished(Generic[T]):
    """What became of a task: its `result`, or the `error` that it raised."""

    name: str
    result: T | None
    error: Exception | None


class Background(Generic[T]):
    """Tasks on threads, handed back in the order in which they were given; use it in a `with`.

    A task must own what it works on (codes on the CPU, not the model), since the caller goes on meanwhile, and must not
    write files that the caller writes: it returns what `ready` or `rest` hands to the caller's own thread. At most
    `waiting` tasks are unfinished, so that memory stays flat in the number of runs. Leaving the `with` by an error
    drops tasks that have not begun and waits for those that have.
    """

    def __init__(self, workers: int = 1, waiting: int = 2) -> None:
        if workers < 1 or waiting < workers:
            raise ValueError(f"background: {workers} workers, {waiting} waiting; at least 1, and as many as workers")
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="background")
        self._waiting = waiting
        self._tasks: deque[tuple[str, Future[T]]] = deque()

    def give(self, name: str, task: Callable[[], T]) -> Iterator[Finished[T]]:
        """Begin a task; what has finished, after waiting for the oldest where too many are unfinished."""
        finished = list(self.ready())
        while len(self._tasks) >= self._waiting:
            finished.append(self._oldest())
        self._tasks.append((name, self._pool.submit(task)))
        return iter(finished)

    def ready(self) -> Iterator[Finished[T]]:
        """What has finished, oldest first, without waiting; a task is not handed back before those given earlier."""
        while self._tasks and self._tasks[0][1].done():
            yield self._oldest()

    def rest(self) -> Iterator[Finished[T]]:
        """Everything that is left, waited for."""
        while self._tasks:
            yield self._oldest()

    def _oldest(self) -> Finished[T]:
        name, future = self._tasks[0]
        error = future.exception()  # waits; an interrupt here leaves the task in the queue
        self._tasks.popleft()
        if error is not None and not isinstance(error, Exception):
            raise error
        return Finished(name, None if error else future.result(), error)

    def __enter__(self) -> Self:
        """The tasks themselves."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End the threads, whatever happened."""
        self._pool.shutdown(wait=True, cancel_futures=True)
