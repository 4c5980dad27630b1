"""`genbench reproduce`: all is planned before anything trains, and the table says what may be compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from genbench.errors import UsageError
from genbench.registry.loader import load
from genbench.reproduction.comparison import OptionChange, compare, compare_number, numbered, table_cells
from genbench.reproduction.plan import read_recipe
from genbench.reproduction.recipe import parse
from genbench.storage.results import Row
from support.studies import RECIPE_TEXT

PLUGIN = '''
from pathlib import Path
from genbench.api import Finding, ComponentSpec, Recipe
from genbench.hookspecs import hookimpl

def make():
    return Recipe(Path("r.toml").read_text(), "r.toml")

def found(*, shift: float = 0.0):
    text = """name = "e"\\nabout = "a"\\ncitation = "c"\\nstudy = "experiment"\\n[protocols.p]\\nmethod = "m"
[[published]]\\ncase = "all"\\nmetric = "x"\\nvalue = 1.0\\nmargin = 0.5\\nsource = "s"\\nprotocol = "p" """
    return Recipe(text, "e.toml", lambda seed, budget: [Finding("all", "x", 1.0 + shift + 0.01 * seed, 3, seed=seed)])

@hookimpl
def genbench_recipes():
    yield ComponentSpec(name="r", description="a", factory=make)
    yield ComponentSpec(name="e", description="a", factory=found)
'''
DOTS = str(Path(__file__).parents[1] / "fixtures" / "dots.py")


@pytest.fixture
def reproduce(genbench: Callable[..., Result]) -> Callable[..., Result]:
    Path("mine.py").write_text(PLUGIN)
    Path("r.toml").write_text(RECIPE_TEXT.replace('layer = "2048"', 'split = "test"'))
    return lambda *args: genbench("reproduce", *args, "--plugin", "mine.py", "--plugin", DOTS)


def lines(folder: str) -> list[dict[str, object]]:
    numbers: list[dict[str, object]] = json.loads(Path(folder, "reproduce.json").read_text())["numbers"]
    return numbers


def test_runs_are_ordinary_ones_and_the_table_is_exported(reproduce: Callable[..., Result]) -> None:
    result = reproduce("r", "--export", "out")
    assert result.exit_code == 0, result.output
    assert len(list(Path("runs").glob("*/weights.safetensors"))) == 4
    assert {"reproduce.md", "reproduce.csv", "rows.csv", "report.html"} <= {path.name for path in Path("out").iterdir()}
    (line,) = lines("out")
    assert line["seeds"] == [0, 1]
    assert line["result"]["conclusion"] in ("equivalent", "different", "inconclusive")  # type: ignore[index]
    (row,) = csv.DictReader(Path("out/reproduce.csv").read_text().splitlines())
    assert row["published"] == "1"
    again = reproduce("r")
    assert "2 done" in again.output or "4 done" in again.output


def test_a_fraction_of_the_budget_is_another_training(reproduce: Callable[..., Result]) -> None:
    result = reproduce("r", "--budget", "0.5", "--seeds", "1", "--export", "out")
    assert result.exit_code == 0, result.output
    (line,) = lines("out")
    assert line["result"]["conclusion"] == "other training"  # type: ignore[index]
    assert line["result"]["training"] == ["budget: published 1, ours 0.5"]  # type: ignore[index]
    assert "budget: published 1, ours 0.5" in Path("out/reproduce.md").read_text()
    run = json.loads(next(Path("runs").glob("*/run.json")).read_text())["run"]
    assert run["images"] == 32


@pytest.mark.parametrize(
    ("setting", "word", "reason"),
    [
        ("swae.weight=3", "other training", "swae.weight: recipe 100.0, ours 3.0"),
        ("swae.weight=100", "inconclusive", ""),  # what the recipe has
        ("ae.rate=0.1", "inconclusive", ""),  # another model's
        ("reconstruction.n=16", "other protocol", "reconstruction.n: recipe 0, ours 16"),
        ("network.width=8", "other training", "mlp.width: recipe 200, ours 8"),
    ],
)
def test_only_a_change_that_touches_the_number_is_held_against_it(
    reproduce: Callable[..., Result], setting: str, word: str, reason: str
) -> None:
    result = reproduce("r", "--set", setting, "--seeds", "1", "--export", "out")
    assert result.exit_code == 0, result.output
    (line,) = lines("out")
    comparison = line["result"]
    assert comparison["conclusion"] == word  # type: ignore[index]
    assert "".join([*comparison["fields"], *comparison["training"]]) == reason  # type: ignore[index]


def test_numbers_of_another_protocol_are_not_mixed_in(reproduce: Callable[..., Result]) -> None:
    """The same runs, measured in two ways: each command reports its own numbers."""
    assert reproduce("r", "--export", "first").exit_code == 0
    assert reproduce("r", "--set", "reconstruction.n=16", "--export", "second").exit_code == 0
    assert reproduce("r", "--export", "again").exit_code == 0
    (first,), (second,), (again,) = lines("first"), lines("second"), lines("again")
    assert first["values"] == again["values"] != second["values"]
    assert first["seeds"] == second["seeds"] == [0, 1]


def test_a_recipe_whose_training_differs_says_so_in_every_verdict(reproduce: Callable[..., Result]) -> None:
    text = Path("r.toml").read_text().replace("batch = 16", 'batch = 16\ntraining = ["half the epochs"]')
    Path("r.toml").write_text(text.replace("margin = 0.5", "margin = 99"))
    assert reproduce("r", "--export", "out").exit_code == 0
    (row,) = csv.DictReader(Path("out/reproduce.csv").read_text().splitlines())
    assert row["verdict"].startswith("equivalent, with deviations [1]")
    assert "[1] training: half the epochs" in Path("out/reproduce.md").read_text()


def test_nothing_trains_where_a_later_cell_cannot_be(reproduce: Callable[..., Result]) -> None:
    text = Path("r.toml").read_text()
    cell = text[text.index("[[cells]]") : text.index("[[published]]")]
    Path("r.toml").write_text(text + cell.replace('"one"', '"two"').replace('"swae", "ae"', '"nonesuch"'))
    result = reproduce("r")
    assert result.exit_code == 2
    assert "nonesuch" in result.output
    assert not Path("runs").exists()
    assert reproduce("r", "--cells", "one", "--dry-run").exit_code == 0
    assert "there is no cell of r called 'three'" in reproduce("r", "--cells", "three").output


def test_one_model_of_a_cell_is_run_and_compared_alone(reproduce: Callable[..., Result]) -> None:
    """Whose key is that of the whole recipe's, so that the others can follow."""
    assert reproduce("r", "--models", "swae", "--seeds", "1", "--export", "out").exit_code == 0
    assert [line["published"]["model"] for line in lines("out")] == ["swae"]  # type: ignore[index]
    assert len(list(Path("runs").glob("*/run.json"))) == 1
    assert "1 done" in reproduce("r", "--seeds", "1", "--dry-run").output
    assert reproduce("r", "--models", "ae", "--dry-run").exit_code == 0
    assert "there is no model of r called 'vae'" in reproduce("r", "--models", "vae").output
    assert "without cells" in reproduce("e", "--models", "x").output


