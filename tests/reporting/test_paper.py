"""A paper says what the records say, keeps the author's file, escapes what others wrote, and compiles."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from genbench.errors import StoreError
from genbench.reporting.paper import BIBLIOGRAPHY, GENERATED, MAIN, write_paper
from genbench.storage.results import protocols, rows
from genbench.storage.run_dir import RunRecord
from support.records import component, listing, record


def study() -> list[RunRecord]:
    """Two models with three seeds; the second has no plug-in here."""
    return [
        record(model, seed, 10.0 * (k + 1) + 0.1 * seed ** (k + 1))
        for k, model in enumerate(("swae", "th_$eir"))
        for seed in range(3)
    ]


def written(folder: Path, records: list[RunRecord]) -> dict[str, str]:
    """The text of each file of the paper."""
    write_paper(folder, records, rows(records), protocols(records), listing())
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The text of each file of the paper of the study."""
    return written(tmp_path_factory.mktemp("paper"), study())


def test_a_paper_is_complete(tmp_path: Path) -> None:
    records = study()
    files, problems = write_paper(tmp_path, records, rows(records), protocols(records), listing())
    assert {MAIN, *GENERATED, BIBLIOGRAPHY, "rows.csv"} < {path.name for path in files}
    assert all(path.is_file() for path in files)
    assert (tmp_path / "figures/ranks.pdf").read_bytes().startswith(b"%PDF")
    assert any("th_$eir" in problem for problem in problems)


def test_the_methods_are_those_of_the_records(paper: dict[str, str]) -> None:
    text = paper["methods.tex"]
    for words in (
        r"swae (Sliced \& \$quick\$~\cite{kolouri2019swae}), with weight = 10 (default 1)",
        r"th\_\$eir",
        "1,000 training images in batches of 100",
        "dimension 8",
        "4,321 trainable parameters",
        "3 seeds (0, 1, 2)",
        r"distance~\cite{metric-fid}",
        "t-intervals",
        "Holm's correction",
        r"\cite{torch}",
    ):
        assert words in text


def test_options_have_value_default_meaning_and_source(paper: dict[str, str]) -> None:
    text = paper["options.tex"]
    (line,) = (line for line in text.splitlines() if "weight" in line and "lambda" in line)
    cells = [cell.replace(r"\raggedright", "").strip() for cell in line.split(" & ")]
    assert cells[:4] == [r"\texttt{weight}", r"\texttt{10}", r"\texttt{1}", "lambda, above 0"]
    assert r"some/code, for MNIST \cite{some-code}" in cells[4]


def test_the_checklist_is_filled_from_the_records(paper: dict[str, str]) -> None:
    text = paper["checklist.tex"]
    plain = text.replace(r"\allowbreak{}", "").replace("-{}", "-")
    for words in (
        "genbench 0.2.0 commit c0ffee123456",
        "torch 2.6",
        "cpu (x)",
        "d" * 64,
        "0, 1, 2",
        "genbench run swae --dataset glyphs",
        "6 trainings, 75.0 seconds",
        "6 runs, of which 6 are trained, of 2 models",
        "5.0e9 FLOPs a run",
    ):
        assert words in plain


def test_the_result_is_said_in_a_sentence(paper: dict[str, str]) -> None:
    text = paper["results.tex"]
    assert r"By FID (x\_1) on glyphs, swae is the best; th\_\$eir can be told from it." in text
    assert r"\label{tab:glyphs}" in text


def test_the_authors_file_is_kept_and_the_others_are_written_anew(tmp_path: Path) -> None:
    first = written(tmp_path, study())
    (tmp_path / MAIN).write_text(first[MAIN] + "% mine\n")
    (tmp_path / "methods.tex").write_text("old")
    again = written(tmp_path, study())
    assert again[MAIN].endswith("% mine\n")
    assert again["methods.tex"] == first["methods.tex"]


def test_another_document_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / MAIN).write_text("a thesis")
    with pytest.raises(StoreError, match="another document"):
        written(tmp_path, study())
    assert [path.name for path in tmp_path.iterdir()] == [MAIN]


@pytest.mark.parametrize("text", [r"\input{/etc/passwd}", "$x_1$ & 50% #~^", "<% for %>", "<< 7 * 7 >>", "漢字"])
def test_what_others_wrote_is_text(tmp_path: Path, text: str) -> None:
    run = replace(record().run, model=component(text, **{text: text}))
    records = [record(run=replace(run, seed=seed), failure=text) for seed in range(2)]
    for name, content in written(tmp_path, records).items():
        if name.endswith(".tex"):
            body = "\n".join(line for line in content.splitlines() if not line.startswith("%"))
            assert not re.search(r"\\input\{/|x_1|49|[^\\]&\s*50|漢", body), name


@pytest.mark.skipif(shutil.which("bibtex") is None, reason="LaTeX is not installed")
def test_a_paper_compiles_without_undefined_references_and_overfull_boxes(tmp_path: Path) -> None:
    records = [*study(), *(record("x" * 60, s, 30.0 + s, failure="y" * 300) for s in range(3))]
    written(tmp_path, records)
    for command in (["pdflatex"], ["bibtex"], ["pdflatex"], ["pdflatex"]):
        flags = ["-halt-on-error", "-interaction=nonstopmode"] if command == ["pdflatex"] else []
        done = subprocess.run(
            [*command, *flags, "main"], cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120
        )
        assert done.returncode == 0, done.stdout[-3000:]
    log = (tmp_path / "main.log").read_text(errors="replace")
    assert "undefined" not in log
    assert [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt", log) if float(points) > 5] == []
