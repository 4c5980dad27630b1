"""The packaged pages: the examples keep the contract, the commands for agents run as they stand, `docs` prints them."""

from __future__ import annotations

import re
import shlex
import sys
import types
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from genbench.cli.plugins import doc_pages
from genbench.registry.listing import KINDS
from genbench.registry.loader import load
from genbench.testing import check_plugin

PAGES = doc_pages()
DOTS = ("--plugin", str(Path(__file__).parent / "fixtures" / "dots.py"))
SMALL = (*DOTS, "--dataset", "dots", "--network", "mlp", "--batch", "16")
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGES["plugins"].partition("## One example")[2], re.DOTALL)
MODEL_CHECKS = 8
"""The checks of a model before those that train it for seconds."""


class FakeService(types.ModuleType):
    """Stands for the package wandb: records the calls of its client."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = types.SimpleNamespace(origin="wandb.py")  # type: ignore[assignment]
        self.calls: list[tuple[str, Any]] = []

    def init(self, **arguments: Any) -> FakeService:
        self.calls.append(("init", arguments))
        return self

    def log(self, values: dict[str, float]) -> None:
        self.calls.append(("log", values))

    def finish(self, exit_code: int) -> None:
        self.calls.append(("finish", exit_code))


def kind_of(block: str) -> str:
    """The kind that an example is of, by its hook."""
    return re.findall(r"def genbench_(\w+)s\(", block)[0]  # type: ignore[no-any-return]


def test_every_kind_has_one_example() -> None:
    assert sorted(map(kind_of, EXAMPLES)) == sorted(KINDS)


@pytest.mark.parametrize("block", EXAMPLES, ids=kind_of)
def test_examples_keep_the_contract(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeService())
    file = tmp_path / "example.py"
    file.write_text(block)
    registry = load([file])
    kind = kind_of(block)
    (name,) = [
        entry.spec.name
        for entry in registry.registrations[kind].values()  # type: ignore[index]
        if entry.plugin.origin == str(file)
    ]
    results = list(islice(check_plugin(registry, kind, name), MODEL_CHECKS if kind == "model" else None))  # type: ignore[arg-type]
    assert [result for result in results if result.status == "fails"] == []
    assert any(result.status == "holds" for result in results)


def test_the_service_is_told_losses_and_numbers(
    genbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = FakeService()
    monkeypatch.setitem(sys.modules, "wandb", service)
    Path("service.py").write_text(next(block for block in EXAMPLES if kind_of(block) == "tracker"))
    sizes = ("--images", "64", "--latent-dim", "2", "--metrics", "reconstruction")
    tracked = ("--tracker", "wandb", "--set", "wandb.project=mine", "--plugin", "service.py")
    result = genbench("run", "swae", *SMALL, *sizes, *tracked)
    assert result.exit_code == 0, result.output
    names = [name for name, _ in service.calls]
    assert names[0] == "init"
    assert names[-1] == "finish"
    start = service.calls[0][1]
    assert (start["project"], start["config"]["model"], start["config"]["seed"]) == ("mine", "swae", 0)
    logged = {key for name, values in service.calls if name == "log" for key in values}
    assert {"images", "loss/reconstruction", "test/reconstruction.pixel"} <= logged
    assert service.calls[-1][1] == 0


def test_a_service_that_is_not_installed_is_refused(genbench: Callable[..., Result]) -> None:
    Path("service.py").write_text(next(block for block in EXAMPLES if kind_of(block) == "tracker"))
    result = genbench("run", "swae", *SMALL, "--metrics", "speed", "--tracker", "wandb", "--plugin", "service.py")
    assert result.exit_code == 2
    assert "pip install wandb" in result.output
    assert not Path("runs").exists()


def test_every_command_for_agents_runs_in_an_empty_folder(genbench: Callable[..., Result]) -> None:
    commands = [
        shlex.split(line)[1:]
        for block in re.findall(r"```sh\n(.*?)```", PAGES["agents"], re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(commands) >= 10
    for command in commands:
        small = {"run": (*SMALL, "--images", "64", "--seeds", "1"), "evaluate": DOTS}
        result = genbench(*command, *small.get(command[0], ()))
        assert result.exit_code == 0, (command, result.output)
    assert Path("reports/ripple/table.md").is_file()
    assert Path("runs/events.jsonl").is_file()
    assert Path("losses.png").is_file()


def test_docs_lists_and_prints_pages(genbench: Callable[..., Result]) -> None:
    listed = genbench("docs").output
    head, *lines = listed.splitlines()
    assert "genbench docs PAGE" in head
    assert [line.split()[0] for line in lines] == list(PAGES)
    assert all(line.endswith(".") and len(line) <= 80 for line in lines)
    assert genbench("news").output == PAGES["news"]
    assert genbench("docs", "agents").output == PAGES["agents"]
    wrong = genbench("docs", "agent")
    assert wrong.exit_code == 2
    assert "did you mean 'agents'" in wrong.output


def test_pages_name_no_command_that_is_not_there(genbench: Callable[..., Result]) -> None:
    assert set(re.findall(r"`genbench docs ([a-z]+)`", "".join(PAGES.values()))) <= set(PAGES)


def test_the_page_of_models_has_every_model_with_its_source_and_no_option_that_is_not_there() -> None:
    registry, page = load([]), PAGES["models"]
    objectives, needs = page.split("\n## What each needs and costs\n")
    for part in (objectives, needs):
        rows = re.findall(r"^\| `([a-z0-9-]+)` \|(.*)\|$", part, re.MULTILINE)
        assert sorted(name for name, _ in rows) == sorted(registry.names("model"))
    for name, row in rows:
        spec = registry.get("model", name).spec
        assert row.rsplit("|", 1)[1].strip() == spec.reference, name
        assert spec.family, name
    for component, option in re.findall(r"`([a-z0-9-]+)\.([a-z-]+)`", page):
        kinds = [kind for kind in registry.registrations if component in registry.registrations[kind]]
        assert any(option in registry.option_kinds(kind, component) for kind in kinds), f"{component}.{option}"
