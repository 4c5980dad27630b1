"""The bug zoo: for each error found in public code a faulty plug-in, and the check that names its fault.

Not here, with the reason: the log-density trick with a normal log p(z) instead of the prior's. The critic learns
NN(z) + log p(z) as a whole, so that every loss of it is a loss that some critic without the trick has too, and a right
one, whose prior is the normal one; only a test of the critic itself sees it (tests/test_models.py). Directions that are
not normalised differ from another weight on a line alone, where all directions of length one give one distance.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from genbench.registry.listing import Kind
from genbench.registry.loader import Registry, load
from genbench.testing import check_plugin, checks

ZOO = Path(__file__).parents[1] / "zoo"
CAUGHT: dict[tuple[Kind, str], set[str]] = {
    ("prior", "variance-two-in-training"): {"batches_follow_the_prior"},
    ("prior", "unit-cube"): {
        "first_two_moments",
        "pairwise_scale",
        "log_prob_agrees_with_draws",
    },
    ("prior", "disk-with-uniform-radius"): {"first_two_moments", "pairwise_scale", "log_prob_agrees_with_draws"},
    ("prior", "disk-declared-by-its-draws"): {"log_prob_agrees_with_draws"},
    ("prior", "global-prior"): {"determined_by_noise"},
    ("prior", "unnormalised"): {"log_prob_agrees_with_draws", "log_prob_integrates_to_one"},
    ("prior", "second-lobe"): {"log_prob_integrates_to_one"},
    ("prior", "not-initialized"): {"module_is_initialized", "first_two_moments", "pairwise_scale"},
    ("prior", "draws-of-the-start"): {
        *("learning_is_kept", "first_two_moments", "pairwise_scale", "log_prob_agrees_with_draws"),
    },
    ("prior", "means-outside-the-state"): {"learning_is_kept"},
    ("prior", "weights-cut-off"): {"learned_by_its_density"},
    ("model", "one-likelihood"): {"likelihood_is_one_number_per_image"},
    ("model", "wrong-sign"): {"matching_codes_cost_less"},
    ("model", "weight-unused"): {"every_option_counts"},
    ("model", "divided-by-pairs"): {"penalty_ignores_batch_size"},
    ("model", "odd-power"): {"matching_codes_cost_less", "learns_something"},
    ("model", "directions-summed"): {"projections_are_averaged"},
    ("model", "diagonal-left-in"): {"penalty_ignores_batch_size"},
    ("model", "cross-without-diagonal"): {"penalty_ignores_batch_size"},
    ("model", "constant-kernel"): {"matching_codes_cost_less"},
    ("model", "assumes-normal"): {"finite_over_priors", "the_prior_is_used"},
    ("model", "broadcast"): {"nothing_broadcasts_by_accident"},
    ("model", "tanh"): {"shapes_ranges_dtype_device", "learns_something"},
    ("model", "standardised"): {"learns_something"},
    ("model", "always-training"): {"evaluation_mode_is_kept"},
    ("model", "global-model"): {"randomness_is_the_noise"},
    ("model", "shards"): {"penalty_ignores_batch_size"},
    ("model", "directions-of-any-length"): {"directions_have_unit_length"},
    ("model", "encoder-cut-off"): {"gradients_reach_everything", "learns_something"},
    ("model", "decoder-cut-off"): {"gradients_reach_everything", "learns_something"},
    ("model", "forgets-state"): {"state_dict_round_trip", "randomness_is_the_noise"},
    ("model", "orphan"): {"optimizers_have_all_parameters"},
    ("model", "whole-batches-only"): {
        "smaller_batches",
        "matching_codes_cost_less",
        "penalty_ignores_batch_size",
    },
    ("network", "leaky"): {"evaluation_has_no_memory"},
    ("network", "squashed"): {"decoder_yields_logits"},
    ("control", "peeping"): {"fitting_ignores_held_out_images"},
    ("control", "unseeded"): {
        "samples_are_uint8",
        "fewer_samples_are_the_first",
        "fitted_again_is_the_same",
        "fitting_ignores_held_out_images",
    },
    ("control", "reordered"): {"fewer_samples_are_the_first"},
    ("control", "floats"): {"samples_are_uint8"},
    ("sampler", "global-draws"): {"draws_have_their_shape", "draws_follow_the_noise", "fitted_again_draws_the_same"},
    ("sampler", "unseeded-fit"): {"fitted_again_draws_the_same"},
    ("sampler", "noise-unused"): {"draws_follow_the_noise"},
    ("sampler", "divided"): {"odd_codes_are_fitted_or_refused"},
    ("sampler", "prior-kept"): {"draws_follow_the_codes"},
    ("dataset", "overlap"): {"splits_are_disjoint"},
    ("dataset", "reshuffled"): {"second_load_is_equal"},
    ("metric", "batched-distance"): {"perfect_sits_at_the_floor"},
    ("metric", "first-pair"): {"order_does_not_matter"},
    ("metric", "batch-scaled"): {"batches_do_not_matter"},
    ("metric", "rescaled"): {"contrast_is_seen"},
    ("metric", "wrong-direction"): {"direction_holds", "contrast_is_seen"},
    ("metric", "global-metric"): {"repeatable", "batches_do_not_matter"},
    ("metric", "silent"): {"refuses_what_it_cannot_measure"},
}


@pytest.fixture(scope="module")
def zoo() -> Registry:
    return load(sorted(ZOO.glob("*.py")))


@pytest.mark.parametrize(("kind", "name"), CAUGHT, ids=[name for _, name in CAUGHT])
def test_the_kit_names_the_fault(zoo: Registry, kind: Kind, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a faulty model learns is asked where its fault is that it does not: the answer takes seconds."""
    if kind == "model" and "learns_something" not in CAUGHT[kind, name]:
        build, kit = checks._KINDS["model"]
        quick = tuple(check for check in kit if check.name != "learns_something")
        monkeypatch.setattr(checks, "_KINDS", {**checks._KINDS, "model": (build, quick)})
    failing = {result.check for result in check_plugin(zoo, kind, name) if result.status == "fails"}
    assert failing == CAUGHT[kind, name]