def test_an_experiment_is_compared_in_the_same_table(reproduce: Callable[..., Result]) -> None:
    assert reproduce("e", "--seeds", "3", "--export", "out").exit_code == 0
    (line,) = lines("out")
    assert line["result"]["conclusion"] == "equivalent"  # type: ignore[index]
    assert len(json.loads(Path("out/findings.json").read_text())) == 3
    assert reproduce("e", "--seeds", "3", "--set", "e.shift=5", "--export", "out").exit_code == 0
    assert lines("out")[0]["result"]["conclusion"] == "other protocol"  # type: ignore[index]
    assert "without cells" in reproduce("e", "--cells", "x").output


def row(seed: int, value: float, **changes: object) -> Row:
    facts: dict[str, object] = {
        "run": f"s{seed}",
        "group": "g",
        "label": "swae",
        "dataset": "dots",
        "model": "swae",
        "prior": "normal",
        "network": "mlp",
        "latent_dim": 2,
        "seed": seed,
        "images": 64,
        "metric": "reconstruction.pixel",
        "value": value,
        "protocol": "abc",
        **changes,
    }
    return Row(**facts)  # type: ignore[arg-type]


def test_only_final_rows_of_the_named_model_count() -> None:
    recipe = parse(RECIPE_TEXT, "r.toml")
    rows = [
        row(1, 1.02),
        row(0, 1.0),
        row(0, 9.0, model="ae"),
        row(0, 9.0, stage="snapshot"),
        row(0, 9.0, role="control"),
    ]
    (line,) = compare(recipe, {"one": rows}, {"abc": {"layer": "2048"}}, 1.0)
    assert line.seeds == (0, 1)
    assert line.result is not None
    assert line.result.conclusion == "equivalent"
    (line,) = compare(recipe, {"one": rows}, {"abc": {"layer": "768"}}, 1.0)
    assert line.result is not None
    assert line.result.fields == ("layer: published 2048, ours 768",)
    (line,) = compare(recipe, {"one": []}, {}, 1.0)
    assert line.result is None


