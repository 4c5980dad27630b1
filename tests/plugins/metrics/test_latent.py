"""Latent fit: its values, its refusals, and that collapsed codes never look better than a perfect fit."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import cast

import ot
import pytest
import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, DatasetInfo, Measurement, Noise, Prior
from genbench.distances import mmd, random_projections, sliced_wasserstein_cost, wasserstein_distance
from genbench.errors import MetricError, NotApplicableError, UsageError
from genbench_latent import LatentMMD, LatentSW, LatentW2, genbench_metrics
from genbench_latent.fit import LatentFit
from genbench_plane import Ring
from genbench_priors import Mixture, Normal, Sphere, Uniform
from support.latents import Codes, drawn, measured

METRICS = [LatentW2, LatentSW, LatentMMD]


def small(make: type[LatentFit], n: int = 40, blocks: int = 5, replicates: int = 2) -> LatentFit:
    return make(n=n, blocks=blocks, replicates=replicates)


def debiased(rows: dict[str, Measurement]) -> Measurement:
    return rows.get("excess", rows[""])


# ---------------------------------------------------------------- the values


@pytest.mark.parametrize("prior", [Normal(3), Ring(2), Sphere(4), Uniform(1), Mixture(8)], ids=repr)
@pytest.mark.parametrize("make", METRICS)
def test_codes_that_follow_the_prior_are_at_the_floor(make: type[LatentFit], prior: Prior, tmp_path: Path) -> None:
    rows = measured(small(make, 200, replicates=6), Codes(drawn(prior, 200), prior, tmp_path))
    for row in rows.values():
        assert row.floor is not None
        assert row.floor_sd is not None
        assert abs(row.value - row.floor) < 6 * row.floor_sd
    assert debiased(rows).floor == 0.0
    assert cast(float, debiased(rows).p_value) > 0.002  # of fifteen cases


def test_the_raw_values_are_the_distances(tmp_path: Path) -> None:
    prior, codes = Normal(3), drawn(Normal(3), 103) + 0.5
    evaluation = Codes(codes, prior, tmp_path)
    draws = evaluation.prior_draws(103, "").double()
    assert measured(small(LatentW2, 103), evaluation)[""].value == pytest.approx(wasserstein_distance(codes, draws))
    theta = random_projections(50_000, 3, Noise(Generator().manual_seed(5)), torch.float64)
    sliced = math.sqrt(sliced_wasserstein_cost(codes.double(), draws, theta))
    assert measured(small(LatentSW, 103), evaluation)[""].value == pytest.approx(sliced, rel=0.05)
    expected = float(mmd(codes.double(), draws, scale=6.0))
    assert measured(small(LatentMMD, 103, 20), evaluation)[""].value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("make", METRICS)
def test_constant_codes_have_the_right_value(make: type[LatentFit], tmp_path: Path) -> None:
    """All mass at 0: W2^2 = E|z|^2 = d, SW2^2 = 1, and MMD^2 = k(0) + E k(z, z') - 2 E k(z, 0)."""
    prior, n = Normal(4), 400
    row = measured(small(make, n), Codes(torch.zeros(n, 4), prior, tmp_path))[""]
    z = drawn(prior, 4000, 9).double()
    r2, between = z.square().sum(1), (z[::2] - z[1::2]).square().sum(1)
    kernel = [sum(float((8 * s / (8 * s + r)).mean()) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10)) for r in (r2, between)]
    expected = {LatentW2: 2.0, LatentSW: 1.0, LatentMMD: 7 + kernel[1] - 2 * kernel[0]}[make]
    assert row.value == pytest.approx(expected, rel=0.05)
    assert row.se is not None
    assert 0.0 < row.se < 0.1 * expected


@pytest.mark.parametrize("make", METRICS)
def test_a_prior_in_one_dimension(make: type[LatentFit], tmp_path: Path) -> None:
    measurement = debiased(measured(small(make, 200), Codes(drawn(Normal(1), 200) + 1.0, Normal(1), tmp_path)))
    assert cast(float, measurement.p_value) < 0.01
    if make is not LatentMMD:
        assert measurement.value == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize("make", [LatentW2, LatentSW])