def test_every_faulty_plugin_is_expected(zoo: Registry) -> None:
    files = {str(path) for path in ZOO.glob("*.py")}
    registered = {
        (k, n) for k, entries in zoo.registrations.items() for n, e in entries.items() if e.plugin.origin in files
    }
    assert registered == set(CAUGHT)


LACKING = {("extractor", name) for name in ("inception", "dinov2", "clip", "vgg16", "efficientnet-lite0")}
LACKING |= {("tracker", "tensorboard")} if find_spec("tensorboard") is None else set()
LACKING |= {("metric", name) for name in ("lpips", "dists", "ms-ssim")}
LACKING |= {("metric", name) for name in ("nll", "elbo", "active-units", "mutual-information")}
"""Need a file of weights that the tests do not have, a package, larger images than the kit's, or a model with q(z | x)
and a likelihood, which the kit has not: checked elsewhere."""
BUNDLED = [
    (kind, name) for kind, entries in load().registrations.items() for name in entries if (kind, name) not in LACKING
]
UNCHECKED = {"built_with_its_defaults"}
"""A result of this name says that nothing was checked: no bundled plug-in may hide behind it."""


@pytest.mark.parametrize(("kind", "name"), BUNDLED, ids=[f"{kind}-{name}" for kind, name in BUNDLED])
def test_no_bundled_plugin_trips_a_check(zoo: Registry, kind: Kind, name: str) -> None:
    results = list(check_plugin(zoo, kind, name))
    assert not [result for result in results if result.status == "fails"]
    assert not UNCHECKED & {result.check for result in results}
    assert any(result.status == "holds" for result in results)
