"""Study files: every flag has its place, flags override, and runs give back the file that makes them."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import genbench as interface
from genbench.errors import UsageError
from genbench.interface.config import StudyConfig, override, study_config
from genbench.interface.study_file import read_study, studies_of_runs, study_toml
from genbench.storage.run_dir import find_runs, read_runs
from support.studies import DOTS, TINY

Genbench = Callable[..., Result]
SMALL = (*DOTS, *TINY, "--images", "32", "--metrics", "reconstruction")
EVERYTHING = StudyConfig(
    models=("swae", "wae-mmd"),
    dataset="folder",
    priors=("normal", "uniform"),
    latent_dims=(2, 8),
    network="mlp",
    seeds=(3, 5),
    epochs=2,
    batch=64,
    metrics=("fid",),
    precision="bfloat16",
    settings=("swae.weight=1", "swae.weight=10", "swae.cost=squared", 'folder.path=a,"b"\\c\x7f', "model.x=true"),
    snapshots=3,
    snapshot_metrics=("sharpness",),
    select="sharpness",
    samplers=("prior", "gmm"),
    controls=("all",),
    trackers=("json-lines",),
    device="cpu",
    threads=2,
    ensemble=10,
    executor="slurm",
    jobs=4,
    run_timeout=60.5,
    executor_options={"partition": "gpu", "memory-gb": 8},
    data_root="data",
    download=True,
    skip_corrupt=True,
    skip_impossible=True,
    out="elsewhere",
    plugins=("a.py",),
    disabled_plugins=("mlp",),
)


def keys(genbench: Genbench, *arguments: str) -> set[str]:
    """The keys of the runs that a command plans."""
    result = genbench("run", *arguments, "--dry-run", "--format", "json")
    assert result.exit_code == 0, result.output
    return {run["key"] for run in json.loads(result.stdout)["runs"]}


def test_every_field_is_written_and_read_again(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(study_toml(EVERYTHING))
    assert read_study(file) == EVERYTHING
    assert set(tomllib.loads(study_toml(EVERYTHING))) == set(StudyConfig.__struct_encode_fields__) - {"images"}


def test_every_flag_of_run_is_a_field() -> None:
    from genbench.cli.main import main

    flags = {parameter.name for parameter in main.commands["run"].params}
    renamed = {"timeout": "run_timeout", "options": "executor_options", "disable_plugin": "disabled_plugins"}
    fields = {renamed.get(name or "", name) for name in flags} - {"dry_run", "write", "form", "help"}
    assert fields == set(StudyConfig.__struct_fields__)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("models = ['swae']\nprior = 'normal'", "there is no key 'prior': did you mean 'priors'"),
        ("dataset = 'mnist'", "the key 'models' is missing"),
        ("models = ['swae']\nbatch = 1", "key 'batch': 1: expected int >= 2"),
        ("models = ['swae']\nseeds = [0, 0]", "each once"),
        ("models = ['swae']\nseeds = 0", "key 'seeds': 0: expected int >= 1"),
        ("models = ['swae']\n[set]\nswae = 3", "it takes the form NAME.OPTION = VALUE"),
        ("models = ['swae']\n[set]\nswae.weight = [[1]]", "swae.weight: "),
        ("models = [", "no TOML"),
        ("models = ['swae']\nepochs = 1\nimages = 2", "give one of them"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(genbench: Genbench, text: str, message: str) -> None:
    Path("study.toml").write_text(text)
    result = genbench("run", "study.toml")
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


def test_flags_override_the_file() -> None:
    study = override(EVERYTHING, {"images": 100, "settings": ("swae.weight=5",), "seeds": 1}, "genbench run")
    assert (study.epochs, study.images, study.seeds) == (None, 100, 1)
    assert study.settings == (*EVERYTHING.settings[2:], "swae.weight=5")
    assert study.priors == EVERYTHING.priors


def test_a_command_written_to_a_file_makes_the_same_runs(genbench: Genbench) -> None:
    command = ("swae", "ae", *SMALL, "--prior", "normal,uniform", "--set", "swae.weight=1,10", "--seeds", "2")
    planned = keys(genbench, *command, "--write", "study.toml")
    assert len(planned) == 3 * 2 * 2
    assert keys(genbench, "study.toml") == planned
    assert keys(genbench, "study.toml", "--seeds", "3") > planned
    assert len(keys(genbench, "study.toml", "ae")) == 4
    Path("study.toml").write_text("models = ['vae']")
    refused = genbench("run", *command, "--dry-run", "--write", "study.toml")
    assert (refused.exit_code, "another study" in refused.output) == (2, True)


def test_runs_give_back_the_file_that_makes_them(genbench: Genbench) -> None:
    """Priors, latent dimensions, options, controls, samplers, snapshots and a selection, by the keys and metrics."""
    command = (
        *("swae", *DOTS, *TINY, "--images", "32", "--latent-dim", "3", "--prior", "normal,uniform"),
        *("--set", "swae.weight=1,10", "--set", "uniform.high=2", "--set", "mlp.width=8", "--set", "dots.size=10"),
        *("--metrics", "sharpness,reconstruction", "--set", "sharpness.n=20", "--sampler", "prior,gmm"),
        *(
            "--set",
            "gmm.codes=60",
            "--set",
            "gmm.components=2",
            "--controls",
            "pca",
            "--snapshots",
            "2",
            "--select",
            "reconstruction",
        ),
    )
    planned = keys(genbench, *command)
    trained = genbench("run", *command)
    assert trained.exit_code == 0, trained.output
    written = genbench("config", "runs", "--write", "again.toml")
    assert written.exit_code == 0, written.output
    assert keys(genbench, "again.toml", *DOTS) == planned
    again = genbench("run", "again.toml", *DOTS)
    assert f"{len(planned)} done" in again.output
    assert "[1/" not in again.output  # no run was begun


def test_runs_that_are_no_grid_are_several_files(genbench: Genbench) -> None:
    first = ("swae", *SMALL, "--seeds", "2")
    second = ("ae", *SMALL, "--batch", "8")
    planned = [keys(genbench, *first), keys(genbench, *second)]
    assert genbench("run", *first).exit_code == genbench("run", *second).exit_code == 0
    refused = genbench("config", "runs")
    assert (refused.exit_code, "--write study.toml" in refused.output) == (2, True)
    assert genbench("config", "runs", "--write", "study.toml").exit_code == 0
    files = sorted(Path().glob("study-*.toml"))
    assert sorted((keys(genbench, str(file), *DOTS) for file in files), key=len) == sorted(planned, key=len)


def test_the_plugin_files_of_runs_are_in_their_file(genbench: Genbench) -> None:
    """They are in the command that the record of a run keeps, from Python as well."""
    study = interface.run(
        "ae", dataset="dots", network="mlp", images=32, batch=16, metrics="reconstruction", plugins=DOTS[1]
    )
    records, _ = read_runs(study.runs)
    assert [made.plugins for made in studies_of_runs(records)] == [(DOTS[1],)]
    assert keys(genbench, *shlex.split(str(records[0].provenance["command"]))[2:]) == {records[0].run.key}


def test_grids_cover_every_run_once(genbench: Genbench) -> None:
    """Seeds 0 and 1 of one model, 0 of another one, and values of two options that are no product."""
    assert genbench("run", "swae", *SMALL, "--seeds", "2", "--set", "swae.weight=1").exit_code == 0
    assert genbench("run", "swae", *SMALL, "--set", "swae.weight=2", "--set", "swae.rate=0.01").exit_code == 0
    records, _ = read_runs(find_runs([Path("runs")]))
    studies = studies_of_runs(records)
    assert len(studies) == 2
    assert sum(len(study.experiment().seeds) for study in studies) == 3


def test_values_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(UsageError, match="key 'models'"):
        study_config({"models": None}, "genbench.run")