def test_the_excess_of_shifted_codes_is_the_square_of_the_shift(make: type[LatentFit], tmp_path: Path) -> None:
    """A translation by t adds |t|^2 to W2^2 and |t|^2 / d to SW2^2, in every dimension and at every n."""
    for d, n in ((2, 200), (8, 200), (8, 400)):
        row = measured(small(make, n), Codes(drawn(Normal(d), n) + 1.0, Normal(d), tmp_path))["excess"]
        assert row.se is not None
        assert row.value == pytest.approx(d if make is LatentW2 else 1.0, abs=5.0 * row.se)


# ---------------------------------------------------------------- what the floor alone gets wrong

Judge = Callable[[dict[str, Measurement]], float]


def over_the_floor(rows: dict[str, Measurement]) -> float:
    """The planted error: the raw distance less its floor."""
    assert rows[""].floor is not None
    return rows[""].value - rows[""].floor


def by_excess(rows: dict[str, Measurement]) -> float:
    return rows["excess"].value / cast(float, rows["excess"].floor_sd)


def detects_narrow_codes(judge: Judge, cache: Path) -> bool:
    """Whether codes drawn together, or with half of their coordinates dead, are worse than a perfect fit in R^64."""
    prior, perfect = Normal(64), drawn(Normal(64), 300)
    dead = perfect * torch.tensor([1.0, 0.0]).repeat(32)
    cases = (perfect * 0.5, perfect * 0.0, dead)
    return all(judge(measured(small(LatentW2, 300), Codes(codes, prior, cache))) > 5.0 for codes in cases)


def test_narrow_codes_are_no_better_than_a_perfect_fit(tmp_path: Path) -> None:
    assert detects_narrow_codes(by_excess, tmp_path)
    assert not detects_narrow_codes(over_the_floor, tmp_path)


def test_only_what_cannot_reward_collapse_is_ranked_and_tested(tmp_path: Path) -> None:
    rows = measured(small(LatentW2), Codes(drawn(Normal(4), 40), Normal(4), tmp_path))
    assert (rows[""].higher_is_better, rows["excess"].higher_is_better) == (None, False)
    assert (rows[""].p_value, rows[""].minimum_detectable_effect) == (None, None)


# ---------------------------------------------------------------- protocols


@pytest.mark.parametrize("make", METRICS)
def test_the_protocol_says_how(make: type[LatentFit], tmp_path: Path) -> None:
    prior = Normal(3)
    rows = measured(small(make), Codes(drawn(prior, 40), prior, tmp_path))
    for row in rows.values():
        assert (row.n, row.protocol.references, row.protocol.generated) == (40, 40, 0)
        assert (row.protocol.dataset, row.protocol.split) == ("c0ffee", "test")
        assert (row.protocol.values, row.protocol.dtype) == ("codes, float64", "float64")
        assert "Normal(latent_dim=3, sigma=1.0)" in row.protocol.detail
        assert "blocks=5" in row.protocol.detail
        assert row.unit
        assert row.label
    variants = [measured(small(make, 20), Codes(drawn(prior, 40), prior, tmp_path))]
    variants += [measured(small(make), Codes(drawn(p, 40), p, tmp_path)) for p in (Normal(3, sigma=2.0), Normal(2))]
    variants += [measured(small(make), Codes(drawn(prior, 40), prior, tmp_path, split="validation"))]
    assert all(rows[""].protocol.key != variant[""].protocol.key for variant in variants)
    seed = measured(small(make), Codes(drawn(prior, 40), prior, tmp_path, seed=3))
    assert seed[""].protocol == rows[""].protocol


# ---------------------------------------------------------------- what a number must not depend on


