"""`genbench reproduce`: all is planned before anything trains, and the table says what may be compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from genbench.recipes import parse
from genbench.reproduction import compare
from genbench.rows import Row
from test_recipes import GOOD

PLUGIN = '''
from pathlib import Path
from genbench.api import Finding, Offer, Recipe
from genbench.hookspecs import hookimpl

def make():
    return Recipe(Path("r.toml").read_text(), "r.toml")

def found(*, shift: float = 0.0):
    text = """name = "e"\\nabout = "a"\\ncitation = "c"\\nstudy = "experiment"\\n[protocols.p]\\nmethod = "m"
[[published]]\\ncase = "all"\\nmetric = "x"\\nvalue = 1.0\\nmargin = 0.5\\nsource = "s"\\nprotocol = "p" """
    return Recipe(text, "e.toml", lambda seed, budget: [Finding("all", "x", 1.0 + shift + 0.01 * seed, 3, seed=seed)])

@hookimpl
def genbench_recipes():
    yield Offer(name="r", about="a", make=make)
    yield Offer(name="e", about="a", make=found)
'''
DOTS = str(Path(__file__).parent / "plugins" / "dots.py")


@pytest.fixture
def reproduce(genbench: Callable[..., Result]) -> Callable[..., Result]:
    Path("mine.py").write_text(PLUGIN)
    Path("r.toml").write_text(GOOD.replace('layer = "2048"', 'split = "test"'))
    return lambda *args: genbench("reproduce", *args, "--plugin", "mine.py", "--plugin", DOTS)


def lines(folder: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(Path(folder, "reproduce.json").read_text())["lines"]
    return found


def test_runs_are_ordinary_ones_and_the_table_is_exported(reproduce: Callable[..., Result]) -> None:
    result = reproduce("r", "--export", "out")
    assert result.exit_code == 0, result.output
    assert len(list(Path("runs").glob("*/weights.safetensors"))) == 4
    assert {"reproduce.md", "reproduce.csv", "rows.csv", "report.html"} <= {path.name for path in Path("out").iterdir()}
    (line,) = lines("out")
    assert line["seeds"] == [0, 1]
    assert line["verdict"]["word"] in ("equivalent", "different", "inconclusive")  # type: ignore[index]
    (row,) = csv.DictReader(Path("out/reproduce.csv").read_text().splitlines())
    assert row["published"] == "1"
    again = reproduce("r")
    assert "2 done" in again.output or "4 done" in again.output


def test_a_fraction_of_the_budget_is_another_protocol(reproduce: Callable[..., Result]) -> None:
    result = reproduce("r", "--budget", "0.5", "--seeds", "1", "--export", "out")
    assert result.exit_code == 0, result.output
    (line,) = lines("out")
    assert line["verdict"]["fields"] == ["budget: published 1, ours 0.5"]  # type: ignore[index]
    assert "budget: published 1, ours 0.5" in Path("out/reproduce.md").read_text()
    run = json.loads(next(Path("runs").glob("*/run.json")).read_text())["run"]
    assert run["images"] == 32


def test_a_changed_option_is_another_protocol(reproduce: Callable[..., Result]) -> None:
    assert reproduce("r", "--set", "swae.weight=3", "--seeds", "1", "--export", "out").exit_code == 0
    (line,) = lines("out")
    assert line["verdict"]["fields"] == ["--set swae.weight=3"]  # type: ignore[index]


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


def test_an_experiment_is_compared_in_the_same_table(reproduce: Callable[..., Result]) -> None:
    assert reproduce("e", "--seeds", "3", "--export", "out").exit_code == 0
    (line,) = lines("out")
    assert line["verdict"]["word"] == "equivalent"  # type: ignore[index]
    assert len(json.loads(Path("out/findings.json").read_text())) == 3
    assert reproduce("e", "--seeds", "3", "--set", "e.shift=5", "--export", "out").exit_code == 0
    assert lines("out")[0]["verdict"]["word"] == "other protocol"  # type: ignore[index]
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
    recipe = parse(GOOD, "r.toml")
    rows = [
        row(1, 1.02),
        row(0, 1.0),
        row(0, 9.0, model="ae"),
        row(0, 9.0, stage="snapshot"),
        row(0, 9.0, role="control"),
    ]
    (line,) = compare(recipe, {"one": rows}, {"abc": {"layer": "2048"}}, 1.0)
    assert line.seeds == (0, 1)
    assert line.verdict is not None
    assert line.verdict.word == "equivalent"
    (line,) = compare(recipe, {"one": rows}, {"abc": {"layer": "768"}}, 1.0)
    assert line.verdict is not None
    assert line.verdict.fields == ("layer: published 2048, ours 768",)
    (line,) = compare(recipe, {"one": []}, {}, 1.0)
    assert line.verdict is None


def test_several_processes_of_torchrun_reproduce_nothing(
    reproduce: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would train all of it, and their records would speak of data-parallel training."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = reproduce("r")
    assert (result.exit_code, "reproduce in one process" in result.output) == (2, True)
    assert not Path("runs").exists()


def test_a_place_that_cannot_be_written_costs_no_training(reproduce: Callable[..., Result]) -> None:
    Path("file").write_text("notes")
    result = reproduce("r", "--export", "file/below")
    assert (result.exit_code, "--export file/below: cannot be written" in result.output) == (2, True)
    assert not list(Path("runs").glob("*"))


def test_names_with_markup_stay_text(reproduce: Callable[..., Result]) -> None:
    """A closing tag that closes nothing would be a traceback; after an experiment, its numbers would be lost."""
    text = Path("r.toml").read_text()
    Path("r.toml").write_text(text.replace('name = "one"', 'name = "[/x]"').replace('cell = "one"', 'cell = "[/x]"'))
    assert "[/x]" in reproduce("r", "--dry-run").output
    Path("mine.py").write_text(PLUGIN.replace('Finding("all", "x"', 'Finding("[/x]", "[/y]"'))
    result = reproduce("e")
    assert (result.exit_code, "[/x]" in result.output, "[/y]" in result.output) == (0, True, True)
