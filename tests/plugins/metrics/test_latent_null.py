"""The null of the latent metrics: centring, exact splits, level, standard errors, power, and how it is kept."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from genbench.api import DataConfig, Noise, Prior
from genbench.distances import mmd
from genbench.utils.io import load_tensors
from genbench_latent import LatentMMD, LatentSW, LatentW2
from genbench_latent.blocks import Distance, as_given, excess, splits, variances, within
from genbench_latent.fit import LatentFit
from genbench_latent.kernel import kernel_distance, unbiased
from genbench_latent.null import LEVEL, Null, cached_null, identity
from genbench_priors import Normal, Uniform
from support.latents import Codes, drawn, measured

SMALL: list[LatentFit] = [
    LatentW2(n=60, replicates=30),
    LatentSW(n=60, replicates=30, projections=50),
    LatentMMD(n=60, blocks=5, replicates=30),
]
RUNS = 120


def name(metric: LatentFit) -> str:
    return metric.name


@cache
def null(metric: LatentFit, d: int) -> Null:
    return metric.null(Normal(d))


@cache
def tables(metric: LatentFit, d: int, shift: float = 0.0) -> list[Tensor]:
    """Tables of pairs of samples of N(0, I), the first moved by `shift` along an axis."""
    distances = []
    for seed in range(RUNS):
        draws = Generator().manual_seed(10_000 + seed)
        x, y = (Normal(d).sample(metric.n, Noise(draws)).double() for _ in range(2))
        x[:, 0] += shift
        distances.append(within(metric.distance(Normal(d)), [*metric.cut(x), *metric.cut(y)]))
    return distances


# ---------------------------------------------------------------- centring and splits


def random_table(count: int) -> Tensor:
    half = torch.randn(2 * count, 2 * count, dtype=torch.float64, generator=Generator().manual_seed(count))
    return half + half.T


def test_main_effects_cancel_in_the_excess_of_every_split() -> None:
    table, effects = random_table(5), torch.randn(10, dtype=torch.float64, generator=Generator().manual_seed(1))
    changed = table + 3.0 + effects[:, None] + effects[None, :]
    torch.testing.assert_close(excess(changed, splits(5)), excess(table, splits(5)))
    assert (variances(table).second, variances(table).first) == pytest.approx(
        (variances(changed).second, variances(changed).first)
    )


def test_the_excess_over_all_splits_has_mean_zero_and_an_unbiased_variance() -> None:
    """With e the residuals of a table of M blocks about its main effects: sum of w^2 sum of e^2 / (M (M - 3) / 2)."""
    table = random_table(5)
    values = excess(table, splits(5))
    assert len(values) == 126
    assert float(values.mean()) == pytest.approx(0.0, abs=1e-12)
    off = table - torch.diag(table.diagonal())
    mean = off.sum() / 90
    effects = (off.sum(1) / 9 - mean) * 9 / 8
    residual = (off - mean - effects[:, None] - effects[None, :]).triu(1)
    weights = 25 / 25**2 + 2 * 10 / (2 * 10) ** 2
    assert float(values.square().mean()) == pytest.approx(weights * float(residual.square().sum()) / 35)


def test_a_split_and_its_mirror_image_are_one_and_many_blocks_are_sampled() -> None:
    table = random_table(5)
    torch.testing.assert_close(excess(table, splits(5)), excess(table, 1.0 - splits(5)))
    many = splits(20)
    assert many.shape == (500, 40)
    assert (many.sum(1) == 20).all()
    assert len(torch.unique(many, dim=0)) == 500


def test_centring_is_zero_between_equal_points_and_the_square_of_their_distance_between_others() -> None:
    squares = Distance(lambda block: block, lambda u, v: float(torch.cdist(u, v).square().mean()))
    here, there = [torch.zeros(4, 3).double()] * 5, [torch.ones(4, 3).double()] * 5
    assert float(excess(within(squares, here + here), as_given(5))) == 0.0
    assert float(excess(within(squares, here + there), as_given(5))) == pytest.approx(3.0)


def test_the_mmd_of_blocks_is_the_mmd_of_all_points() -> None:
    x, y = (drawn(Normal(3), 43, seed).double() for seed in (1, 2))
    metric = LatentMMD(n=43, blocks=5)
    sizes = torch.tensor([9.0, 9, 9, 8, 8] * 2).double()
    table = within(kernel_distance(6.0), [*metric.cut(x), *metric.cut(y)])
    assert float(unbiased(table, as_given(5), sizes)) == pytest.approx(float(mmd(x, y, scale=6.0)), rel=1e-9)


# ---------------------------------------------------------------- level, standard errors, power


@pytest.mark.parametrize("d", [2, 8])
@pytest.mark.parametrize("metric", SMALL, ids=name)
def test_the_excess_has_mean_zero_and_the_test_its_level(metric: LatentFit, d: int) -> None:
    """Over all splits of each pair, which are as good as the pair itself: several times as much evidence."""
    values = torch.stack([metric.statistic(table, splits(metric.blocks)) for table in tables(metric, d)])
    plain = torch.cat([metric.statistic(table, as_given(metric.blocks)) for table in tables(metric, d)])
    assert abs(float(plain.mean())) < 4.0 * float(plain.std()) / math.sqrt(RUNS)
    rejected = torch.tensor([null(metric, d).p_value(float(value)) <= LEVEL for value in values[:, ::9].flatten()])
    assert float(rejected.double().mean()) == pytest.approx(LEVEL, abs=0.02)
    assert float(values.square().mean().sqrt()) == pytest.approx(null(metric, d).sd, rel=0.15)


def test_the_raw_distance_is_far_from_zero_under_a_perfect_fit() -> None:
    raw = null(SMALL[0], 8).raw
    assert float(raw.mean()) > 10 * float(raw.std())


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("metric", SMALL, ids=name)
def test_the_standard_error_is_the_spread_over_draws(metric: LatentFit, shift: float) -> None:
    distances = tables(metric, 8, shift)
    plain = torch.cat([metric.statistic(table, as_given(metric.blocks)) for table in distances])
    se = math.sqrt(sum(variances(table).total for table in distances) / RUNS)
    assert se == pytest.approx(float(plain.std()), rel=0.25)  # 6 % of it the noise of the spread itself


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_the_standard_error_of_the_raw_distance(shift: float, tmp_path: Path) -> None:
    metric, rows = LatentW2(n=60, replicates=30), []
    for seed in range(60):
        codes = drawn(Normal(8), 60, 500 + seed) + torch.tensor([shift] + [0.0] * 7)
        evaluation = Codes(codes, Normal(8), tmp_path, seed)
        rows.append(measured(metric, evaluation)[""])
    spread = float(torch.tensor([row.value for row in rows]).std())
    se = math.sqrt(sum((row.se or 0.0) ** 2 for row in rows) / len(rows))
    assert se == pytest.approx(spread, rel=0.4)  # eight pairs know the floor's spread to a quarter


@pytest.mark.parametrize("metric", SMALL[:2], ids=name)
@pytest.mark.parametrize("d", [2, 8])
def test_the_minimum_detectable_effect_is_detected_four_times_in_five(metric: LatentFit, d: int) -> None:
    distribution = null(metric, d)
    true = distribution.minimum_detectable_effect()
    assert distribution.power(true) == pytest.approx(0.8, abs=1e-6)
    theta = metric.distance(Normal(d)).prepare(torch.eye(d)[:1].double())  # of a point, the projections themselves
    shift = math.sqrt(true / float(theta.square().mean() if isinstance(metric, LatentSW) else 1.0))
    values = [float(metric.statistic(table, as_given(metric.blocks))) for table in tables(metric, d, shift)]
    assert sum(distribution.p_value(value) <= LEVEL for value in values) / RUNS == pytest.approx(
        0.8, abs=0.13
    )  # 3.5 binomial errors


def test_the_minimum_detectable_effect_falls_with_n() -> None:
    effects = [
        LatentSW(n=n, replicates=5, projections=20).null(Normal(3)).minimum_detectable_effect() for n in (50, 200, 800)
    ]
    assert effects[0] > 2.0 * effects[1] > 4.0 * effects[2]


def test_the_p_value_counts_the_value_itself() -> None:
    made = Null(torch.arange(1.0, 100.0).double(), torch.zeros(0), torch.zeros(1), torch.tensor(0.1))
    assert (made.p_value(1000.0), made.p_value(0.0), made.p_value(99.0)) == (0.01, 1.0, 0.02)
    assert made.p_value(made.critical) > LEVEL >= made.p_value(made.critical + 1e-9)


# ---------------------------------------------------------------- how it is kept


@pytest.mark.parametrize("make", [LatentW2, LatentSW, LatentMMD])
def test_the_null_is_computed_once_for_a_prior_and_does_not_depend_on_the_run(
    make: type[LatentFit], tmp_path: Path
) -> None:
    metric, prior = make(n=40, blocks=5, replicates=2), Normal(3)
    first, second = Codes(drawn(prior, 40), prior, tmp_path), Codes(drawn(prior, 40, 2), prior, tmp_path, seed=5)
    second.memory = first.memory
    first_rows, second_rows = measured(metric, first), measured(metric, second)
    assert sorted(key.split()[0] for key in first.made) == ["draws", "null"]
    assert [key.split()[:2] for key in second.made] == [["draws", "5"]]
    assert (first_rows[""].floor, first_rows[""].floor_sd) == (second_rows[""].floor, second_rows[""].floor_sd)
    assert first_rows[""].value != second_rows[""].value
    other_model = Codes(drawn(prior, 40, 3), prior, tmp_path)
    other_model.memory = first.memory
    measured(metric, other_model)
    assert not other_model.made


def no_null(metric: LatentFit, prior: Prior) -> Null:
    raise AssertionError("it is on disk")


def test_the_null_is_read_from_disk_and_a_damaged_file_is_made_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    metric, prior = LatentSW(n=40, replicates=2), Normal(3)
    fresh = measured(metric, Codes(drawn(prior, 40), prior, tmp_path))
    (path,) = tmp_path.rglob("*.safetensors")
    assert path.parent == tmp_path / "null"
    whole = path.read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(LatentFit, "null", no_null)
        assert measured(metric, Codes(drawn(prior, 40), prior, tmp_path)) == fresh
        with pytest.raises(AssertionError, match="on disk"):
            measured(LatentSW(n=44, replicates=2), Codes(drawn(prior, 44), prior, tmp_path))
    for damaged in (whole[:100], b"", whole[:-8] + b"\0" * 8):
        path.write_bytes(damaged)
        assert measured(metric, Codes(drawn(prior, 40), prior, tmp_path)) == fresh
        load_tensors(path)


def test_the_null_of_another_prior_is_not_used_though_it_has_the_file_name(tmp_path: Path) -> None:
    data_config = DataConfig(data_root=Path(), cache=tmp_path)
    first, second = (null(metric, 2) for metric in SMALL[:2])
    cached_null(data_config, "x", "one", lambda: first)
    cached_null(data_config, "x", "two", lambda: second)
    first_file, second_file = sorted((tmp_path / "null").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    second_file.write_bytes(first_file.read_bytes())
    again = cached_null(data_config, "x", "two", lambda: second)
    assert torch.equal(again.statistics, second.statistics)


class Doubled(Prior):
    """Class, attributes and the first draws are those of another."""

    def __init__(self, rare: float) -> None:
        super().__init__()
        self.latent_dim, self._tail = 2, torch.tensor(rare)

    def sample(self, n: int, noise: Noise) -> Tensor:
        draws = noise.normal(n, 2)
        draws[50:] *= self._tail
        return draws


def test_priors_are_distinguished_by_their_law() -> None:
    priors = [Normal(2), Normal(3), Normal(2, sigma=1.5), Uniform(2), Doubled(1.0), Doubled(2.0)]
    assert len({identity(prior) for prior in priors}) == len(priors)
    assert identity(Normal(2)) == identity(Normal(2))
