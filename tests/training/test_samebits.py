"""Operations done again with other counts of threads: what differs is found, what cannot be examined is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import accumulate, cycle

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.training.device import threads
from genbench.training.samebits import GRAIN, SameBits

LARGE = 4 * GRAIN
ODD = 100_003
"""No multiple of what a loop does at once, whoever divides it."""
SPARSE = torch.eye(3).to_sparse()


def examined(work: Callable[[], object], counts: tuple[int, ...] = (2, 3)) -> SameBits:
    with threads(1), SameBits(counts) as examination:
        work()
    return examination


def drawn(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "work",
    [
        lambda: drawn(LARGE).sigmoid(),
        lambda: drawn(ODD).sqrt() + drawn(ODD) * 2.0,
        lambda: drawn(400, 500).sum(1),
        lambda: drawn(GRAIN - 1).sum(),
        lambda: drawn(LARGE).clone().sort(),
        lambda: F.binary_cross_entropy_with_logits(drawn(512, 500), drawn(512, 500), reduction="none"),
    ],
)
def test_what_threads_do_not_change_keeps_every_count(work: Callable[[], object]) -> None:
    examination = examined(work, (2, 4))
    assert (examination.counts, examination.refused) == ([2, 4], "")


@pytest.mark.parametrize(
    ("work", "name"),
    [
        (lambda: drawn(ODD).sigmoid(), "sigmoid"),
        (lambda: drawn(ODD).exp(), "exp"),  # as it happens, equal here
        (lambda: F.mse_loss(drawn(ODD), drawn(ODD), reduction="none"), "mse_loss"),  # equal as well
        (lambda: drawn(LARGE).mean(), "mean"),
        (lambda: F.mse_loss(drawn(LARGE), drawn(LARGE)), "mse_loss"),
        (lambda: drawn(1, 500) @ drawn(500, 2), "mm"),
        (lambda: drawn(40, 50).bfloat16() @ drawn(50, 60).bfloat16(), "mm"),
        (lambda: F.conv2d(drawn(4, 3, 8, 8), drawn(5, 3, 3, 3)), "convolution"),
        (lambda: drawn(10).sum().item(), "_local_scalar_dense"),
        (lambda: drawn(10)[drawn(10) > 0.5], "index"),
        (lambda: torch.zeros(9).index_put_((torch.tensor([1, 1]),), torch.ones(2), accumulate=True), "index_put_"),
        (lambda: F.dropout(drawn(10)), "bernoulli_"),
        (lambda: SPARSE * 2.0, "mul"),
    ],
)
def test_what_threads_may_change_leaves_none(work: Callable[[], object], name: str) -> None:
    examination = examined(work)
    assert (examination.counts, examination.refused) == ([], name)


def test_a_plugins_own_operation_is_not_taken_for_torchs() -> None:
    with torch.library._scoped_library("mine", "FRAGMENT") as library:
        library.define("gather(Tensor rows) -> Tensor")
        library.impl("gather", torch.clone, "CPU")
        examination = examined(lambda: torch.ops.mine.gather(drawn(4)))
    assert (examination.counts, examination.refused) == ([], "mine.gather.default")


def test_a_count_that_changes_a_bit_is_left_out_and_others_stay() -> None:
    """A library that divides sums by the threads that there are."""
    with torch.library._scoped_library("aten", "IMPL") as library:

        def product(a: Tensor, b: Tensor) -> Tensor:
            parts = 3 if torch.get_num_threads() == 3 else 1
            total = torch.zeros(len(a), b.shape[1])
            for u, v in zip(a.chunk(parts, 1), b.chunk(parts), strict=True):
                total += (u[:, :, None] * v[None]).sum(1)
            return total

        library.impl("mm", product, "CPU")
        examination = examined(lambda: drawn(8, 30) @ drawn(30, 8), (2, 3, 4))
    assert (examination.counts, examination.refused) == ([2, 4], "mm")


@pytest.mark.parametrize(
    "made",
    [
        torch.optim.Adam,
        partial(torch.optim.Adam, fused=True),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        torch.optim.RMSprop,
        torch.optim.AdamW,
        torch.optim.NAdam,
    ],
)
def test_what_is_done_is_what_would_be_done_without(made: Callable[..., torch.optim.Optimizer]) -> None:
    def train(*, examine: bool) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(320, 200), nn.ReLU(), nn.Linear(200, 320), nn.Sigmoid())
        optimizer = made(net.parameters())
        for _ in range(4):
            x = torch.rand(128, 320)
            with threads(1), SameBits((2, 4) if examine else ()) as examination:
                optimizer.zero_grad()
                (net(x) - x).square().sum(1).mean().backward()
                optimizer.step()
            assert not examination.refused
        return [*net.parameters(), *(v for s in optimizer.state.values() for v in s.values())]

    assert all(map(torch.equal, train(examine=False), train(examine=True)))


def test_counts_that_stall_are_not_waited_for() -> None:
    def ticks() -> Iterator[float]:
        """Beginning and end of an operation of its own, then of one with another count, which takes a second."""
        return accumulate(cycle([0.0, 0.001, 0.0, 1.0]))

    told, done = ticks(), list[Tensor]()
    with threads(1), SameBits((2,), 10.0, lambda: next(told)) as examination:
        done.extend(drawn(40, 50) @ drawn(50, 60) for _ in range(5))
    assert examination.stalled
    assert examination.counts == [2]
    assert 0.9 < examination.seconds < 1.1
    assert len(done) == 5
