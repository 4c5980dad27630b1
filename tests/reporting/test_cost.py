"""The cost of runs: sums by metric, what is spent once, ensembles, and what a reader sees of it."""

from __future__ import annotations

import msgspec
import pytest

from genbench.reporting.cost import cost, cost_notes, cost_rows
from genbench.storage.run_dir import RunFolder, RunRecord, read_run
from genbench.storage.schema import MetricRecord
from support.studies import fake_run, store_run


@pytest.fixture
def records(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """Two runs of an ensemble of two, the first of which pays for what both use; its samples are also a mixture's."""
    made = []
    for seed in (0, 1):
        folder = RunFolder(store_run(tmp_path_factory.mktemp("runs"), fake_run(seed=seed), fid=1.0))
        training = msgspec.structs.replace(folder.training(), seconds=8.0, ensemble=2)
        folder.save_training({k: v for k, v in msgspec.to_builtins(training).items() if k != "schema"})
        measured = {
            "a": MetricRecord("fid", {}, "test", seconds=5.0 - 3 * seed, shared_seconds=3.0 if seed == 0 else None),
            "b": MetricRecord("fid@gmm", {}, "test", seconds=1.0, fit_seconds=2.0),
            "c": MetricRecord("kid@gmm", {}, "test", seconds=1.0, fit_seconds=2.0),
            "d": MetricRecord("latent-w2", {}, "test", seconds=7.0, background=True),
            "e": MetricRecord("fails", {}, "test", error="no"),
        }
        folder.save_measurements(measured)
        made.append(read_run(folder.path))
    return made


def test_a_record_from_before_the_field_says_how_many_runs_its_ensemble_had(records: list[RunRecord]) -> None:
    folder = RunFolder(records[0].path)
    fields = {k: v for k, v in msgspec.to_builtins(folder.training()).items() if k not in ("schema", "ensemble")}
    folder.save_training({**fields, "step": "graph, ensemble of 4"})
    training = folder.training()
    assert (training.step, training.ensemble) == ("graph", 4)


def test_seconds_add_up(records: list[RunRecord]) -> None:
    spent = cost(records)
    assert spent.training == 8.0, "each member of an ensemble of two has half of its seconds"
    assert spent.fits == {"gmm": 4.0}, "once a run, though two metrics repeat it"
    assert [(m.metric, m.seconds, m.shared) for m in spent.metrics] == [
        ("fid", 4.0, 3.0),
        ("fid@gmm", 2.0, 0.0),
        ("kid@gmm", 2.0, 0.0),
        ("latent-w2", 14.0, 0.0),
    ]
    assert spent.evaluation == 15.0
    assert spent.background == 14.0


def test_words_and_table_say_what_is_spent_once_and_beside_trainings(records: list[RunRecord]) -> None:
    spent = cost(records)
    assert spent.words == (
        "training 8.0 s, evaluation 15 s (65 %), 3.0 s of it once for all runs, and 14 s on threads beside trainings"
    )
    rows = cost_rows(spent)
    assert ("fid", "4.0 s", "3.0 s") in rows
    assert ("fit of gmm", "4.0 s", "") in rows
    assert ("latent-w2 *", "14 s", "") in rows
    assert rows[-1] == ("evaluation in all", "26 s", "3.0 s")
    assert len(cost_notes(spent)) == 2


def test_nothing_is_said_of_runs_without_seconds(tmp_path_factory: pytest.TempPathFactory) -> None:
    record = read_run(store_run(tmp_path_factory.mktemp("runs"), fake_run(), fid=1.0))
    assert cost([record]).words == ""
