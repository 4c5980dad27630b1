"""The cached listing equals that of the loaded plug-ins, is used only while nothing has changed, and needs no torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import NamedTuple

import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from conftest import DOTS
from genbench.cli.main import main
from genbench.registry import cache
from genbench.registry.cache import installed_key, read_listing, write_listing
from genbench.registry.listing import KINDS
from genbench.registry.loader import Registry, list_registry


def test_the_cached_listing_is_the_one_that_was_written(tmp_path: Path, registry: Registry) -> None:
    listing = list_registry(registry)
    write_listing(tmp_path / "c.json", "key", listing)
    assert read_listing(tmp_path / "c.json", "key") == listing
    assert read_listing(tmp_path / "c.json", "another key") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"key": "key"}', '{"key": "key", "listing": {"plugins": 1}}'])
def test_a_damaged_cache_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    assert read_listing(tmp_path / "c.json", "key") is None


def test_the_key_follows_entry_points_sources_and_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "their_prior.py"
    module.write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    keys = [installed_key({})]
    monkeypatch.setattr(cache, "entry_points", lambda group: [EntryPoint("theirs", "their_prior", "genbench")])
    keys.append(installed_key({}))
    assert installed_key({}) == keys[-1]
    module.write_text("x = 2")  # of the same length
    os.utime(module, (0, 0))
    keys.append(installed_key({}))
    module.write_text("x = 3")
    os.utime(module, (0, 0))  # of the same length at the same time
    keys += [installed_key({}), installed_key({"GENBENCH_LOAD_PLUGINS": "theirs"}), installed_key({}, ["theirs"])]
    assert len(set(keys)) == len(keys)


def test_the_list_and_completion_load_no_torch(genbench: Callable[..., Result]) -> None:
    assert genbench("list", "plugins").exit_code == 0  # makes the cache
    lines = {
        "genbench run --set swae.w": "swae.weight=",
        "genbench run sw": "swae",
        "genbench run --prior normal,ri": "normal,ring",
        "genbench run --network wae-m": "wae-mnist",
        "genbench run --dataset fash": "fashion-mnist",
        "genbench run --metrics fid,latent-": "fid,latent-w2",
        "genbench run --set wae-mmd.kernel=": "wae-mmd.kernel=imq",
        "genbench comp": "completion",
        "genbench run --disable-plugin wae-m": "wae-mmd",
        "genbench list --disable-plugin vae,swa": "vae,swae",
        "genbench list pri": "priors",
    }
    asked = [{"_GENBENCH_COMPLETE": "bash_complete", "COMP_WORDS": words} for words in lines]
    calls = [((), {**variables, "COMP_CWORD": str(variables["COMP_WORDS"].count(" "))}) for variables in asked]
    listed, *answers = without_torch((("list",), {}), *calls)
    assert "swae" in listed.stdout
    for (words, completed), answer in zip(lines.items(), answers, strict=True):
        assert f"plain,{completed}" in answer.stdout.splitlines(), (words, answer)
    assert not any(answer.torch_imported for answer in (listed, *answers))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_says_how_to_install_it(shell: str, genbench: Callable[..., Result]) -> None:
    result = genbench("completion", shell)
    assert result.exit_code == 0
    assert result.output.startswith("# To install: genbench completion")
    assert f"_GENBENCH_COMPLETE={shell}_complete" in result.output


def completed(*words: str) -> list[str]:
    """The completions of the last word of a line, in this process."""
    *before, incomplete = words
    items = ShellComplete(main, {}, "genbench", "_GENBENCH_COMPLETE").get_completions(before, incomplete)
    return [item.value for item in items]


# ---------------------------------------------------------------- typing errors

TINY = ("--network", "mlp", "--images", "32", "--batch", "16", "--latent-dim", "2", "--metrics", "reconstruction")


class Answer(NamedTuple):
    """What a command came to, and whether torch was imported until then."""

    status: int
    stdout: str
    stderr: str
    torch_imported: bool


CALLS = """
import json, sys
from click.testing import CliRunner
from genbench.cli.main import main

answers = []
for words, variables in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, words, prog_name="genbench", env=variables)
    answers.append((result.exit_code, result.stdout, result.stderr, "torch" in sys.modules))
