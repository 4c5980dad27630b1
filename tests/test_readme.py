"""What the README and the documentation show works as printed: plug-ins, commands, options, examples, links."""

from __future__ import annotations

import doctest
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import Result

import genbench as genbench_package
from conftest import DOTS, SHARED
from genbench.cli.main import main
from genbench.interface.results import Results
from genbench.registry.loader import load
from genbench.storage import run_dir
from support.kept import headline_rows

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "genbench" / "docs").glob("*.md"))
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in (ROOT / "README.md", *DOCS)}
README = PAGES["README.md"]
REPORTS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "reports").rglob("*.md"))


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language."""
    texts = re.findall(rf"^ *```{language}\n(.*?)^ *```", page, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(text) for text in texts]


def commands(page: str) -> list[str]:
    """The `genbench` commands of a page's shell blocks, without comments; those behind `-m` of torchrun included."""
    lines = "\n".join(blocks(page, "sh")).splitlines()
    parts = [part for line in lines for part in line.split("  #")[0].split("&&")]
    return [match[1].strip() for part in parts if (match := re.search(r"(?:^| -m )(genbench .*)", part.strip()))]


def words(command: str) -> list[str]:
    """The arguments of a command, DATA replaced by the folder of real data."""
    return [str(SHARED) if word == "DATA" else word for word in shlex.split(command)[1:]]


def parse(command: click.Command, arguments: list[str], parent: click.Context | None = None) -> None:
    """Parse and check arguments as the command line does, without doing anything."""
    if not isinstance(command, click.Group):
        command.make_context(command.name, arguments, parent)
        return
    context = click.Context(command, parent, info_name=command.name)
    _, member, rest = command.resolve_command(context, arguments)
    assert member is not None
    parse(member, rest, context)


def mentions(page: str) -> list[str]:
    """The `genbench` commands in a page's running text and indented lines; parts of commands among them."""
    spans = re.findall(r"`(genbench [^`]+)`", page.replace("\n", " "))
    return [*spans, *re.findall(r"^    (genbench .*)$", page, flags=re.MULTILINE)]


COMMANDS = [(name, command) for name, page in PAGES.items() for command in commands(page)]
PLUGINS = PAGES["genbench/docs/plugins.md"]
STUDIES = PAGES["genbench/docs/studies.md"]
STATISTICS = PAGES["genbench/docs/statistics.md"]
(SPIRAL,) = (text for text in blocks(README, "python") if "# spiral.py" in text)


def test_the_readme_is_short_and_names_the_two_installations() -> None:
    assert len(README.split()) <= 1000
    installs = [line for line in README.splitlines() if line.startswith("pip install")]
    assert installs == [
        "pip install . && genbench run swae wae-gan wae-mmd vae --seeds 3 --epochs 1",
        "pip install '.[test]' && pytest",
    ]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder: where the first command of the README left its runs/, RUNS are looked up in there."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_command_is_understood(name: str, command: str) -> None:
    parse(main, words(command))


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("name", [*PAGES, *REPORTS])
def test_every_command_that_a_text_mentions_has_these_arguments_and_options(name: str) -> None:
    for command in mentions((ROOT / name).read_text(encoding="utf-8")):
        if not re.search(r"\.\.\.|COMMAND|KIND", command):
            try:
                parse(main, words(command))
            except (click.MissingParameter, click.exceptions.Exit):  # a command alone, --version
                pass
            except click.UsageError as error:
                raise AssertionError(f"{command}: {error.format_message()}") from None


@pytest.mark.parametrize(
    "command", sorted({c for _, c in COMMANDS if c.startswith("genbench run") and "--plugin" not in c})
)
def test_every_study_can_be_planned(command: str, genbench: Callable[..., Result]) -> None:
    if ("DATA" in command or ".toml" in command) and not SHARED.is_dir():
        pytest.skip(f"no data at {SHARED}")
    if command.startswith("genbench run study.toml"):
        Path("study.toml").write_text(f'data-root = "{SHARED}"\n{blocks(STUDIES, "toml")[0]}')
    result = genbench(*words(command), "--dry-run")
    assert result.exit_code == 0, result.output


