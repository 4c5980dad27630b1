"""Curves: exact at snapshots, never extrapolated, compared at equal budgets."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from genbench.analysis import curves, notes
from genbench.analysis.curves import By, CurveSet
from genbench.analysis.gather import gather, resolve_metric
from genbench.analysis.selection import of_stage, select_options
from genbench.analysis.table import assemble
from genbench.errors import UsageError
from genbench.storage.results import Row

DOTS = Path(__file__).parents[1] / "fixtures" / "dots.py"
numbers = st.floats(-10, 10).map(lambda x: round(x, 1))


def row(group: str, seed: int, images: int, value: float | None, **facts: object) -> Row:
    usual: dict[str, object] = {
        "run": f"{group}-{seed}",
        "group": group,
        "label": group,
        "dataset": "dots",
        "model": group.split(" ")[0],
        "prior": "normal",
        "network": "mlp",
        "latent_dim": 2,
        "metric": "fid",
        "higher_is_better": False,
        "protocol": "v",
        "stage": "snapshot",
        "split": "validation",
        "seconds": images / 100,
        "flops": images * 1e6,
    }
    return Row(seed=seed, images=images, value=value, **{**usual, **facts})  # type: ignore[arg-type]


def curve(group: str, values: dict[int, float], seeds: tuple[int, ...] = (0, 1, 2), **facts: object) -> list[Row]:
    """A group's snapshots; seeds differ by hundredths, a little more in worse values."""
    return [
        row(group, s, images, value + (0.01 + value / 1e4) * s, **facts)
        for s in seeds
        for images, value in values.items()
    ]


def end(group: str, seed: int, value: float, **facts: object) -> Row:
    return row(group, seed, 100, value, **{"stage": "final", "split": "test", "protocol": "t", **facts})


def only(rows: list[Row]) -> CurveSet:
    (curve_set,) = curves.curve_sets(rows, "fid")
    return curve_set


# ---------------------------------------------------------------- interpolation


TRACK = ((10.0, 8.0), (100.0, 4.0), (1000.0, 6.0))


def test_interpolation_is_exact_at_snapshots_linear_in_the_logarithm_and_absent_beyond() -> None:
    assert [curves.interpolated(TRACK, x) for x, _ in TRACK] == [8.0, 4.0, 6.0]
    assert curves.interpolated(TRACK, math.sqrt(1000)) == pytest.approx(6.0)
    assert curves.interpolated(TRACK, 10**2.5) == pytest.approx(5.0)
    assert curves.interpolated(TRACK, 9.999) is None
    assert curves.interpolated(TRACK, 1000.001) is None


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=8, unique=True), st.data())
def test_interpolation_lies_between_its_two_snapshots(costs: list[float], data: st.DataObject) -> None:
    track = tuple((cost, data.draw(numbers)) for cost in sorted(costs))
    budget = data.draw(st.floats(track[0][0], track[-1][0]))
    value = curves.interpolated(track, budget)
    assert value is not None
    lower = max(i for i, (cost, _) in enumerate(track) if cost <= budget)
    ends = [track[lower][1], track[min(lower + 1, len(track) - 1)][1]]
    assert min(ends) - 1e-9 <= value <= max(ends) + 1e-9


# ---------------------------------------------------------------- equal budgets


def test_groups_are_compared_where_all_runs_have_snapshots() -> None:
    curve_set = only([*curve("vae", {50: 9.0, 100: 8.0}), *curve("swae", {50: 7.0, 100: 6.0, 200: 1.0})])
    assert curves.budgets(curve_set.curves, "images") == (50, 100)
    results = {result.label: result for result in curves.compare_at(curve_set, "images", 100)}
    assert results["vae"].estimate.mean == pytest.approx(8.0108)
    assert (results["swae"].mark, results["vae"].mark) == ("best", "")
    beyond = curves.compare_at(curve_set, "images", 150)
    assert [result.label for result in beyond] == ["swae"]  # vae is not extrapolated
    assert beyond[0].mark == ""


def test_the_order_at_equal_images_may_turn_at_equal_operations() -> None:
    """A model that learns more from an image but pays ten times as much for it."""
    dear = [row("gan", s, i, v + s / 100, flops=1e7 * i) for s in range(3) for i, v in ((50, 7.0), (100, 4.0))]
    cheap = curve("vae", {50: 9.0, 100: 8.0, 1000: 3.0})
    curve_set = only([*dear, *cheap])

    def best(by: By, budget: float) -> list[str]:
        return [p.label for p in curves.compare_at(curve_set, by, budget) if p.mark == "best"]

    assert best("images", 100) == ["gan"]
    assert best("flops", 1e9) == ["vae"]


