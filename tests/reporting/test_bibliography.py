"""BibTeX: each part that runs used is cited by its plug-in's entry, and nothing is made up where there is none."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from genbench.errors import PluginError
from genbench.registry.listing import Listing
from genbench.registry.loader import load
from genbench.reporting.bibliography import Bibliography, bibliography, entry_key, texts_in, used_parts
from genbench.storage.run_dir import RunRecord
from support.records import listing, record


def cited(records: list[RunRecord], known: Listing, *, options: bool = False) -> Bibliography:
    return bibliography(records, known, used_parts(records, known), options=options)


def test_every_part_is_used_once() -> None:
    known = listing()
    parts = used_parts([record(seed=0), record(seed=1)], known)
    assert [part.label for part in parts] == [
        *("model swae", "prior normal", "network mlp", "dataset glyphs", "metric fid", "extractor grey")
    ]


def test_entries_are_those_of_the_references_and_of_the_recorded_libraries() -> None:
    result = cited([record()], listing())
    assert list(result.entries) == ["genbench", "kolouri2019swae", "metric-fid", "torch"]
    assert result.uses["kolouri2019swae"] == ["model swae"]
    assert "scipy" not in result.text()  # absent when it was run
    assert "some-code" not in result.entries
    assert "some-code" in cited([record()], listing(), options=True).entries


def test_a_reference_without_an_entry_is_marked_as_such() -> None:
    entry = cited([record()], listing()).entries["metric-fid"]
    assert "eprint = {1706.08500}" in entry
    assert "No BibTeX was provided" in entry
    assert "author" not in entry
    assert "year" not in entry


def test_what_its_author_calls_ours_is_not_cited() -> None:
    assert not [key for key in cited([record()], listing()).entries if key.startswith(("prior", "network", "dataset"))]


@pytest.mark.parametrize("reference", [r"\input{x} } @misc{evil, % $", "doi:10.1/x", "50%_#&~^"])
def test_a_reference_is_text_within_its_entry(reference: str) -> None:
    entry = cited([record()], listing({}, reference)).entries["model-swae"]
    assert entry.count("{") - entry.count(r"\{") == entry.count("}") - entry.count(r"\}")
    assert r"\input" not in entry
    assert len(re.findall(r"^@", entry, re.MULTILINE)) == 1


def test_a_part_whose_plugin_is_absent_is_named() -> None:
    result = cited([record("theirs")], listing())
    assert result.missing == ["model theirs: no plug-in here registers it; name its file by --plugin FILE"]
    assert "% model theirs" in result.text()
    assert "@misc{evil" not in cited([record("@misc{evil, \\input{x}}")], listing()).text()


def test_runs_of_several_versions_are_all_named() -> None:
    older = {**record().provenance, "genbench": "0.1.0", "commit": ""}
    entry = cited([record(), record(provenance=older)], listing()).entries["genbench"]
    assert "Version 0.2.0, commit c0ffee123456; version 0.1.0" in entry


def test_texts_match_as_whole_words() -> None:
    assert texts_in("gmum/cwae-pytorch", ["gmum/cwae", "cwae-pytorch", "torch"]) == []
    assert texts_in("arXiv:1711.01558, of tolstikhin/wae: 10", ["tolstikhin/wae", "arXiv:1711.01558"]) == [
        "arXiv:1711.01558",
        "tolstikhin/wae",
    ]


# ---------------------------------------------------------------- the bundled entries, the hook and the command


def test_every_reference_of_a_bundled_component_has_an_entry() -> None:
    registry = load()
    references = {
        entry.spec.reference
        for kind, entries in registry.registrations.items()
        for entry in entries.values()
        if entry.spec.reference and not entry.spec.reference.startswith("ours")
    }
    assert len(references) > 15
    assert [reference for reference in references if not texts_in(reference, registry.bibtex)] == []
    keys = [entry_key(entry) for entry in registry.bibtex.values()]
    assert len(set(keys)) == len(keys)
    assert all(keys)
    for text, entry in registry.bibtex.items():
        assert entry.count("{") == entry.count("}"), text
        assert "author" in entry
        assert "title" in entry
        if text.startswith("arXiv:"):
            assert f"eprint  = {{{text[6:]}}}" in re.sub(r"eprint +=", "eprint  =", entry)


PLUGIN = """
from genbench.hookspecs import hookimpl

@hookimpl
def genbench_bibtex():
    return {entries}
"""


def test_a_plugin_provides_entries(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        PLUGIN.replace("{entries}", repr({"me 2026": "@misc{me2026, title = {x}}", "torch": "@misc{t, x}"}))
    )
    bibtex = load([file]).bibtex
    assert bibtex["me 2026"] == "@misc{me2026, title = {x}}"
    assert "Paszke" in bibtex["torch"]  # the first plug-in's entry stays


@pytest.mark.parametrize(
    "entries", ["{'a': 'no entry'}", "{'a': 3}", "{'': '@misc{a, x}'}", r"{'a': '@misc{\\input, }'}"]
)
def test_a_value_that_is_no_entry_breaks_its_plugin(tmp_path: Path, entries: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN.replace("{entries}", entries))
    with pytest.raises(PluginError, match="is not one entry"):
        load([file])


def test_without_runs_genbench_itself_is_cited(genbench: Callable[..., Result]) -> None:
    result = genbench("cite")
    assert result.exit_code == 0
    assert result.output.startswith("@misc{genbench,")
    assert "http" not in result.output
    assert genbench("cite", "nowhere").exit_code == 2
