"""`genbench tune` from the search to the table: equal trials, no test image read, the same choice after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from genbench.analysis.headline import tuning_lines, verdict
from genbench.analysis.table import assemble
from genbench.api import DataConfig
from genbench.execution.scheduler import run_all
from genbench.interface.config import StudyConfig
from genbench.interface.session import Session
from genbench.interface.tuning import open_tuning, tune_config
from genbench.registry.loader import load
from genbench.storage.lock import lock_run
from genbench.storage.results import rows
from genbench.storage.run_dir import RunFolder, read_run, read_runs, read_searches
from genbench.storage.schema import SCHEMA, TunedFile
from support.studies import DOTS, TINY, fake_run, store_run

Genbench = Callable[..., Result]
FIXTURES = Path(__file__).parents[1] / "fixtures"
STUDY = (*DOTS, *TINY, "--metrics", "reconstruction", "--set", "mlp.width=8", "--device", "cpu")
SMALL = ("--images", "64", "--trials", "3", "--seeds", "2")


def tuned(genbench: Genbench, *more: str) -> Result:
    return genbench("tune", "swae", "vae", *STUDY, *SMALL, *more)


def choices(store: Path = Path("runs")) -> dict[str, tuple[int, Any]]:
    return {search.model: (search.chosen, search.trials) for search in read_searches(store).values()}


def trial_folders() -> list[Path]:
    return sorted(Path("runs").glob("*-trial-*"))


def test_every_model_is_tuned_alike_and_the_choice_is_trained_on_fresh_seeds(genbench: Genbench) -> None:
    result = tuned(genbench)
    assert result.exit_code == 0, result.output
    searches = read_searches(Path("runs"))
    assert sorted(search.model for search in searches.values()) == ["swae", "vae"]
    for search in searches.values():
        values = [trial.value for trial in search.trials]
        assert len(values) == 3
        assert None not in values
        assert values[search.chosen] == min(values)  # type: ignore[type-var]
        assert search.trials[0].options["rate"] == 1e-3
        assert not search.higher_is_better

    # A trial has validation values alone, and no picture of test images.
    assert len(trial_folders()) == 6
    for folder in trial_folders():
        trial = read_run(folder)
        assert (trial.run.role, trial.run.seed, dict(trial.measurements)) == ("trial", 10_000, {})
        assert [entry.split for snapshot in trial.snapshots.values() for entry in snapshot.measurements.values()] == [
            "validation"
        ]
        assert not list(folder.glob("*.png"))

    # The choice has fresh seeds and says how it was made.
    records, _ = read_runs(path.parent for path in Path("runs").glob("*/run.json"))
    final = [record for record in records if record.run.role == "model"]
    assert sorted((record.run.model.name, record.run.seed) for record in final) == [
        *(("swae", seed) for seed in range(2)),
        *(("vae", seed) for seed in range(2)),
    ]
    for record in final:
        (search,) = (each for each in searches.values() if each.model == record.run.model.name)
        chosen = search.trials[search.chosen]
        assert record.run.model.values["rate"] == chosen.options["rate"]
        assert record.tuned is not None
        assert (record.tuned.trials, record.tuned.value) == (3, chosen.value)
    assert {row.seed for row in rows(records)} == {0, 1}

    # The table says so, and no report shows a trial.
    assert "tuned, 3 trials each: random search by reconstruction.pixel on validation images" in result.output
    assert "winner's curse" in result.output
    assert "Not tuned" not in result.output
    report = genbench("report", "runs", "--format", "csv")
    assert "6 trials of a search stand in no table" in report.stderr
    assert "s10000" not in report.stdout
    assert "trial" in genbench("list", "runs").output
    assert genbench("evaluate", "runs", "--metrics", "sharpness", *DOTS).exit_code == 0
    assert all(not read_run(folder).measurements for folder in trial_folders())


def test_a_killed_search_goes_on_and_chooses_the_same(genbench: Genbench) -> None:
    assert tuned(genbench, "--seeds", "1").exit_code == 0
    before, folders = choices(), trial_folders()

    # Killed in the search: half of the trials and the choice are missing.
    Path("runs/tuning.json").unlink()
    for folder in folders[::2]:
        shutil.rmtree(folder)
    assert tuned(genbench, "--seeds", "1").exit_code == 0
    again = choices()
    for model, (chosen, trials) in before.items():
        assert again[model][0] == chosen
        assert [(t.options, t.run, t.value) for t in again[model][1]] == [(t.options, t.run, t.value) for t in trials]

    # Pruned after the choice: nothing is searched again.
    for folder in trial_folders():
        shutil.rmtree(folder)
    result = tuned(genbench, "--seeds", "1")
    assert "its search is done" in result.output
    assert trial_folders() == []


def test_an_ensemble_of_trials_chooses_the_same(genbench: Genbench) -> None:
    assert tuned(genbench, "--out", "alone", "--seeds", "1").exit_code == 0
    assert tuned(genbench, "--out", "together", "--seeds", "1", "--ensemble", "4").exit_code == 0
    alone, together = choices(Path("alone")), choices(Path("together"))
    for model, (chosen, trials) in alone.items():
        assert together[model][0] == chosen
        assert [t.value for t in together[model][1]] == pytest.approx([t.value for t in trials], rel=1e-4)
    sizes = [json.loads(path.read_text())["ensemble"] for path in Path("together").glob("*-trial-*/training.json")]
    assert len(sizes) == 6
    assert min(sizes) > 1


def test_tpe_asks_the_same_again(genbench: Genbench) -> None:
    pytest.importorskip("optuna")
    arguments = ("tune", "vae", *STUDY, "--images", "32", "--trials", "7", "--algorithm", "tpe")
    assert genbench(*arguments).exit_code == 0
    before = choices()
    Path("runs/tuning.json").unlink()
    shutil.rmtree(trial_folders()[0])
    assert genbench(*arguments).exit_code == 0
    assert [t.run for t in choices()["vae"][1]] == [t.run for t in before["vae"][1]]
    assert choices()["vae"][0] == before["vae"][0]


def test_halving_stops_trials_by_their_early_values_and_the_others_go_on_from_their_state(genbench: Genbench) -> None:
    """At every model alike; a stopped trial has no value, and those that go on have that of an unstopped training."""
    halving = ("--images", "160", "--trials", "5", "--seeds", "1", "--algorithm", "halving")
    result = tuned(genbench, *halving)
    assert result.exit_code == 0, result.output
    assert "successive halving of 5 trials: 4 trials up to 1/3 of the training, 1 to its end" in result.output
    assert "tuned, 5 trials each: successive halving by reconstruction.pixel on validation images" in result.output
    assert tuned(genbench, *halving, "--algorithm", "random", "--out", "whole").exit_code == 0
    before, whole = choices(), choices(Path("whole"))
    for model, (chosen, trials) in before.items():
        assert [(t.value is None, t.stopped) for t in trials].count((True, 48)) == 3
        assert not any(trial.problem for trial in trials)
        assert trials[0].value == whole[model][1][0].value  # the default comes to its end
        assert trials[chosen].value == min(trial.value for trial in trials if trial.value is not None)
        (kept,) = [trial for trial in trials[1:] if trial.value is not None]
        (early,) = [
            n.value
            for m in read_run(Path("runs") / kept.run).snapshots["48"].measurements.values()
            for n in m.numbers
            if n.component == "pixel"
        ]
        assert early <= min(trial.early for trial in trials if trial.early is not None)
        same = [trial.value for trial in whole[model][1] if trial.options == kept.options]
        assert same == [kept.value]

    # Killed between the rungs: the choice, a stopped trial and the checkpoint of another one are missing.
    Path("runs/tuning.json").unlink()
    stopped = sorted(path.parent for path in Path("runs").glob("*-trial-*/checkpoint.safetensors"))
    assert len(stopped) == 6
    shutil.rmtree(stopped[0])
    (stopped[1] / "checkpoint.safetensors").unlink()
    assert tuned(genbench, *halving).exit_code == 0
    for model, (chosen, trials) in choices().items():
        assert chosen == before[model][0]
        assert [(t.value, t.early, t.stopped) for t in trials] == [
            (t.value, t.early, t.stopped) for t in before[model][1]
        ]

    # Nothing of a stopped trial is a result; trials that were not measured at the rung cannot be stopped there.
    assert "stopped" in genbench("list", "runs").output
    assert "stopped" not in genbench("report", "runs", "--format", "csv").stdout
    refused = tuned(genbench, *halving, "--out", "whole")
    assert refused.exit_code == 2
    assert "by which trials are stopped: search in another folder (--out)" in refused.output


def test_equal_images_are_equal_trials(genbench: Genbench) -> None:
    result = tuned(genbench, "--by", "images", "--seeds", "1")
    assert "equal images: swae 3 trials, vae 3 trials" in result.output
    assert "at equal images" in result.output


@pytest.mark.parametrize(("algorithm", "trials"), [("random", 2), ("halving", 4)])
def test_the_search_reads_no_test_image(algorithm: str, trials: int, tmp_path: Path, data_config: DataConfig) -> None:
    registry = load([FIXTURES / "dots.py", FIXTURES / "poisoned.py"])
    study = StudyConfig(
        models=("swae", "vae"),
        dataset="poisoned",
        latent_dims=(2,),
        network="mlp",
        images=144,
        batch=16,
        metrics=("reconstruction", "sharpness"),
        settings=("mlp.width=8",),
        device="cpu",
        out=str(tmp_path / "runs"),
    )
    config = tune_config(study, {"trials": trials, "metric": "reconstruction", "algorithm": algorithm}, "a test")

    def do(session: Session) -> Any:
        (tmp_path / "runs").mkdir(exist_ok=True)
        from contextlib import nullcontext

        from genbench.training.callbacks import NullCallback

        with session.working(nullcontext(NullCallback()), str) as executor:
            outcome = run_all(session.plan, executor, session.runner, session.done)
        assert outcome.failed == {}  # a use of the test images fails a run, though it may have its value
        return outcome

    with open_tuning(config, registry, data_config, "a test", lambda: False) as tuning:
        assert tuning.run(do, str) is None
        runner, run = tuning.base.runner, tuning.searches[0].runs[0]
        with pytest.raises(AssertionError, match="the test images were read"):  # the poison works
            runner.load_images(run).test.float()
    assert {model: len(trials) for model, (_, trials) in choices(tmp_path / "runs").items()} == {
        "swae": trials,
        "vae": trials,
    }


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--seeds", "3", "--search-seed", "2"), "--search-seed 2: the final runs have this seed too"),
        (("--metric", "fdi"), "did you mean"),
        (("--prior", "normal,uniform"), "--prior normal,uniform: a search has one"),
        (("--set", "swae.weight=1,2"), "swae has options with several values"),
        (
            ("--set", "swae.weight=1", "--set", "swae.rate=0.1", "--set", "vae.beta=1", "--set", "vae.rate=1"),
            "no option",
        ),
        (("--trials", "1"), "--trials"),
        (("--space", "absent.toml"), "--space"),
        (("--metric", "sharpness"), "none of its numbers has a better direction"),
        (("--metric", "elbo"), "--metric elbo: it cannot choose among trials of swae: "),
        (("--algorithm", "halving"), "successive halving stops none of so few trials; take 4 or more"),
        (("--algorithm", "halving", "--trials", "4"), "a training has 4 steps, and trials are measured after a ninth"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_trains(
    genbench: Genbench, flags: tuple[str, ...], problem: str
) -> None:
    result = tuned(genbench, *flags)
    assert result.exit_code == 2, result.output
    assert problem in result.output
    assert "Traceback" not in result.output
    assert not list(Path().glob("runs/*/run.json"))


def test_a_dataset_without_validation_images_is_refused(genbench: Genbench, tmp_path: Path) -> None:
    text = (FIXTURES / "dots.py").read_text().replace("validation=20", "validation=0").replace('"dots"', '"few"')
    (tmp_path / "few.py").write_text(text.replace('"normed', '"few-normed'))
    result = tuned(genbench, "--dataset", "few", "--plugin", "few.py")
    assert result.exit_code == 2
    assert "a search is measured on validation images, and the dataset 'few' has none" in result.output


def test_a_dry_run_says_what_is_searched(genbench: Genbench) -> None:
    result = tuned(genbench, "--dry-run")
    assert result.exit_code == 0
    assert "weight 1 to 10000 (log), rate 0.0001 to 0.01 (log)" in result.output
    assert "3 trials each" in result.output
    assert not Path("runs").exists()


def test_rows_that_were_not_tuned_alike_are_marked(tmp_path: Path) -> None:
    def tuned_file(trials: int) -> TunedFile:
        return TunedFile(SCHEMA, "k", "random", "trials", trials, "fid", 1.5, 2.0, {})

    values = {"swae": 1.0, "vae": 2.0, "ae": 3.0}
    for model, value in values.items():
        for seed in range(3):
            store_run(tmp_path, fake_run(model, seed), fid=value + 0.1 * seed)

    def table(counts: dict[str, int]) -> Any:
        for path in tmp_path.iterdir():
            (path / "tuned.json").unlink(missing_ok=True)
            if count := counts.get(read_run(path).run.model.name):
                RunFolder(path).save_tuned(tuned_file(count))
        (assembled,) = assemble(rows(read_runs(sorted(tmp_path.iterdir()))[0]))
        return assembled

    none = table({})
    assert [row.label for row in none.rows] == ["swae", "vae", "ae"]
    assert tuning_lines(none) == []
    alike = table(dict.fromkeys(values, 30))
    assert [row.label for row in alike.rows] == ["swae", "vae", "ae"]
    assert tuning_lines(alike) == ["tuned, 30 trials each: random search by fid on validation images"]
    assert "Not tuned" not in verdict(alike).text
    mixed = table({"swae": 30, "vae": 30})
    assert [row.label for row in mixed.rows] == ["swae (tuned)", "vae (tuned)", "ae (not tuned)"]
    assert "Not tuned alike" in verdict(mixed).text
    unequal = table({"swae": 30, "vae": 5, "ae": 30})
    assert [row.label for row in unequal.rows] == [
        "swae (tuned: 30 trials, random, fid)",
        "vae (tuned: 5 trials, random, fid)",
        "ae (tuned: 30 trials, random, fid)",
    ]


def test_the_record_survives_reading(genbench: Genbench) -> None:
    assert tuned(genbench, "--seeds", "1").exit_code == 0
    content = json.loads(Path("runs/tuning.json").read_text())
    assert content["schema"] == SCHEMA
    (search, *_) = content["searches"].values()
    assert set(search["space"]) == {"weight", "rate"}
    assert search["space"]["weight"] == {"scale": "log", "low": 1.0, "high": 10000.0}
    Path("runs/tuning.json").write_text("{")
    (folder,) = Path("runs").glob("dots-vae-*")
    (folder / "tuned.json").write_text("{")
    result = tuned(genbench, "--seeds", "1")
    assert result.exit_code == 2
    assert "runs/tuning.json cannot be read" in result.output
    assert "move this file away and repeat `genbench tune`" in result.output

    # What the messages advise: nothing is trained anew.
    Path("runs/tuning.json").unlink()
    assert f"{folder}/tuned.json cannot be read" in " ".join(genbench("report", "runs").output.split())
    (folder / "tuned.json").unlink()
    result = tuned(genbench, "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert json.loads(Path("runs/tuning.json").read_text()) == content
    assert (folder / "tuned.json").exists()

    # Trials alone are no bundle.
    result = genbench("bundle", "export", *map(str, trial_folders()), "--out", "trials.tar")
    assert result.exit_code == 2
    assert "all of the runs are trials of a search" in result.output


def test_a_search_beside_another_one_says_that_nothing_is_chosen(genbench: Genbench) -> None:
    assert tuned(genbench, "--seeds", "1").exit_code == 0
    Path("runs/tuning.json").unlink()
    folder, *_ = trial_folders()
    for name in ("snapshots.json", "training.json", "weights.safetensors"):
        (folder / name).unlink(missing_ok=True)
    with lock_run(folder):
        result = tuned(genbench, "--seeds", "1")
    assert result.exit_code == 2
    assert "nothing is chosen yet: 1 trial of the search ran in another process" in " ".join(result.output.split())
    assert not Path("runs/tuning.json").exists()
    assert tuned(genbench, "--seeds", "1").exit_code == 0
    assert Path("runs/tuning.json").exists()


def test_a_model_without_a_value_is_refused_with_what_to_do(genbench: Genbench) -> None:
    """Every trial diverges: the command says what can be done."""
    result = genbench("tune", "swae", *STUDY, *SMALL, "--set", "swae.rate=1e30")
    assert result.exit_code == 2
    assert "DivergenceError" in result.output
    assert "search elsewhere (--space)" in result.output
    assert len(trial_folders()) == 3