def test_the_studies_of_the_documentation_are_read(tmp_path: Path) -> None:
    (first,) = blocks(STUDIES, "toml")
    (tmp_path / "study.toml").write_text(first)
    assert genbench_package.read_study(tmp_path / "study.toml")["options"]["swae.weight"] == ["1", "10", "100"]


def test_every_file_of_a_run_folder_is_documented() -> None:
    files = {
        name
        for name in vars(run_dir).values()
        if isinstance(name, str) and re.fullmatch(r"[\w-]+\.(jsonl?|safetensors|png)", name)
    }
    files -= {run_dir.FITTED, run_dir.IMPORTED, run_dir.TUNING}  # the last one lies beside the runs
    assert len(files) > 8
    for page in (STUDIES, PAGES["genbench/docs/architecture.md"]):
        rows = "".join(line for line in page.splitlines() if line.startswith("| "))
        assert {name for name in files if f"`{name}`" not in rows} == set()


@pytest.mark.parametrize(
    ("page", "study", "ranked"), [(README, "swae-convergence", "ring-coverage"), (STATISTICS, "fashion-mnist", "fid")]
)
def test_the_table_of_a_kept_study_is_what_its_rows_print(page: str, study: str, ranked: str) -> None:
    (printed,) = blocks(page, "text")
    table = Results((), headline_rows(study)).table(width=80, sort=ranked)
    assert printed.rstrip() == table.rstrip()
    assert f"reports/{study}/README.md)" in page


def test_the_worked_example_has_the_values_of_the_kept_study() -> None:
    by_model: dict[str, list[float]] = {}
    for row in headline_rows("fashion-mnist"):
        if row.metric == "fid" and row.value is not None:
            by_model.setdefault(row.model, []).append(row.value)
    for model, values in by_model.items():
        stated = re.search(rf'"{model}": \((.*)\),', STATISTICS)
        assert stated is not None
        assert [float(value) for value in stated[1].split(", ")] == [round(value, 4) for value in values]
    assert len(by_model) == 4


def test_the_python_of_the_readme_runs_as_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the tiny dataset in the place of the default one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    tiny = {"dataset": "dots", "plugins": DOTS, "network": "mlp", "images": 160, "batch": 16, "progress": False}
    run, load = genbench_package.run, genbench_package.load_model
    monkeypatch.setattr(
        genbench_package, "run", lambda models, **given: run(models, **{**given, **tiny, "metrics": "reconstruction"})
    )
    monkeypatch.setattr(genbench_package, "load_model", lambda folder: load(folder, plugins=DOTS))
    (text,) = (block for block in blocks(README, "python") if block.startswith("import genbench"))
    assert len(text.splitlines()) == 8
    names: dict[str, Any] = {}
    exec(text, names)
    assert len(names["study"].runs) == 6
    assert Path("ranks.pdf").is_file()
    assert names["codes"].shape[1] == 8
    assert len(names["images"]) == 64


def test_the_recipe_of_the_readme_can_be_planned(genbench: Callable[..., Result]) -> None:
    (command,) = (command for command in commands(README) if command.startswith("genbench reproduce"))
    result = genbench(*words(command), "--dry-run")
    assert result.exit_code == 0, result.output


