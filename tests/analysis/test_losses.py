"""Loss curves: what a log holds, and the mean over seeds that logged at other steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from genbench.analysis.curves import loss_curves
from genbench.errors import UsageError
from genbench.storage.run_dir import find_runs, read_log, read_runs

DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))


@pytest.fixture
def laid_out() -> None:
    """The picture is rendered here."""


def line(step: int, value: float, **terms: float) -> str:
    """A log point of batches of 16."""
    point = {"step": step, "images": 16 * step, "seconds": 1.0, "rate": 9.0, "terms": {"all": value, **terms}}
    return json.dumps(point) + "\n"


def test_a_resumed_log_keeps_the_later_line_of_a_step_and_half_a_line_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text(line(2, 9.0) + line(4, 8.0) + line(6, 7.0) + line(4, 5.0) + line(8, 4.0)[:20])
    assert [(point.step, point.terms["all"]) for point in read_log(tmp_path)] == [(2, 9.0), (4, 5.0)]
    assert read_log(tmp_path / "nothing") == []


def test_the_mean_over_seeds_is_taken_where_all_have_been(genbench: Callable[..., Result]) -> None:
    sizes = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "64", "--metrics", "speed")
    assert genbench("run", "swae", *DOTS, *sizes, "--batch", "16", "--seeds", "2").exit_code == 0
    records, _ = read_runs(find_runs([Path("runs")]))
    # Two linear logs, v = images and v = 3 images, at other steps: their mean is 2 images, from step 2 to step 10.
    for record, factor, steps in zip(records, (1, 3), ((1, 5, 10), (2, 7, 12)), strict=True):
        lines = [line(step, 16.0 * factor * step, **({"extra": 1.0} if factor == 1 else {})) for step in steps]
        (record.path / "log.jsonl").write_text("".join(lines))
    curves = {curve.term: curve for curve in loss_curves(records)}
    points = curves["all"].points
    assert (points[0][0], points[-1][0]) == (32.0, 160.0)
    assert all(estimate.mean == pytest.approx(2 * x) for x, estimate in points)
    assert all(estimate.low is not None and estimate.low < estimate.mean for _, estimate in points)
    assert [x for x, _ in curves["extra"].points] == [16.0, 80.0, 160.0]
    result = genbench("plot", "losses", "runs", "--out", "losses.png")
    assert result.exit_code == 0, result.output
    assert Path("losses.png").stat().st_size > 10_000

    # Without a log there is nothing to draw.
    for record in records:
        (record.path / "log.jsonl").unlink()
    with pytest.raises(UsageError, match=r"log\.jsonl"):
        loss_curves(records)