def test_a_group_of_which_one_seed_stops_short_has_no_value_there() -> None:
    rows = [*curve("vae", {50: 9.0, 100: 8.0}), *curve("swae", {50: 7.0}), *curve("swae", {100: 6.0}, seeds=(0, 1))]
    assert [result.label for result in curves.compare_at(only(rows), "images", 100)] == ["vae"]


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_fewer_than_three_seeds_mark_nothing(seeds: tuple[int, ...]) -> None:
    curve_set = only([*curve("vae", {50: 9.0}, seeds=seeds), *curve("swae", {50: 7.0}, seeds=seeds)])
    assert {p.label: p.mark for p in curves.compare_at(curve_set, "images", 50)} == {"vae": "", "swae": ""}


def test_shares_of_few_draws_are_no_more_certain_at_a_budget_than_in_the_table() -> None:
    rows = [row(g, s, 50, v, n=40) for g, v in (("vae", 0.025), ("ae", 0.0)) for s in range(3)]
    results = curves.compare_at(only(rows), "images", 50)
    assert [result.mark for result in results] == ["best", "best"]
    assert all(result.estimate.kind == "sampling" for result in results)
    assert [point.estimate for point in curves.curve_points(only(rows))] == [result.estimate for result in results]


def test_validation_and_test_values_never_share_a_curve_set() -> None:
    rows = [*curve("vae", {50: 9.0, 100: 8.0}), end("vae", 0, 1.0), end("swae", 0, 2.0)]
    sets = curves.curve_sets(rows, "fid")
    assert [(curve_set.split, [c.label for c in curve_set.curves]) for curve_set in sets] == [
        ("validation", ["vae"]),
        ("test", ["vae", "swae"]),  # swae has no snapshots: all ends are shown beside its own
    ]
    assert len(curves.curve_sets(rows[:-1], "fid")) == 1
    assert len(curves.curve_sets([*curve("vae", {50: 9.0}), *curve("ae", {50: 1.0}, protocol="w")], "fid")) == 2


def test_the_part_that_ranks_is_meant_by_a_metrics_name() -> None:
    rows = [row("a", 0, 1, 1.0, metric=f"latent-w2.{component}") for component in ("raw", "excess")]
    assert resolve_metric(rows, "latent-w2") == "latent-w2.excess"
    assert resolve_metric(rows, "latent-w2.raw") == "latent-w2.raw"
    with pytest.raises(UsageError, match="no metric 'fid'"):
        resolve_metric(rows, "fid")


def test_a_metric_is_named_by_its_name_its_label_or_a_beginning_of_one_label_whatever_the_case() -> None:
    heads = {"reconstruction.pixel": "MSE per pixel", "reconstruction.image": "MSE per image", "fid": "FID (grey28)"}
    rows = [row("a", 0, 1, 1.0, metric=metric, head=head) for metric, head in heads.items()]
    for name in ("reconstruction", "MSE per pixel", "mse per pixel", "Reconstruction.Pixel", "MSE per p"):
        assert resolve_metric(rows, name) == "reconstruction.pixel"
    for name in ("FID", "fid", "FID (grey28)", " fid "):
        assert resolve_metric(rows, name) == "fid"
    with pytest.raises(
        UsageError, match=r"'MSE' names 2 metrics: give one of 'reconstruction.pixel' \(MSE per pixel\)"
    ):
        resolve_metric(rows, "MSE")
    with pytest.raises(UsageError, match="did you mean 'fid'"):
        resolve_metric(rows, "FIDD")


def test_snapshots_are_in_no_table() -> None:
    gathered = gather([*curve("vae", {50: 3.0}), end("vae", 0, 1.0)])["dots"]
    assert list(gathered.columns) == [("fid", "t")]


@pytest.mark.parametrize("by", ["flops", "seconds"])
def test_compute_that_was_not_recorded_is_refused(by: By) -> None:
    with pytest.raises(UsageError, match=f"--by {by}: it is not recorded"):
        curves.at_budgets(curve("vae", {50: 3.0}, flops=None, seconds=None), "fid", by, ())


def test_a_budget_that_no_group_has_is_refused_with_the_range() -> None:
    with pytest.raises(UsageError, match="measured are 50 to 100 images"):
        curves.at_budgets(curve("vae", {50: 3.0, 100: 2.0}), "fid", "images", (101.0,))


def test_a_table_says_what_equal_images_cost() -> None:
    rows = [end("vae", 0, 1.0, flops=1e12), end("ae", 0, 2.0, flops=1.05e12), end("gan", 0, 3.0, flops=9e12)]
    (note,) = [note for note in notes.notes(assemble(rows)[0]) if "FLOPs" in note]
    assert "1e+12 (vae) to 9e+12 FLOPs (gan)" in note
    assert not [note for note in notes.notes(assemble(rows[:2])[0]) if "FLOPs" in note]


# ---------------------------------------------------------------- selecting options


def weights(validation: dict[str, float], test: dict[str, float]) -> list[Row]:
    rows = []
    for name, value in validation.items():
        label = f"swae (weight={name})"
        rows += curve(label, {50: 1.0, 100: value}) + [end(label, s, test[name] + s / 100) for s in range(3)]
    return rows


