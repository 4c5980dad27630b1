"""Tables for print: they fit a two-column article, say what was trained, hold no hashes, and compile."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from genbench.analysis.table import assemble
from genbench.reporting.export import table_latex
from genbench.reporting.latex import breakable, escape_latex, latex
from genbench.storage.results import Row
from support.studies import row

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
HEADS = {
    "fid": ("FID (inception)", 48.3),
    "reconstruction.pixel": ("MSE per pixel", 0.0512),
    "latent-w2.excess": ("latent W2² excess", 0.31),
    "kid": ("KID (inception)", 0.00231),
    "precision": ("precision (inception)", 0.52),
    "recall": ("recall (inception)", 0.61),
    "density": ("density (inception)", 0.71),
    "coverage": ("coverage (inception)", 0.41),
}


def study(*metrics: str, models: tuple[str, ...] = ("swae", "wae-gan", "wae-mmd", "vae"), seeds: int = 5) -> list[Row]:
    """A typical comparison; the first model is clearly the best by every metric."""
    return [
        row(
            model,
            seed,
            HEADS[metric][1] * (1 + k / 2 + ((3 * seed + k) % 5) / 100),
            metric,
            head=HEADS[metric][0],
            floor=HEADS[metric][1] / 10,
            p_value=0.04,
            protocol="deadbeef",
            n=10_000,
        )
        for metric in metrics
        for k, model in enumerate(models)
        for seed in range(seeds)
    ]


def printed(rows: list[Row], **options: object) -> str:
    """The table without comments."""
    text = table_latex(rows, **options)  # type: ignore[arg-type]
    return "\n".join(line for line in text.splitlines() if not line.startswith("%"))


def compiled(folder: Path, text: str) -> str:
    """The log of pdflatex on a two-column article that inputs the tables."""
    (folder / "table.tex").write_text(text)
    (folder / "main.tex").write_text(
        r"\documentclass[twocolumn]{article}\usepackage{booktabs}\begin{document}Text.\input{table}\end{document}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "main.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    return (folder / "main.log").read_text(errors="replace")


# ---------------------------------------------------------------- what stands in it


def test_a_table_has_an_environment_with_caption_and_label() -> None:
    text = printed(study("fid", "reconstruction.pixel", "latent-w2.excess"))
    assert r"\begin{table}" in text
    assert r"\label{tab:glyphs}" in text
    (caption,) = re.findall(r"\\caption\{(.*)\}", text)
    for words in (
        "4 models trained on glyphs",
        "1,000 training images",
        "network conv",
        "latent size 8",
        "prior normal",
    ):
        assert words in caption
    for words in (
        "5 training seeds",
        r"$\pm$ half the width",
        "Bold: not distinguishable",
        "Perfect: ",
        "10,000 images",
    ):
        assert words in caption


def test_hashes_p_values_and_counts_stand_in_no_head() -> None:
    text = printed(study("fid", "kid"))
    assert "deadbeef" not in text
    assert "p = " not in text
    tabular = text[text.index(r"\begin{tabular}") :]
    assert "10,000" not in tabular
    heads = tabular.split(r"\midrule")[0].count(r"\\")
    assert heads == 2


def test_the_perfect_model_is_a_row() -> None:
    (line,) = (line for line in printed(study("fid")).splitlines() if "perfect" in line and "&" in line)
    assert line.startswith(r"\emph{perfect} & 4.83")
    assert "perfect" not in printed([r for r in study("fid") if False] or [row("a"), row("b", value=2.0)])


def test_bests_are_bold() -> None:
    bold = re.findall(r"(\S+) & \\textbf", printed(study("fid")))
    assert bold == ["swae"]


def test_small_numbers_share_the_power_of_ten_of_their_column() -> None:
    text = printed(study("kid"))
    assert r"(in $10^{-3}$)" in text
    assert r"\times" not in text
    assert "2.3" in text


def test_few_metrics_fit_a_column_and_many_take_the_page() -> None:
    assert r"\begin{table}" in printed(study(*list(HEADS)[:3]))
    assert r"\begin{table*}" in printed(study(*HEADS))
    assert printed(study(*HEADS), columns=["fid"]).count(r"\multicolumn{2}{c}{") == 2


def test_other_columns_are_named_in_a_comment() -> None:
    rows = [*study("fid"), *(row(m, metric="fid.other", value=k, protocol="p") for k, m in enumerate(("swae", "vae")))]
    (line,) = (line for line in table_latex(rows).splitlines() if "--columns" in line)
    assert line.startswith("% ")
    assert line.endswith("fid.other")
    assert "--columns" not in table_latex(rows, columns=["fid"])


def test_two_protocols_of_a_metric_have_letters() -> None:
    rows = [*study("fid"), *(row(m, 0, v, head="FID (inception)", protocol="q") for m, v in (("swae", 1), ("vae", 2)))]
    text = printed(rows)
    assert "(inception) (a)" in text
    assert "(inception) (b)" in text


def test_missing_and_failed_cells_are_dashes_and_states() -> None:
    rows = [*study("fid"), row("late", metric="kid", value=1.0), row("bad", metric="", value=None, status="failed")]
    lines = {line.split(" & ")[0]: line for line in printed(rows).splitlines() if " & " in line}
    assert "--" in lines["late"]
    assert "failed" in lines["bad"]


def test_characters_without_a_glyph_are_named() -> None:
    assert escape_latex("漢 é ± 2²") == r"U+6F22 é $\pm$ 2\textsuperscript{2}"
    assert escape_latex("ą") == "U+0105"


def test_long_words_may_break() -> None:
    assert breakable("--out /a/b") == r"\texttt{-{}-{}out /a/\allowbreak{}b}"
    assert breakable("x" * 40).count(r"\allowbreak{}") == 3
    assert breakable(r"\input{x}") == r"\texttt{\textbackslash{}input\{x\}}"


# ---------------------------------------------------------------- compiled


@needs_latex
def test_tables_of_all_kinds_compile_without_overfull_boxes(tmp_path: Path) -> None:
    long = tuple(f"{name} (projections={n}, weight=100, rate=0.0003)" for name in ("swae", "wae") for n in (50, 500))
    failed = row("bad", metric="", value=None, status="failed", error="x")
    controls = [row("pca", seed, 50.0, head=HEADS["fid"][0], protocol="deadbeef", role="control") for seed in range(3)]
    studies = [
        study("fid", "reconstruction.pixel", "latent-w2.excess"),
        [*study("fid", "reconstruction.pixel", "kid"), failed, *controls],
        study(*HEADS),
        study("fid", "kid", models=long),
        study("fid", "recall", seeds=1),
        study("fid", models=("größe_1", "漢字 & 50% #x", r"\input{x}", "[y]*")),
    ]
    log = compiled(tmp_path, "\n".join(latex(assemble(rows)) for rows in studies))
    assert re.findall(r"Overfull \\hbox.*", log) == []
