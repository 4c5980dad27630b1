"""Explanations: what tells two runs apart, what that means, and what would mend it."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genbench.analysis.consequences import PROTOCOL, RULES, circumstances, judge
from genbench.analysis.diff import Explanation, as_plain, explain
from genbench.analysis.differences import leaves, side
from genbench.api import EvalProtocol
from genbench.cli.main import main
from genbench.storage.run_dir import read_run

DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "32", "--batch", "16")
METRICS = ("--metrics", "reconstruction,latent-w2,sharpness", "--set", "latent-w2.n=20")
UNKNOWN = RULES[-1].reason

Edit = Callable[[Any], Any]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of `ae` with seeds 0 and 1, and one on larger images, in a folder that no test changes."""
    place = tmp_path_factory.mktemp("explain")
    for more in (("--seeds", "2"), ("--set", "dots.size=13")):
        command = ("run", "ae", *DOTS, *TINY, *METRICS, *more, "--out", str(place / "runs"))
        result = CliRunner().invoke(main, command, env={"GENBENCH_CACHE": str(place)}, catch_exceptions=False)
        assert result.exit_code == 0, result.output
    return place / "runs"


def run_of(trained: Path, *, seed: int = 0, size: int = 12) -> Path:
    for path in sorted(trained.iterdir()):
        run = json.loads((path / "run.json").read_text())["run"]
        if (run["seed"], run["dataset"]["options"]["size"]) == (seed, size):
            return path
    raise AssertionError(f"no run of seed {seed} and size {size}")


