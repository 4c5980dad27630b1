"""Several trainings advanced in turns in one process: on a GPU the small steps of many seeds fill it together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from genbench.train import Moment


def together(
    trainings: Sequence[Iterator[Moment | None]], device: torch.device, seeds: Sequence[int]
) -> Iterator[tuple[int, Moment]]:
    """Advance every training (`genbench.train.train`) by one step in turn; yields (which of them, its moment).

    Each ends as it would alone: all it draws comes from its own seed, and torch's global random state, for plug-ins
    that use it, is its own too and begins at its member of `seeds`. On a GPU each has a stream of its own, on which its
    recording is replayed: nothing waits but at log points. Iterating does the work; the trainings are those of one
    device. A training that raises ends the iteration; the others can be iterated on.
    """
    if len(seeds) != len(trainings):
        raise ValueError(f"{len(trainings)} trainings and {len(seeds)} seeds; give a seed for each")
    lanes = [_Lane(device, seed) for seed in seeds]
    going = list(range(len(trainings)))
    while going:
        for which in tuple(going):
            try:
                with lanes[which].turn():
                    moment = next(trainings[which])
            except StopIteration:
                going.remove(which)
                continue
            if moment is not None:
                yield which, moment


class _Lane:
    """A stream, and a copy of torch's global random state while another training has its turn."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self.device, self.gpu = device, device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.gpu else None
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(device))  # the images and the weights are on their way
        with torch.random.fork_rng([device] if self.gpu else []):
            torch.manual_seed(seed)
            self.state = self._read()

    def turn(self) -> AbstractContextManager[None]:
        """Its stream and its random state are the current ones within."""
        return _Turn(self)

    def _read(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if self.gpu else [])]

    def _write(self, state: Sequence[torch.Tensor]) -> None:
        torch.set_rng_state(state[0])
        if self.gpu:
            torch.cuda.set_rng_state(state[1], self.device)


class _Turn(AbstractContextManager[None]):
    def __init__(self, lane: _Lane) -> None:
        self.lane = lane
        self.outside = lane._read()
        self.on_stream: AbstractContextManager[object] = (
            torch.cuda.stream(lane.stream) if lane.stream is not None else nullcontext()
        )

    def __enter__(self) -> None:
        self.lane._write(self.lane.state)
        self.on_stream.__enter__()

    def __exit__(self, *problem: object) -> None:
        self.on_stream.__exit__(*problem)  # type: ignore[arg-type]
        self.lane.state = self.lane._read()
        self.lane._write(self.outside)