def test_options_are_selected_on_validation_and_the_others_leave_the_table() -> None:
    rows = weights({"1": 5.0, "10": 3.0, "100": 4.0}, test={"1": 1.0, "10": 9.0, "100": 2.0})
    alone = [end("vae", s, 3.0) for s in range(3)]  # one candidate: there is nothing to select_options
    kept, choices = select_options([*rows, *alone], "fid")
    assert {r.label for r in kept} == {"swae (weight=10)", "vae"}  # by test values it would be weight=1
    (choice,) = choices
    assert (choice.candidates, choice.seeds, choice.mean) == (3, 3, pytest.approx(3.0103))
    assert "selected of 3 candidates" in choice.text


def test_candidates_of_another_prior_or_budget_are_not_rivals() -> None:
    rows = weights({"1": 5.0, "10": 3.0}, test={"1": 1.0, "10": 9.0})
    ring = [*curve("swae (ring)", {100: 1.0}, prior="ring"), end("swae (ring)", 0, 1.0, prior="ring")]
    kept, choices = select_options([*rows, *ring], "fid")
    assert {r.label for r in kept} == {"swae (weight=10)", "swae (ring)"}
    assert choices[0].candidates == 2


def test_nothing_is_selected_by_test_values() -> None:
    rows = weights({"1": 5.0, "10": 3.0}, test={"1": 1.0, "10": 9.0})
    ends = [r for r in rows if r.stage == "final"]
    with pytest.raises(UsageError, match="no validation values"):
        select_options(ends, "fid")
    half = [r for r in rows if r.stage == "final" or "weight=10)" in r.label]
    with pytest.raises(UsageError, match=r"no validation value of swae \(weight=1\)"):
        select_options(half, "fid")
    mixed = [*rows[:-1], *curve("swae (weight=2)", {100: 0.0}, protocol="w"), end("swae (weight=2)", 0, 0.0)]
    with pytest.raises(UsageError, match="2 ways"):
        select_options(mixed, "fid")


def test_the_stage_of_a_table_is_one() -> None:
    chosen = end("vae selected by fid", 0, 2.0, stage="selected")
    rows = [end("vae", 0, 1.0), chosen, *curve("vae", {50: 3.0})]
    assert of_stage(rows, "fid") == [chosen]
    assert of_stage(rows, None) == rows[:1]
    control = end("noise", 0, 3.0, role="control")
    assert of_stage([*rows, control], "fid") == [chosen, control]


# ---------------------------------------------------------------- the command line


def test_from_run_to_curves_and_selected_options(genbench: Callable[..., Result], tmp_path: Path) -> None:
    usual = ["--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--batch", "16", "--images", "90"]
    usual += ["--metrics", "reconstruction", "--seeds", "2", "--plugin", str(DOTS), "--snapshots", "3"]
    for weight in ("1", "20"):
        result = genbench("run", "swae", "ae", *usual, "--set", f"swae.weight={weight}", "--device", "cpu")
        assert result.exit_code == 0, result.output
    shown = genbench("curves", "--metric", "reconstruction", "--by", "flops")
    assert shown.exit_code == 0, shown.output
    assert "by FLOPs" in shown.output
    assert "snapshots on the validation split" in shown.output
    at_64 = genbench("curves", "--at", "64").output
    first_words = [line.strip().partition("  ")[0] for line in at_64.splitlines()]
    assert {"ae", "swae (weight=1)", "swae (weight=20)"} <= {*first_words}
    selected = genbench("report", "--select-options-by", "reconstruction", "--export", str(tmp_path / "kept"))
    assert "was selected of 2 candidates" in " ".join(selected.output.split())
    lines = list(csv.DictReader((tmp_path / "kept" / "curves.csv").read_text().splitlines()))
    assert {int(line["images"]) for line in lines} == {32, 64, 96}
    assert {line["split"] for line in lines} == {"validation"}
    assert {line["label"] for line in lines} <= {"ae", "swae (weight=1)", "swae (weight=20)"}
    beyond = genbench("curves", "--at", "1e9")
    assert beyond.exit_code == 2
    assert beyond.output.count("\n") == 1


def test_selected_snapshots_fill_the_table_of_their_command(genbench: Callable[..., Result]) -> None:
    usual = ["--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--batch", "16", "--images", "96"]
    usual += ["--metrics", "reconstruction", "--plugin", str(DOTS), "--snapshots", "3", "--device", "cpu"]
    assert genbench("run", "ae", *usual).exit_code == 0
    result = genbench("run", "ae", *usual, "--select", "reconstruction")
    assert result.exit_code == 0, result.output
    assert "ae selected by reconstruction" in result.output
    assert "1 model " in result.output
    assert "its test value is measured once" in " ".join(result.output.split())
    (name,) = (path.name for path in Path("runs").iterdir() if path.is_dir())
    output = genbench("show", name).output
    assert "selected on validation images by reconstruction.pixel" in output
    assert "of 3 candidates" in output