@pytest.fixture
def pair(trained: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of one run, `one` and `other`, to be changed at will."""
    copies = (tmp_path / "runs" / "one", tmp_path / "runs" / "other")
    for copy in copies:
        shutil.copytree(run_of(trained), copy)
    return copies


@pytest.fixture
def stores(trained: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two copies of one run under its own name, so that they can be measured."""
    copies = tuple(tmp_path / store / run_of(trained).name for store in ("here", "there"))
    for copy in copies:
        shutil.copytree(run_of(trained), copy)
        edit(copy / "run.json", "provenance", "command", to=shlex.join(["genbench", "run", "ae", *DOTS]))
    return copies[0], copies[1]


def edit(path: Path, *keys: str, to: Any) -> None:
    """Set a value in a JSON file, at a path of keys; a function is applied to the value that stands there."""
    whole = json.loads(path.read_text())
    place = whole
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = to(place.get(keys[-1])) if callable(to) else to
    path.write_text(json.dumps(whole))


def entry(path: Path, metric: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """All of metrics.json and one metric's entry of it; what is changed in them is written."""
    whole = json.loads((path / "metrics.json").read_text())
    yield whole["measurements"], next(it for it in whole["measurements"].values() if it["metric"] == metric)
    (path / "metrics.json").write_text(json.dumps(whole))


def forget(path: Path, metric: str) -> None:
    """As if a metric had not been measured."""
    for measurements, its in entry(path, metric):
        measurements.pop(next(key for key, value in measurements.items() if value is its))


def explained(pair: tuple[Path, Path]) -> Explanation:
    return explain(read_run(pair[0]), read_run(pair[1]))


def told(explanation: Explanation) -> dict[str, str]:
    """The consequence of each field that differs."""
    return {difference.field: difference.consequence for difference in explanation.differences}


# ---------------------------------------------------------------- nothing differs


def test_copies_of_a_run_do_not_differ(pair: tuple[Path, Path], genbench: Callable[..., Result]) -> None:
    found = explained(pair)
    assert (found.differences, found.verdict.word, found.verdict.incomparable) == ((), "no difference", ())
    assert {finding.status for finding in found.findings} == {"same"}
    assert genbench("explain", "one", "other").output.startswith("the runs do not differ\n")


def test_the_same_run_twice_is_called_so(pair: tuple[Path, Path], genbench: Callable[..., Result]) -> None:
    assert explained((pair[0], pair[0])).verdict.word == "same run"
    output = genbench("explain", "one", str(pair[0])).output
    assert "the same run" in output
    assert "consequence" not in output


# ---------------------------------------------------------------- consequences


def test_another_seed_alone_is_a_replicate(trained: Path) -> None:
    found = explained((run_of(trained, seed=0), run_of(trained, seed=1)))
    assert told(found)["run.seed"] == "replicate"
    assert set(told(found).values()) == {"replicate", "harmless"}
    assert (found.verdict.word, found.verdict.compared) == ("comparable", ("seed",))
    assert "replicates" in found.verdict.sentences[1]


def test_another_dataset_makes_everything_incomparable(trained: Path) -> None:
    found = explained((run_of(trained, size=12), run_of(trained, size=13)))
    assert found.verdict.word == "incomparable"
    assert found.verdict.comparable == ()
    assert found.verdict.incomparable == ("latent-w2", "reconstruction", "sharpness")
    assert told(found)["provenance.content"] == told(found)["run.dataset.options.size"] == "incomparable"
    assert "provenance.content" in found.verdict.sentences[0]
    assert not [finding for finding in found.findings if finding.mend]


def test_other_images_forbid_what_protocols_would_allow(
    pair: tuple[Path, Path], genbench: Callable[..., Result]
) -> None:
    edit(pair[1] / "run.json", "provenance", "content", to="0" * 64)
    edit(pair[1] / "run.json", "run", "seed", to=5)
    assert told(explained(pair)) == {"provenance.content": "incomparable", "run.seed": "with care"}
    assert " comparable" not in genbench("explain", "one", "other").output
    assert {finding.status for finding in explained(pair).findings} == {"same"}
    assert explained(pair).verdict.comparable == ()
    assert explained(pair).verdict.word == "incomparable"


def test_the_same_content_makes_another_dataset_option_harmless(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "run.json", "run", "dataset", "options", "path", to="elsewhere")
    assert told(explained(pair)) == {"run.dataset.options.path": "harmless"}
    assert explained(pair).verdict.word == "comparable"


def test_unknown_content_is_no_verdict_on_the_images(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "run.json", "provenance", to=lambda it: {k: v for k, v in it.items() if k != "content"})
    assert told(explained(pair)) == {"provenance.content": "with care"}


def test_what_differs_in_several_ways_cannot_be_attributed_to_one(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "run.json", "run", "model", "name", to="swae")
    edit(pair[1] / "run.json", "run", "model", "options", to={"weight": 10.0})
    edit(pair[1] / "run.json", "run", "model", "fingerprint", to="123")
    assert explained(pair).verdict.compared == ("model",)
    assert "attributed" not in " ".join(explained(pair).verdict.sentences)
    edit(pair[1] / "run.json", "run", "latent_dim", to=3)
    found = explained(pair)
    assert found.verdict.compared == ("latent_dim", "model")
    assert "cannot be attributed to one" in found.verdict.sentences[1]
    assert set(told(found).values()) == {"what is compared"}


def test_two_options_of_one_model_are_two_things(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "run.json", "run", "model", "options", to=lambda it: {**it, "rate": 0.5, "decay": 1})
    assert explained(pair).verdict.compared == ("model.decay", "model.rate")


def test_no_options_at_all_differ_by_the_options_that_there_are(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "run.json", "run", "model", "options", to={})
    assert told(explained(pair)) == {"run.model.options.rate": "what is compared"}


def test_another_source_by_the_same_name_asks_for_care(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "run.json", "run", "prior", "fingerprint", to="123")
    found = explained(pair)
    assert told(found) == {"run.prior.fingerprint": "with care"}
    assert (found.verdict.word, found.verdict.care) == ("comparable with care", ("run.prior.fingerprint",))


def test_seeds_of_different_models_are_not_paired(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "run.json", "run", "latent_dim", to=3)
    edit(pair[1] / "run.json", "run", "seed", to=3)
    assert told(explained(pair)) == {"run.seed": "with care", "run.latent_dim": "what is compared"}


def test_a_control_is_compared_and_its_lack_of_training_harmless(pair: tuple[Path, Path]) -> None:
    edit(pair[0] / "run.json", "run", "role", to="model")
    edit(pair[1] / "run.json", "run", to=lambda it: {**it, "role": "control", "images": 0, "batch": 0})
    assert told(explained(pair)) == {
        "run.role": "what is compared",
        "run.images": "harmless",
        "run.batch": "harmless",
    }
    assert explained(pair).verdict.compared == ("model",)


def test_every_field_of_a_run_has_a_rule(trained: Path) -> None:
    known = side(read_run(run_of(trained)))
    given = circumstances(known.record, known.record)
    sections = {name: dict(known.record[name]) for name in ("run", "provenance")}
    sections["training"] = {name: value for name, value in known.training.items() if name != "schema"}
    unruled = [field for field in leaves(sections) if judge(field, given)[1] == UNKNOWN]
    assert not unruled, "give these fields a rule in genbench/consequences.py"


def test_unknown_fields_of_the_provenance_are_shown(pair: tuple[Path, Path], genbench: Callable[..., Result]) -> None:
    edit(pair[1] / "run.json", "provenance", "weather", to={"deep": "rain"})
    found = explained(pair)
    assert [difference.field for difference in found.differences] == ["provenance.weather.deep"]
    assert found.differences[0].consequence == "with care"
    assert "weather.deep" in genbench("explain", "one", "other").output


# ---------------------------------------------------------------- protocols


def test_another_option_of_a_metric_concerns_that_metric_alone(
    stores: tuple[Path, Path], genbench: Callable[..., Result]
) -> None:
    forget(stores[1], "latent-w2")
    result = genbench("measure", str(stores[1]), *DOTS, "--metrics", "latent-w2", "--set", "latent-w2.n=30")
    assert result.exit_code == 0, result.output
    found = explained(stores)
    assert found.verdict.word == "comparable in part"
    assert found.verdict.incomparable == ("latent-w2",)
    assert found.verdict.comparable == ("reconstruction", "sharpness")
    assert {"references", "detail"} <= {field.field for finding in found.findings for field in finding.fields}
    (command,) = {finding.mend for finding in found.findings if finding.mend}  # the larger n is kept
    assert {str(stores[0]), "latent-w2.n=30"} <= set(shlex.split(command))
    assert genbench(*shlex.split(command)[1:]).exit_code == 0
    assert explained(stores).verdict.incomparable == ()


@pytest.mark.parametrize("rehashed", [True, False], ids=["rehashed", "edited"])
@pytest.mark.parametrize("name", [field.name for field in fields(EvalProtocol)])
def test_every_field_of_a_protocol_is_named(pair: tuple[Path, Path], name: str, rehashed: bool) -> None:
    for _, its in entry(pair[1], "sharpness"):
        for number in its["numbers"]:
            number["how"][name] = 7 if isinstance(number["how"][name], int) else "changed"
            if rehashed:
                number["protocol"] = EvalProtocol(**number["how"]).key
    found = explained(pair)
    assert found.verdict.incomparable == ("sharpness",)
    assert found.verdict.comparable == ("latent-w2", "reconstruction")
    assert name in found.verdict.sentences[0]
    (finding,) = [finding for finding in found.findings if finding.metric == "sharpness"]
    assert [(field.field, field.consequence, field.reason) for field in finding.fields] == [
        (name, "incomparable", PROTOCOL[name])
    ]


def test_an_unknown_field_of_a_protocol_is_named(pair: tuple[Path, Path]) -> None:
    for _, its in entry(pair[1], "sharpness"):
        its["numbers"][0]["how"]["crop"] = 140
    found = explained(pair)
    assert [field.field for finding in found.findings for field in finding.fields] == ["crop"]
    assert found.verdict.incomparable == ("sharpness",)


def test_a_hash_that_differs_alone_forbids_the_comparison(pair: tuple[Path, Path]) -> None:
    for _, its in entry(pair[1], "sharpness"):
        its["numbers"][0]["protocol"] = "00000000"
    assert explained(pair).verdict.incomparable == ("sharpness",)
    assert "no field differs" in next(finding.note for finding in explained(pair).findings if finding.note)


def test_one_shared_protocol_is_enough(pair: tuple[Path, Path]) -> None:
    """Numbers measured in a second way beside do not forbid the comparison in the first."""
    for path, count in zip(pair, (5, 6), strict=True):
        for measurements, its in entry(path, "sharpness"):
            second = json.loads(json.dumps(its))
            second["options"]["n"] = second["numbers"][0]["how"]["generated"] = count
            second["numbers"][0]["protocol"] = str(count)
            measurements["second"] = second
    found = explained(pair)
    assert "sharpness" in found.verdict.comparable
    assert found.verdict.incomparable == ()
    assert {finding.status for finding in found.findings if finding.metric == "sharpness"} == {"same", "other"}
    for measurements, _ in entry(pair[0], "sharpness"):
        del measurements["second"]
    assert [finding.where for finding in explained(pair).findings if finding.status == "only"] == ["b"]


def test_another_source_of_a_metric_asks_for_care(pair: tuple[Path, Path]) -> None:
    for measurements, its in entry(pair[1], "sharpness"):
        key = next(key for key, value in measurements.items() if value is its)
        measurements["anotherkey"] = measurements.pop(key)
    found = explained(pair)
    assert found.verdict.word == "comparable with care"
    assert found.verdict.care == ("the source of sharpness",)


def test_the_command_that_is_told_mends_what_is_missing(
    stores: tuple[Path, Path], genbench: Callable[..., Result]
) -> None:
    forget(stores[1], "latent-w2")
    found = explained(stores)
    only = {(finding.metric, finding.where) for finding in found.findings if finding.status == "only"}
    assert only == {("latent-w2", "a")}
    assert "latent-w2" not in found.verdict.comparable
    (command,) = {finding.mend for finding in found.findings if finding.mend}
    assert command in genbench("explain", *map(str, stores)).output.splitlines()[-1]
    result = genbench(*shlex.split(command)[1:])
    assert result.exit_code == 0, result.output
    assert "latent-w2" in explained(stores).verdict.comparable
    assert not [finding for finding in explained(stores).findings if finding.mend]


def test_a_command_carries_the_plugins_and_the_data_of_both_runs(stores: tuple[Path, Path]) -> None:
    edit(stores[0] / "run.json", "provenance", "command", to="genbench run ae --plugin 'my file.py' --data-root=/x")
    edit(stores[1] / "run.json", "provenance", "command", to="genbench run ae --plugin b.py --data-root /y '")
    forget(stores[1], "sharpness")
    (command,) = {finding.mend for finding in explained(stores).findings if finding.mend}
    assert command.endswith("--metrics sharpness --set sharpness.n=1000 --plugin 'my file.py' --data-root /x")


@pytest.mark.parametrize(("word", "status"), [("error", "failed"), ("inapplicable", "inapplicable")])
def test_what_failed_or_does_not_apply_is_told_with_its_cause(
    pair: tuple[Path, Path], genbench: Callable[..., Result], word: str, status: str
) -> None:
    for _, its in entry(pair[1], "latent-w2"):
        its.update({word: "no codes [here]", "numbers": []})
    found = [finding for finding in explained(pair).findings if finding.metric == "latent-w2"]
    assert {(finding.status, finding.where, finding.note) for finding in found} == {(status, "b", "no codes [here]")}
    assert all(bool(finding.mend) == (status == "failed") for finding in found)
    assert f"{status} in B: no codes [here]" in genbench("explain", "one", "other").output
    shutil.copy(pair[1] / "metrics.json", pair[0] / "metrics.json")
    (both,) = [finding for finding in explained(pair).findings if finding.metric == "latent-w2"]
    assert (both.status, both.where) == (status, "both")
    assert explained(pair).verdict.word == "no difference"


def test_a_run_that_is_not_trained_has_nothing_to_compare(pair: tuple[Path, Path]) -> None:
    for name in ("weights.safetensors", "metrics.json", "training.json"):
        (pair[1] / name).unlink()
    found = explained(pair)
    assert told(found) == {"state": "incomparable"}
    assert "not trained" in found.verdict.sentences[0]
    assert {finding.mend for finding in found.findings} == {""}


# ---------------------------------------------------------------- either way round


def on_run(*keys: str, to: Any) -> Callable[[Path], None]:
    return lambda path: edit(path / "run.json", *keys, to=to)


def on_entries(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    """A change of every entry of metrics.json."""
    return lambda path: edit(
        path / "metrics.json", "measurements", to=lambda its: {key: change(value) for key, value in its.items()}
    )


def by_other_options(its: dict[str, Any]) -> dict[str, Any]:
    numbers = [it | {"how": it["how"] | {"references": 9}, "protocol": "9"} for it in its["numbers"]]
    return its | {"options": {"n": 9}, "numbers": numbers}


CHANGES: dict[str, Callable[[Path], None]] = {
    "nothing": lambda path: None,
    "seed": on_run("run", "seed", to=4),
    "model": on_run("run", "model", to={"name": "x", "options": {}, "fingerprint": ""}),
    "dimension and batch": on_run("run", to=lambda run: run | {"latent_dim": 5, "batch": 9}),
    "content": on_run("provenance", "content", to="1"),
    "no provenance": on_run("provenance", to={}),
    "control": on_run("run", "role", to="control"),
    "untrained": lambda path: (path / "weights.safetensors").unlink(),
    "no metrics": lambda path: (path / "metrics.json").unlink(),
    "two metrics": lambda path: forget(path, "latent-w2"),
    "failed": on_entries(lambda its: its | {"error": "x", "numbers": []}),
    "options": on_entries(by_other_options),
}
ON_MEASUREMENTS = ("no metrics", "two metrics", "failed", "options")


def swapped(value: Any) -> Any:
    """An explanation as data with the two runs in each other's place."""
    if isinstance(value, list):
        return [swapped(item) for item in value]
    if isinstance(value, dict):
        other = {"a": "b", "b": "a"}
        turned = {other.get(key, key): swapped(item) for key, item in value.items()}
        return turned | ({"where": other.get(turned["where"], turned["where"])} if "where" in turned else {})
    return value


@pytest.mark.parametrize("change", CHANGES)
def test_an_explanation_is_the_same_either_way_round(pair: tuple[Path, Path], change: str) -> None:
    CHANGES[change](pair[1])
    there, back = as_plain(explained(pair)), as_plain(explained((pair[1], pair[0])))
    assert swapped(there) == back
    assert bool(there["differences"]) == (change not in ("nothing", *ON_MEASUREMENTS))
    assert (there["verdict"]["word"] == "no difference") == (change == "nothing")


# ---------------------------------------------------------------- the command


def test_json_holds_all_of_it(trained: Path, genbench: Callable[..., Result]) -> None:
    one, other = run_of(trained, seed=0), run_of(trained, seed=1)
    result = genbench("explain", one.name, other.name, "--runs", str(trained), "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == as_plain(explained((one, other)))
    assert {"field": "run.seed", "a": 0, "b": 1}.items() <= json.loads(result.stdout)["differences"][0].items()


def test_null_and_nothing_are_not_the_same(pair: tuple[Path, Path]) -> None:
    edit(pair[1] / "run.json", "provenance", "remark", to=None)
    (difference,) = as_plain(explained(pair))["differences"]
    assert "a" not in difference
    assert difference["b"] is None


@pytest.mark.parametrize("width", ["80", "160"])
def test_names_and_values_are_no_markup(
    pair: tuple[Path, Path], genbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    edit(pair[1] / "run.json", "run", "model", "options", to={"[red]": "[/]\x1b[31m"})
    result = genbench("explain", "one", "other")
    assert result.exit_code == 0
    assert "[red]" in result.output
    assert "[/]" in result.output
    assert "\x1b" not in result.output
    assert max(map(len, result.output.splitlines())) <= int(width)


@pytest.mark.parametrize("name", ["run.json", "training.json", "metrics.json"])
def test_a_damaged_run_is_named_in_one_line(
    pair: tuple[Path, Path], genbench: Callable[..., Result], name: str
) -> None:
    (pair[1] / name).write_text('{"schema": 2, "run"')
    for order in (("one", "other"), ("other", "one")):
        result = genbench("explain", *order)
        assert result.exit_code == 2
        assert len(result.output.splitlines()) == 1
        assert f"other/{name}" in result.output


def test_a_misspelt_run_gets_a_hint(pair: tuple[Path, Path], genbench: Callable[..., Result]) -> None:
    result = genbench("explain", "one", "othre")
    assert result.exit_code == 2
    assert "did you mean 'other'?" in result.output
    assert len(result.output.splitlines()) == 1


def test_explaining_loads_no_torch(trained: Path) -> None:
    one, other = (str(run_of(trained, seed=seed)) for seed in (0, 1))
    code = (
        "import sys; from click.testing import CliRunner; from genbench.cli.main import main\n"
        f"found = CliRunner().invoke(main, ['explain', {one!r}, {other!r}])\n"
        "assert found.exit_code == 0, found.output\n"
        "assert not {'torch', 'scipy', 'ot', 'numpy'} & set(sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