print(json.dumps(answers))
"""


def without_torch(*calls: tuple[Sequence[str], Mapping[str, str]]) -> list[Answer]:
    """The answers to commands with variables of the environment, one after another in a fresh process."""
    done = subprocess.run([sys.executable, "-c", CALLS, json.dumps(calls)], capture_output=True, text=True, check=True)
    return [Answer(*answer) for answer in json.loads(done.stdout)]


def test_the_help_imports_no_torch() -> None:
    for answer in without_torch((("--help",), {}), (("run", "--help"), {})):
        assert (answer.status, answer.torch_imported) == (0, False)


MISTYPED = [
    (("run", "swaee"), "there is no model 'swaee': did you mean 'swae'?"),
    (("run", "swae", "--prior", "rong"), "there is no prior 'rong': did you mean 'ring'?"),
    (("run", "swae", "ring"), "there is no model 'ring': it is a prior"),
    (("run", "swae", "--network", "cnov"), "did you mean 'conv'?"),
    (("run", "swae", "--dataset", "mnits"), "did you mean 'mnist'?"),
    (("run", "swae", "--metrics", "fdi"), "there is no metric 'fdi'"),
    (("run", "swae", "--snapshots", "2", "--snapshot-metrics", "fdi"), "there is no metric 'fdi'"),
    (("run", "swae", "--controls=nois"), "did you mean 'noise'?"),
    (("run", "swae", "--set", "swae.wieght=1"), "did you mean 'weight'?"),
    (("run", "swae", "--set", "vae.rate=1"), "the model 'vae' is no part of this study"),
    (("run", "swae", "swae"), "the model 'swae' is named twice"),
    (("evaluate", "runs", "--metrics", "fdi"), "there is no metric 'fdi'"),
    (("reproduce", "swae-celebaa"), "there is no recipe 'swae-celebaa': did you mean 'swae-celeba'?"),
]


def test_a_mistyped_name_is_refused_before_torch_is_imported(genbench: Callable[..., Result]) -> None:
    assert genbench("list", "plugins").exit_code == 0  # makes the cache
    hook = "from genbench.hookspecs import hookimpl\n@hookimpl\ndef genbench_bibtex(): return {}\n"
    Path("slight.py").write_text(hook)
    answers = without_torch(*((arguments, {}) for arguments, _ in MISTYPED))
    for (arguments, message), answer in zip(MISTYPED, answers, strict=True):
        assert (answer.status, answer.torch_imported) == (2, False), answer
        assert message in answer.stderr
        assert "Traceback" not in answer.stderr
        assert genbench(*arguments, "--plugin", "slight.py").stderr == answer.stderr  # of the loaded plug-ins


def test_a_mistyped_name_costs_less_than_a_second(genbench: Callable[..., Result]) -> None:
    """In seconds of the processor, best of three: other processes may take the cores meanwhile."""
    assert genbench("list", "plugins").exit_code == 0
    seconds = []
    for _ in range(3):
        started = os.times()
        assert without_torch((("run", "swaee"), {}))[0].status == 2
        ended = os.times()
        seconds.append(ended.children_user + ended.children_system - started.children_user - started.children_system)
    assert 0 < min(seconds) < 1.0


def test_a_run_caches_the_names_and_knows_those_of_a_plugin_file(genbench: Callable[..., Result]) -> None:
    assert genbench("run", "swaee").exit_code == 2  # nothing is cached: all plug-ins are loaded
    (answer,) = without_torch((("run", "swaee"), {}))
    assert (answer.status, answer.torch_imported) == (2, False), answer
    dry = genbench("run", "ae", "--plugin", str(DOTS), "--dataset", "dots", *TINY, "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "there is no dataset 'dots'" in genbench("run", "ae", "--dataset", "dots", *TINY).output


def test_the_components_of_a_plugin_file_on_the_line_are_completed(genbench: Callable[..., Result]) -> None:
    assert genbench("new", "prior", "moon").exit_code == 0
    assert completed("run", "swae", "--prior", "moo") == []
    assert completed("run", "swae", "--plugin", "moon.py", "--prior", "moo") == ["moon"]
    assert completed("run", "swae", "--plugin", "moon.py", "--set", "moon.s") == ["moon.scale="]
    assert completed("run", "swae", "--plugin", "absent.py", "--prior", "rin") == ["ring"]
    Path("moon.py").write_text("raise SystemExit('broken')")
    assert completed("run", "swae", "--plugin", "moon.py", "--prior", "rin") == ["ring"]


def test_plugins_that_are_left_out_are_not_completed(genbench: Callable[..., Result]) -> None:
    assert "vae" not in completed("run", "--disable-plugin", "vae", "va")
    assert completed("run", "va") == ["vae", "vamp-vae"]


def test_the_kinds_of_the_list_are_completed() -> None:
    kinds = {f"{kind}s" for kind in KINDS}
    assert set(completed("list", "")) == {*kinds, "plugins", "runs"}


def test_sorting_is_completed_by_what_was_measured(genbench: Callable[..., Result]) -> None:
    assert completed("report", "--sort", "") == []
    assert genbench("run", "ae", "--plugin", str(DOTS), "--dataset", "dots", *TINY, "--out", "mine").exit_code == 0
    assert completed("report", "mine", "--sort", "rec") == ["reconstruction.image", "reconstruction.pixel"]
    assert completed("report", "mine", "--sort", "fid") == []