def test_the_plugin_of_the_readme_runs_as_printed(genbench: Callable[..., Result]) -> None:
    Path("spiral.py").write_text(SPIRAL)
    check, run = (command for command in commands(README) if "spiral.py" in command)
    result = genbench(*words(check))
    assert result.exit_code == 0, result.output
    dots = ("--plugin", str(DOTS), "--dataset", "dots", "--network", "mlp")
    tiny = ("--images", "200", "--batch", "16", "--metrics", "reconstruction", "--set", "spiral.turns=3")
    result = genbench(*words(run), *dots, *tiny)
    assert result.exit_code == 0, result.output
    for command in blocks(README.partition("## Write it up")[2], "sh")[0].splitlines():
        result = genbench(*words(command.partition("#")[0]))
        assert result.exit_code == 0, result.output
    for file in ("reports/mine/report.html", "reports/mine/table.tex", "paper/main.tex", "study.tar"):
        assert Path(file).is_file(), file


def test_the_new_plugins_work_as_printed(genbench: Callable[..., Result]) -> None:
    (begin,) = (command for command in commands(README) if command.startswith("genbench new"))
    assert genbench(*words(begin)).exit_code == 0
    new, _, check, run = (command for command in commands(PLUGINS) if "laplace" in command)
    for arguments in (words(new), words(check), [*words(run), "--dry-run"]):
        result = genbench(*arguments)
        assert result.exit_code == 0, result.output


def test_the_plugin_of_the_readme_is_installed_and_tested_by_what_plugins_says(tmp_path: Path) -> None:
    """With the entry point as printed, in a process that finds the distribution on its path."""
    (points,) = blocks(PLUGINS, "toml")
    (test,) = (text for text in blocks(PLUGINS, "python") if "suite(" in text)
    ((name, module),) = tomllib.loads(points)["project"]["entry-points"]["genbench"].items()
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[genbench]\n{name} = {module}\n")
    (tmp_path / f"{module}.py").write_text(SPIRAL)
    (tmp_path / "test_spiral.py").write_text(test)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_spiral.py"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^\d+ passed", done.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize("name", PAGES)
def test_every_option_and_command_that_a_page_names_exists(name: str) -> None:
    flags = {flag for command in main.commands.values() for option in command.params for flag in option.opts}
    text = re.sub(r"`[^`]+` is\s", "", PAGES[name])  # in the news, names that were replaced
    assert set(re.findall(r"`(--[a-z-]+)", text)) <= flags
    assert set(re.findall(r"`genbench\s([a-z]+)", text)) <= set(main.commands)


@pytest.mark.parametrize("name", PAGES)
def test_every_setting_that_a_page_names_exists(name: str) -> None:
    registry = load()
    for component, option in re.findall(r"--set ([a-z0-9-]+)\.([a-z-]+)=", PAGES[name].replace("spiral.turns", "")):
        kinds = [kind for kind in registry.registrations if component in registry.registrations[kind]]
        assert any(option in registry.option_kinds(kind, component) for kind in kinds), f"{component}.{option}"


@pytest.mark.parametrize("name", [*PAGES, *REPORTS])
def test_every_relative_link_leads_to_a_file_and_its_heading(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http:", "https:")):
            continue
        path, _, heading = link.partition("#")
        target = (ROOT / name).parent / path if path else ROOT / name
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}, link


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_the_examples_of_a_page_run(path: Path) -> None:
    assert doctest.testfile(str(path), module_relative=False).failed == 0


def test_every_dataset_network_and_metric_is_named() -> None:
    registry = load()
    for start, kind in (("Datasets:", "dataset"), ("Networks:", "network")):
        (line,) = (line for line in README.split("\n\n") if line.startswith(start))
        names = set(re.findall(r"`([a-z0-9-]+)`", line.split(").\n")[0]))
        assert names == set(registry.names(kind)), kind  # type: ignore[arg-type]
    rows = [line.split("|")[1] for line in PAGES["genbench/docs/metrics.md"].splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`([a-z0-9-]+)`", " ".join(rows))) == {*registry.names("metric"), *registry.names("sampler")}


def test_the_documentation_is_named_in_the_readme() -> None:
    assert {f"genbench/docs/{path.name}" for path in DOCS} <= set(re.findall(r"\]\(([^)#\s]+)", README))