@pytest.mark.parametrize("make", METRICS)
def test_a_number_depends_on_nothing_but_its_codes_and_the_seed(make: type[LatentFit], tmp_path: Path) -> None:
    """Not on other runs measured before it, and 1e-6 of noise in the codes, as another batch size has, is no change."""
    metric, prior = small(make, 60), Normal(3)
    codes = drawn(prior, 60)
    alone = measured(metric, Codes(codes, prior, tmp_path / "alone"))
    shared = Codes(drawn(prior, 60, 2) * 3.0, prior, tmp_path / "together", seed=4)
    measured(metric, shared)
    after = Codes(codes, prior, tmp_path / "together")
    after.memory = shared.memory
    assert measured(metric, after) == alone
    near = measured(metric, Codes(codes * (1.0 + 1e-6 * torch.randn(60, 3)), prior, tmp_path / "alone"))
    for component, row in alone.items():
        assert near[component].value == pytest.approx(row.value, rel=1e-5, abs=1e-6)


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize("make", METRICS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_codes_that_are_not_finite_are_an_error(make: type[LatentFit], bad: float, tmp_path: Path) -> None:
    codes = drawn(Normal(3), 40)
    codes[[2, 5], 1] = bad
    with pytest.raises(MetricError, match=r"latent-\w+: 2 of 40 codes hold values that are NaN or infinite"):
        measured(small(make), Codes(codes, Normal(3), tmp_path))


@pytest.mark.parametrize("make", METRICS)
@pytest.mark.parametrize("shape", [(40, 4), (39, 3), (40,)])
def test_codes_of_another_shape_are_an_error(make: type[LatentFit], shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(MetricError, match=rf"latent-\w+: codes of shape \({shape[0]}.* draws of shape \(40, 3\)"):
        measured(small(make), Codes(torch.zeros(shape), Normal(3), tmp_path))


def test_a_solver_that_has_not_converged_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In one solve of many: no number is made of the others."""
    solve, calls = ot.emd2, iter(range(10_000))

    def unfinished(*args: object, **options: object) -> object:
        value, log = solve(*args, **options)
        return value, log | ({"result_code": 3, "warning": "numItermax reached"} if next(calls) == 60 else {})

    monkeypatch.setattr(ot, "emd2", unfinished)
    with pytest.raises(MetricError, match=r"latent-w2: .*did not converge: numItermax reached"):
        measured(small(LatentW2), Codes(drawn(Normal(3), 40), Normal(3), tmp_path))
    assert not list(tmp_path.rglob("*.safetensors"))


class Codeless(Codes):
    """A control without an encoder."""

    def codes(self, n: int) -> Tensor:
        raise NotApplicableError("it has no codes")


@pytest.mark.parametrize("make", METRICS)
def test_a_run_without_codes_is_no_failure(make: type[LatentFit], tmp_path: Path) -> None:
    with pytest.raises(NotApplicableError, match=r"^it has no codes"):
        measured(small(make), Codeless(torch.zeros(0, 3), Normal(3), tmp_path))


@pytest.mark.parametrize("make", METRICS)
def test_more_codes_than_images_are_refused_while_planning(make: type[LatentFit]) -> None:
    data_config = DataConfig(data_root=Path(), cache=Path())
    make(n=100).validate(DatasetInfo((1, 28, 28), train=10, test=100), Normal(2), data_config)
    with pytest.raises(
        UsageError, match=r"encodes 2000 held-out images and the dataset has 100: --set latent-\w+\.n=100"
    ):
        make().validate(DatasetInfo((1, 28, 28), train=10, test=100), Normal(2), data_config)


@pytest.mark.parametrize("make", METRICS)
def test_blocks_of_fewer_than_four_codes_are_refused_while_planning(make: type[LatentFit]) -> None:
    small(make, 20)
    with pytest.raises(UsageError, match=r"latent-\w+: 19 codes in 5 blocks .* --set latent-\w+\.n=20"):
        small(make, 19)


def test_a_prior_that_is_one_point_has_no_kernel() -> None:
    data_config = DataConfig(data_root=Path(), cache=Path())
    with pytest.raises(UsageError, match=r"latent-mmd: .*no scale for a kernel"):
        LatentMMD(n=100).validate(DatasetInfo((1, 28, 28), train=10, test=100), Point(), data_config)


class Point(Normal):
    """All draws at the origin."""

    def __init__(self) -> None:
        super().__init__(2)

    def sample(self, n: int, noise: Noise) -> Tensor:
        return torch.zeros(n, 2)

    @property
    def variance(self) -> Tensor:
        return torch.zeros(2)


def test_a_prior_that_is_one_point_is_compared_by_the_other_two(tmp_path: Path) -> None:
    for make in (LatentW2, LatentSW):
        same = debiased(measured(small(make), Codes(torch.zeros(40, 2), Point(), tmp_path)))
        assert (same.value, same.p_value) == (0.0, 1.0)
        apart = debiased(measured(small(make), Codes(torch.ones(40, 2), Point(), tmp_path)))
        assert apart.value == pytest.approx(2.0 if make is LatentW2 else 1.0, rel=0.1)
        assert cast(float, apart.p_value) < 0.05


def test_the_registered_components() -> None:
    specs = list(genbench_metrics())
    assert [spec.name for spec in specs] == ["latent-w2", "latent-sw", "latent-mmd"]
    assert [cast(LatentFit, spec.factory()).name for spec in specs] == [spec.name for spec in specs]
