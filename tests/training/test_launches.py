"""What a step launches on a GPU, on torch's meta device: nothing that a CUDA graph refuses, no loop over members."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from genbench.api import Loss, Model, Noise
from genbench.registry.loader import Registry, load
from support.launches import META, Launches, build, launches, meta_device, on_meta, stack_on_meta

MODELS = load([]).names("model")
PRIORS = {"vmf-vae": "sphere"}
OTHERS = [
    ("swae", "normal", {"slices": "max", "function": "circular"}),
    ("vq-vae", "normal", {"codebook": "ema"}),
    ("rae", "normal", {"regularizer": "spectral"}),
    ("wae-mmd", "normal", {"kernel": "rbf"}),
    *(("ae", prior, {}) for prior in ("uniform", "mixture")),
    ("vae", "learned-mixture", {}),
]
"""Options and priors with operations that the defaults do not have."""


@pytest.fixture(autouse=True)
def _meta() -> Iterator[None]:
    with meta_device():
        yield


@pytest.mark.parametrize(
    ("model", "prior", "options"), [*((model, PRIORS.get(model, "normal"), {}) for model in MODELS), *OTHERS]
)
def test_a_step_can_be_recorded_and_has_no_loop_over_members(
    model: str, prior: str, options: dict[str, object], registry: Registry
) -> None:
    """A number that the host reads and a loop of vmap's over members raise; a copy from or to the host is seen."""
    made = [build(registry, model, prior, options) for _ in range(3)]
    assert not launches(on_meta(made.pop(), batch=4), first=True).crossings
    assert not launches(stack_on_meta(made, batch=4), first=True).crossings


def test_a_kernel_of_seven_scales_costs_few_operations(registry: Registry) -> None:
    """Each scale by itself would be 28 operations for each of three matrices; each soft minimum some thousand."""
    counts = {model: launches(on_meta(build(registry, model))).total for model in ("ae", "wae-mmd", "sinkhorn-ae")}
    assert counts["wae-mmd"] < counts["ae"] + 70
    assert counts["sinkhorn-ae"] < counts["ae"] + 200


def reads(x: Tensor) -> Tensor:
    return x * float(x.mean().item())


def decides(x: Tensor) -> Tensor:
    return x[x > 0.5]


def copies(x: Tensor) -> Tensor:
    return x * torch.tensor([2.0], device=META)


def mixes(x: Tensor) -> Tensor:
    return x[torch.zeros(2, dtype=torch.int64)]


def with_term(model: Model, term: Callable[[Tensor], Tensor]) -> None:
    """Add a term to the model's loss."""
    step = model.training_step

    def training_step(x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        for loss in step(x, z, noise):
            yield Loss(loss.optimizer, loss.value + 0.0 * term(x).sum())

    model.training_step = training_step  # type: ignore[method-assign]


@pytest.mark.parametrize("faulty", [reads, decides, copies, mixes])
def test_what_a_graph_refuses_is_seen(faulty: Callable[[Tensor], Tensor], registry: Registry) -> None:
    model = build(registry, "ae")
    with_term(model, faulty)
    try:
        seen = launches(on_meta(model, batch=4), first=True)
    except (RuntimeError, NotImplementedError):
        return
    assert seen.crossings


def loops(x: Tensor) -> Tensor:
    return x.clone().lerp_(torch.zeros_like(x), 0.5)


def test_a_loop_over_members_is_refused(registry: Registry) -> None:
    made = [build(registry, "ae") for _ in range(2)]
    for model in made:
        with_term(model, loops)
    with pytest.raises(RuntimeError, match="fallback"):
        launches(stack_on_meta(made, batch=4), first=True)


def test_views_and_empty_memory_launch_nothing() -> None:
    with Launches() as seen:
        torch.empty(3, 4, device=META).t()[1:].detach().unsqueeze(0).relu()
    assert dict(seen.counts) == {"aten.relu.default": 1}
