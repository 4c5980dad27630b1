"""The kept catalogue: what it answers is what loading answers, and only while nothing has changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import Result

from conftest import DOTS
from genbench.cli.main import main
from genbench.registry import cache as index
from genbench.registry.cache import KINDS, SCHEMA, installed_key, read_index, write_index
from genbench.registry.loader import Registry, index_of


def test_what_is_kept_is_what_was_made(tmp_path: Path, registry: Registry) -> None:
    made = index_of(registry)
    write_index(tmp_path / "c.json", "key", made)
    assert read_index(tmp_path / "c.json", "key") == made
    assert read_index(tmp_path / "c.json", "another key") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', '{"schema": 99, "key": "key"}'])
def test_a_damaged_cache_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(text)
    assert read_index(tmp_path / "c.json", "key") is None


def test_a_cache_whose_content_was_changed_is_none(tmp_path: Path, registry: Registry) -> None:
    path = tmp_path / "c.json"
    write_index(path, "key", index_of(registry))
    kept = json.loads(path.read_text())
    assert kept["schema"] == SCHEMA
    kept["index"]["offers"]["prior"][0]["about"] = "forged"
    path.write_text(json.dumps(kept))
    assert read_index(path, "key") is None


def test_the_key_follows_files_versions_and_selection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "their_prior.py"
    module.write_text("x = 1")
    monkeypatch.syspath_prepend(tmp_path)
    keys = [installed_key({})]
    monkeypatch.setattr(index, "entry_points", lambda group: [EntryPoint("theirs", "their_prior", "genbench")])
    keys.append(installed_key({}))
    assert installed_key({}) == keys[-1]
    module.write_text("x = 22")
    keys += [installed_key({}), installed_key({"GENBENCH_LOAD_PLUGINS": "theirs"}), installed_key({}, ["theirs"])]
    assert len(set(keys)) == len(keys)


def test_the_list_and_completion_load_no_torch(tmp_path: Path, genbench: Callable[..., Result]) -> None:
    assert genbench("list", "plugins").exit_code == 0  # makes the cache
    code = "import sys; from genbench.cli.main import main\n"
    code += "try: main(prog_name='genbench')\nfinally: print('torch' in sys.modules)"
    listed = subprocess.run([sys.executable, "-c", code, "list"], capture_output=True, text=True, check=True)
    assert "swae" in listed.stdout
    assert listed.stdout.splitlines()[-1] == "False"
    for words, wanted in (
        ("genbench run --set swae.w", "swae.weight="),
        ("genbench run sw", "swae"),
        ("genbench run --prior normal,ri", "normal,ring"),
        ("genbench run --network wae-m", "wae-mnist"),
        ("genbench run --dataset fash", "fashion-mnist"),
        ("genbench run --metrics fid,latent-", "fid,latent-w2"),
        ("genbench run --set wae-mmd.kernel=", "wae-mmd.kernel=imq"),
        ("genbench comp", "completion"),
        ("genbench run --disable-plugin wae-m", "wae-mmd"),
        ("genbench list --disable-plugin vae,swa", "vae,swae"),
        ("genbench list pri", "priors"),
    ):
        count = str(len(words.split()) - 1)
        asked = {"_GENBENCH_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": count}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **asked})
        assert f"plain,{wanted}" in done.stdout.splitlines(), (words, done.stdout, done.stderr)
        assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_says_how_to_install_it(shell: str, genbench: Callable[..., Result]) -> None:
    result = genbench("completion", shell)
    assert result.exit_code == 0
    assert result.output.startswith("# To install: genbench completion")
    assert f"_GENBENCH_COMPLETE={shell}_complete" in result.output


def completed(*words: str) -> list[str]:
    """What is offered for the last word of a line, in this process."""
    *before, incomplete = words
    found = ShellComplete(main, {}, "genbench", "_GENBENCH_COMPLETE").get_completions(before, incomplete)
    return [item.value for item in found]


def test_what_a_plugin_file_on_the_line_offers_is_completed(genbench: Callable[..., Result]) -> None:
    assert genbench("new", "prior", "moon").exit_code == 0
    assert completed("run", "swae", "--prior", "moo") == []
    assert completed("run", "swae", "--plugin", "moon.py", "--prior", "moo") == ["moon"]
    assert completed("run", "swae", "--plugin", "moon.py", "--set", "moon.s") == ["moon.scale="]
    assert completed("run", "swae", "--plugin", "absent.py", "--prior", "rin") == ["ring"]
    Path("moon.py").write_text("raise SystemExit('broken')")
    assert completed("run", "swae", "--plugin", "moon.py", "--prior", "rin") == ["ring"]


def test_plugins_that_are_left_out_offer_nothing(genbench: Callable[..., Result]) -> None:
    assert "vae" not in completed("run", "--disable-plugin", "vae", "va")
    assert completed("run", "va") == ["vae"]


def test_the_kinds_of_the_list_are_completed() -> None:
    kinds = {f"{kind}s" for kind in KINDS}
    assert set(completed("list", "")) == {*kinds, "plugins"}


def test_sorting_is_completed_by_what_was_measured(genbench: Callable[..., Result]) -> None:
    assert completed("report", "--sort", "") == []
    tiny = ("--network", "mlp", "--images", "32", "--batch", "16", "--latent-dim", "2", "--metrics", "reconstruction")
    assert genbench("run", "ae", "--plugin", str(DOTS), "--dataset", "dots", *tiny, "--out", "mine").exit_code == 0
    assert completed("report", "mine", "--sort", "rec") == ["reconstruction.image", "reconstruction.pixel"]
    assert completed("report", "mine", "--sort", "fid") == []
