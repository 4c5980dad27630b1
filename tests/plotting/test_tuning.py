"""Figures of searches: from tuning.json to lines, bands and words; what is no independent search has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import Result

from genbench.analysis.tuning import budget_lines, search_values
from genbench.errors import UsageError
from genbench.plotting.tuning import budget_figure, sensitivity_figure
from genbench.storage.run_dir import save_searches
from genbench.storage.schema import SearchRecord, StoredRun, StoredSearch, TrialRecord
from support.studies import fake_run


def search(model: str, base: float, trials: int = 31, algorithm: str = "random", **facts: object) -> SearchRecord:
    """A search for a weight, of which the value depends, and a kind, of which it does not; the first is the default."""
    rng = np.random.default_rng(sum(map(ord, model)))
    weights, kinds = 10 ** rng.uniform(0, 3, trials), rng.choice(["imq", "rbf"], trials)
    values = [base + 4 * (math.log10(w) - 1.5) ** 2 + 0.3 * float(rng.normal()) for w in weights]
    record = SearchRecord(
        model=model,
        run=msgspec.convert(fake_run(model).record(), StoredRun),
        algorithm=algorithm,
        seed=10_000,
        by="trials",
        space={"weight": StoredSearch("log", 1.0, 1e3), "kind": StoredSearch("choice", values=("imq", "rbf"))},
        metric="fid",
        metric_options={},
        higher_is_better=False,
        protocol="aaaa1111",
        trials=tuple(
            TrialRecord({"weight": float(w), "kind": str(k)}, f"run-{i}", None if i == 5 else value)
            for i, (w, k, value) in enumerate(zip(weights, kinds, values, strict=True))
        ),
        chosen=1,
    )
    return msgspec.structs.replace(record, **facts)


def test_the_command_draws_both_figures_of_a_folder_and_says_where_models_part(
    genbench: Callable[..., Result], tmp_path: Path
) -> None:
    save_searches(tmp_path, {"a": search("swae", 20.0), "b": search("vae", 60.0)})
    result = genbench("plot", "tuning", str(tmp_path), "--out", str(tmp_path / "t.png"))
    assert result.exit_code == 0, result.output
    assert "swae is ahead of vae at every number of trials up to 15" in " ".join(result.output.split())
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    assert genbench("plot", "sensitivity", str(tmp_path), "--out", str(tmp_path / "s.svg")).exit_code == 0
    assert "weight" in (tmp_path / "s.svg").read_text()


def test_a_folder_without_searches_is_refused_in_one_line(genbench: Callable[..., Result], tmp_path: Path) -> None:
    result = genbench("plot", "tuning", str(tmp_path), "--out", str(tmp_path / "t.png"))
    assert result.exit_code == 2
    assert "genbench tune" in result.output
    assert not (tmp_path / "t.png").exists()


def test_the_default_stands_beside_the_curve_and_a_failed_trial_is_the_worst() -> None:
    (values,) = search_values([search("swae", 20.0)])
    assert len(values.values) == 30
    assert math.isnan(values.values[4])
    (axes,) = budget_figure([values]).figure.axes
    whole, thin, cross = axes.lines
    assert (len(whole.get_xdata()), len(thin.get_xdata())) == (15, 16)
    assert thin.get_ydata()[-1] == pytest.approx(min(v for v in values.values if math.isfinite(v)))
    assert whole.get_ydata()[0] == pytest.approx(np.nanmean([*values.values, np.nanmax(values.values)]))
    assert cross.get_ydata()[0] == values.default
    assert len(axes.collections) == 1


def test_protocols_and_studies_do_not_share_a_panel_nor_a_sentence() -> None:
    different = search_values([search("swae", 20.0), search("vae", 60.0, protocol="bbbb2222")])
    assert len(budget_figure(different).figure.axes) == 2
    assert not any("ahead" in line for line in budget_lines(different))


def test_a_sampler_that_learns_has_no_curve() -> None:
    learned = search_values([search("swae", 20.0, algorithm="tpe")])
    assert budget_lines(learned) == []
    with pytest.raises(UsageError, match="--algorithm random"):
        budget_figure(learned)
    failed = [replace(learned[0], independent=True, values=[math.nan] * 30)]
    with pytest.raises(UsageError):
        sensitivity_figure(failed)


def test_few_trials_and_equal_models_have_one_line() -> None:
    few = search_values([search("swae", 20.0, 4), search("vae", 20.0, 4)])
    assert budget_lines(few) == ["fewer than 6 random trials: models are not compared by the number of trials"]
    equal = search_values([search(model, 20.0, 13) for model in ("swae", "vae", "ae")])
    assert budget_lines(equal)[0] == "no two models are distinguishable at any number of trials up to 6"


def test_sensitive_options_come_first_with_a_group_line_each() -> None:
    searches = search_values([search("swae", 20.0)])
    weight, kind = sensitivity_figure(searches).figure.axes
    assert (weight.get_xlabel(), kind.get_xlabel()) == ("weight", "kind")
    assert weight.get_xscale() == "log"
    assert len(weight.lines) == 4  # medians of thirds, and the trials
    assert len(kind.lines) == 3
    assert len(weight.lines[-1].get_xdata()) == 29  # one failed
    first, second = searches[0].sensitivities
    assert (first.option, second.option) == ("weight", "kind")
    assert first.p < 0.05 < second.p
