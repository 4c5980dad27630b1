"""What others wrote is text: no page, table, sheet or terminal obeys a name or a message, and no file runs."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from genbench.storage.schema import SCHEMA

Genbench = Callable[..., Result]
TESTS = Path(__file__).parents[1]
DOTS = ("--plugin", str(TESTS / "fixtures" / "dots.py"))
TINY = ("--dataset", "dots", "--network", "mlp", "--latent-dim", "2", "--images", "160", "--batch", "16")
TEXTS = (
    "<script>alert(1)</script>",
    r"\input{/etc/passwd}",
    "$x_1$ & 50% #~^",
    "[red]x[/]",
    "[/]",
    "=HYPERLINK(1)",
    "@SUM(1)",
    "\x1b[2Jx",
    "a|b`c",
)


def poisoned(runs: Path, text: str) -> None:
    """Put the text wherever a run's files may hold one."""
    for folder in runs.iterdir():
        for name in ("run.json", "metrics.json"):
            value = json.loads((folder / name).read_text())
            if name == "run.json":
                value["run"]["model"]["name"] += text
                value["run"]["model"]["options"]["note"] = text + folder.name[-10:]
                value["provenance"] |= {"command": text, "commit": text, text: text}
            for entry in value.get("measurements", {}).values():
                entry["metric"] += text
                for number in entry["numbers"]:
                    number["label"], number["how"][text] = f"MSE {text}", text
            (folder / name).write_text(json.dumps(value))
        value = {"schema": SCHEMA, "kind": "RuntimeError", "message": text, "trace": text}
        (folder / "failure.json").write_text(json.dumps(value))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from click.testing import CliRunner

    from genbench.cli.main import main

    at = tmp_path_factory.mktemp("trained")
    words = (
        "run",
        "ae",
        "swae",
        *DOTS,
        *TINY,
        "--metrics",
        "reconstruction",
        "--seeds",
        "2",
        "--out",
        str(at / "runs"),
    )
    result = CliRunner(env={"GENBENCH_CACHE": str(at / "cache")}).invoke(main, words)
    assert result.exit_code == 0, result.output
    return at / "runs"


@pytest.fixture(params=TEXTS)
def text(request: pytest.FixtureRequest, trained: Path, tmp_path: Path) -> str:
    """A hostile text, which stands everywhere in the runs of the working directory."""
    import shutil

    shutil.copytree(trained, tmp_path / "runs")
    poisoned(tmp_path / "runs", request.param)
    text: str = request.param
    return text


class Tags(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href") or name.startswith("on")]


INSIDE = tuple(f"data:image/{kind};base64," for kind in ("webp", "svg+xml"))
"""Pictures within the page: an `img` runs no script of an SVG."""


def test_exports_hold_the_text_as_text(text: str, genbench: Genbench) -> None:
    result = genbench("report", "--export", "out")
    assert result.exit_code == 0, result.output
    page = Path("out/report.html").read_text()
    tags = Tags(page)
    assert tags.tags.count("script") == 1  # the report's own
    assert all(link and link.startswith((*INSIDE, "pictures/", "figures/")) for link in tags.links)
    latex = Path("out/table.tex").read_text()
    body = "\n".join(line for line in latex.splitlines() if not line.startswith("%"))
    assert r"\input" not in body
    assert "x_1" not in body
    markdown = Path("out/table.md").read_text()
    assert "<script" not in markdown
    for name in ("rows.csv", "table.csv"):
        cells = [cell for line in csv.reader(io.StringIO(Path("out", name).read_text())) for cell in line]
        assert not [cell for cell in cells if cell[:1] in ("=", "@", "+")]
    json.loads(Path("out/rows.json").read_text())


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("report",),
    ("report", "--format", "md"),
    ("report", "--format", "tex"),
    ("cite", "runs"),
    ("paper", "--out", "paper"),
    ("show", "RUN"),
    ("compare", "ae", "swae"),
    ("power", "runs", "--metric", "METRIC"),
    ("curves", "runs"),
    ("diff", "RUN", "OTHER"),
    ("bundle", "export", "runs", "--out", "x.tar"),
    ("evaluate", "--metrics", "sharpness", *DOTS),
    ("run", "ae", "swae", *DOTS, *TINY, "--metrics", "reconstruction", "--seeds", "2"),
)


@pytest.mark.parametrize("text", ["[red]x[/]", "[/]", "\x1b[2Jx"], indirect=True)
def test_every_command_prints_the_text_as_text(text: str, genbench: Genbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    names = sorted(path.name for path in Path("runs").iterdir())
    words: dict[str, str] = {"RUN": names[0], "OTHER": names[-1], "METRIC": f"reconstruction{text}.per-pixel"}
    shown = text.replace("\x1b", " ")
    printing = []
    for command in COMMANDS:
        result = genbench(*(words.get(word, word) for word in command))
        assert result.exit_code in (0, 1, 2), result.output
        assert "Traceback" not in result.output
        assert "\x1b[2J" not in result.output, command
        assert result.exit_code != 2 or len(result.output.splitlines()) <= 2 + len(names), command
        if shown in result.output:
            printing.append(command[0])
    assert {"report", "show", "diff"} <= set(printing)


def test_messages_of_a_plugin_are_text(tmp_path: Path, genbench: Genbench) -> None:
    plugin = tmp_path / "loud.py"
    source = (TESTS / "fixtures" / "faulty.py").read_text()
    source = source.replace("a plug-in's\\nown fault", "[/] [red]x[/]")
    plugin.write_text(source)
    result = genbench("run", "raises", *DOTS, "--plugin", str(plugin), *TINY, "--metrics", "reconstruction")
    assert result.exit_code == 1
    assert "[/] [red]x[/]" in result.output
    assert genbench("list", "--plugin", str(plugin)).exit_code == 0


# ---------------------------------------------------------------- code that nobody asked for


def test_code_that_lies_about_is_never_loaded(tmp_path: Path) -> None:
    """In the working directory, the data root, the folder of the runs and below it, under names that are looked for."""
    evil = "from pathlib import Path\nPath(__file__).with_suffix('.loaded').touch()\n"
    runs = tmp_path / "runs"
    for directory in (tmp_path, tmp_path / "data", runs, runs / "plugins"):
        for name in ("genbench_evil", "conftest", "sitecustomize", "genbench_swae", "click", "rich", "plugins/evil"):
            file = directory / f"{name}.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(evil)
        info = directory / "evil-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[genbench]\nevil = genbench_evil\n")
    variables = {**os.environ, "GENBENCH_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    variables.pop("PYTHONPATH", None)
    words: dict[str, Any] = {"cwd": tmp_path, "env": variables, "capture_output": True, "text": True}
    run = ("run", "ae", *DOTS, *TINY, "--metrics", "reconstruction", "--data-root", "data")
    for command in (run, ("report",)):
        done = subprocess.run([sys.executable, "-m", "genbench", *command], **words)
        assert done.returncode == 0, done.stderr
        assert "evil" not in done.stdout
    assert list(tmp_path.rglob("*.loaded")) == []