def test_a_number_whose_published_value_is_not_known_stands_untested() -> None:
    recipe = parse(RECIPE_TEXT.replace("value = 1\n", "").replace("margin = 0.5\n", ""), "r.toml")
    rows = [row(0, 1.0, protocol="abc"), row(1, 2.0, protocol="abc")]
    (line,) = compare(recipe, {"one": rows}, {"abc": {"layer": "2048"}}, 1.0)
    assert (line.values, line.result) == ((1.0, 2.0), None)
    cells = table_cells(line, {})
    assert (cells[2], cells[4], cells[-1]) == ("unknown", "2", "nothing to test")
    assert cells[3].startswith("1.5")
    (empty,) = compare(recipe, {"one": []}, {}, 1.0)
    assert table_cells(empty, {})[3] == "not measured"
    with pytest.raises(UsageError, match="the key 'value' is missing"):
        parse(RECIPE_TEXT.replace("value = 1\n", ""), "r.toml")


def test_a_seed_of_another_protocol_is_left_out_and_reported() -> None:
    rows = [row(0, 1.0), row(1, 1.02), row(2, 9.0, protocol="other")]
    (line,) = compare(parse(RECIPE_TEXT, "r.toml"), {"one": rows}, {"abc": {"layer": "2048"}}, 1.0)
    assert line.seeds == (0, 1)
    assert line.values == (1.0, 1.02)
    assert any("left out: seed 2" in text for text in line.deviations)


@pytest.mark.parametrize(
    ("weights", "word"), [("standard 6726", "equivalent"), ("custom 1234", "other protocol"), (None, "other protocol")]
)
def test_the_path_of_a_file_does_not_matter_where_its_content_is_the_published_one(weights: str, word: str) -> None:
    stated = 'layer = "2048"\nweights = "standard 6726"' if weights else 'layer = "2048"'
    recipe = parse(RECIPE_TEXT.replace('layer = "2048"', stated), "r.toml")
    moved = OptionChange("metric", "reconstruction", "weights", "none", "/elsewhere/file.pth", file=True)
    how = {"layer": "2048", "weights": weights or "standard 6726"}
    (line,) = compare(recipe, {"one": [row(0, 1.0), row(1, 1.01)]}, {"abc": how}, 1.0, {"one": [moved]})
    assert line.result is not None
    assert line.result.conclusion == word


def test_a_field_that_is_tolerated_is_pointed_at_where_it_differs() -> None:
    recipe = parse(RECIPE_TEXT + '\ntolerated = { layer = "theirs is not told" }', "r.toml")
    rows = {"one": [row(0, 1.0), row(1, 1.01)]}
    (line,) = compare(recipe, rows, {"abc": {"layer": "768"}}, 1.0)
    assert table_cells(line, numbered([line]))[-1].startswith("equivalent, with deviations [1]")
    (line,) = compare(recipe, rows, {"abc": {"layer": "2048"}}, 1.0)
    assert line.deviations == ()


def test_fewer_repeats_than_the_paper_are_another_protocol(genbench: Callable[..., Result]) -> None:
    """And as many are not, though they had to be asked for; nor is an option that other cases alone depend on."""
    small = ("--set", "swae-gaussians.dims=10", "--set", "swae-gaussians.samples=1000")
    number = read_recipe("swae-gaussians", load())[1].published[0]
    for repeats, word in (("20", "other protocol"), ("1000", "equivalent")):
        how = {"method": "W2 / (sqrt(d) SW2)", "law": "ours", "samples": "1000", "repeats": repeats}
        line = compare_number(number, [(0, 1.221), (1, 1.222)], how)
        assert line.result is not None
        assert line.result.conclusion == word
        assert len(line.deviations) == 1  # the law
    assert genbench("reproduce", "swae-gaussians", *small, "--dry-run").exit_code == 0


def test_several_processes_of_torchrun_reproduce_nothing(
    reproduce: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would train all of it, and their records would speak of data-parallel training."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = reproduce("r")
    assert (result.exit_code, "reproduce in one process" in result.output) == (2, True)
    assert not Path("runs").exists()


def test_a_folder_that_cannot_be_written_costs_no_training(reproduce: Callable[..., Result]) -> None:
    Path("file").write_text("notes")
    result = reproduce("r", "--export", "file/below")
    assert (result.exit_code, "--export file/below: a part of this path is a file" in result.output) == (2, True)
    assert not list(Path("runs").glob("*"))


def test_names_with_markup_stay_text(reproduce: Callable[..., Result]) -> None:
    """A closing tag that closes nothing would be a traceback; after an experiment, its numbers would be lost."""
    text = Path("r.toml").read_text()
    Path("r.toml").write_text(text.replace('name = "one"', 'name = "[/x]"').replace('cell = "one"', 'cell = "[/x]"'))
    assert "[/x]" in reproduce("r", "--dry-run").output
    Path("mine.py").write_text(PLUGIN.replace('Finding("all", "x"', 'Finding("[/x]", "[/y]"'))
    result = reproduce("e")
    assert (result.exit_code, "[/x]" in result.output, "[/y]" in result.output) == (0, True, True)
