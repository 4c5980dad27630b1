"""What an export promises: fixed columns, round trips, files whole or absent, and names that stay text everywhere."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from genbench.analysis.formatting import format_value
from genbench.analysis.headline import setup_lines, verdict
from genbench.analysis.table import assemble
from genbench.reporting import export as exporting
from genbench.reporting.csv_json import TIDY, table_csv, tidy_csv, tidy_json
from genbench.reporting.export import RunFacts, export, table_latex, table_markdown
from genbench.reporting.latex import escape_latex
from genbench.reporting.markdown import escape_markdown
from genbench.storage.results import COLUMNS, Row

FIXED = (
    "run,dataset,model,prior,network,latent_dim,seed,images,metric,value,floor,unit,higher_is_better,n,protocol,seconds"
)
LATER = (
    "role,stage,split,metric_role,floor_sd,se,low,high,p_value,minimum_detectable_effect,data,flops"
    ",batch,precision,options,defaults,caution,fit_seconds,chance,chance_sd,trials,tuned_by,tuned,validation"
    ",tuned_metric,space,default_validation,search"
)
EVIL = [
    "<script>alert(1)</script>",
    r"\input{x}",
    "a|b",
    "50%_#&$",
    '"><img src=x onerror=y>',
    "{{ 7*7 }}",
    "[x](y)*",
    "é",
]


def row(name: str = "swae", seed: int = 0, value: float | None = 1.0, **facts: object) -> Row:
    known: dict[str, object] = {
        "run": f"{name}-s{seed}",
        "group": name,
        "label": name,
        "dataset": "glyphs",
        "model": name,
        "prior": "normal",
        "network": "conv",
        "latent_dim": 8,
        "seed": seed,
        "images": 1000,
        "metric": "fid",
        "value": value,
        "higher_is_better": False,
        "n": 500,
        "protocol": "aaaa1111",
        "head": "FID (grey28)",
    }
    return Row(**{**known, **facts})  # type: ignore[arg-type]


def study(*names: str) -> list[Row]:
    done = [
        row(name, seed, 10.0 * (i + 1) + (0.1 + 0.01 * i) * seed) for i, name in enumerate(names) for seed in range(3)
    ]
    return [*done, row("bad", 0, None, metric="", higher_is_better=None, protocol="", status="failed", error=names[0])]


def facts_of(rows: list[Row], root: Path) -> dict[str, RunFacts]:
    """Runs with pictures in folders whose names do not matter."""
    facts = {}
    for number, name in enumerate(dict.fromkeys(r.run for r in rows)):
        folder = root / str(number)
        folder.mkdir(parents=True)
        for picture in ("samples", "reconstructions"):
            Image.new("L", (8, 8), number).save(folder / f"{picture}.png")
        record = {
            "schema": 1,
            "run": {"seed": number, "note": name},
            "provenance": {"commit": "c0ffee", "device": "cpu"},
        }
        facts[name] = RunFacts(name, folder, record)
    return facts


class Page(HTMLParser):
    """Every tag and all text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


# ---------------------------------------------------------------- tidy rows


def test_columns_stand_in_their_fixed_order() -> None:
    assert tidy_csv([row()]).splitlines()[0] == f"{FIXED},status,error,{LATER},group,label,head"
    assert set(TIDY) == set(COLUMNS)


finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(max_size=20)


@given(st.lists(st.builds(row, texts, st.integers(0, 99), finite, error=texts, floor=st.none() | finite), max_size=5))
def test_json_brings_back_the_rows(rows: list[Row]) -> None:
    assert [Row(**values) for values in json.loads(tidy_json(rows))] == rows


@given(st.lists(st.builds(row, st.sampled_from(EVIL), st.integers(0, 9), finite), min_size=1, max_size=5))
def test_csv_brings_back_the_values(rows: list[Row]) -> None:
    records = list(csv.DictReader(io.StringIO(tidy_csv(rows))))
    assert [(line["run"], float(line["value"]), line["floor"]) for line in records] == [
        (r.run, r.value, "") for r in rows
    ]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), None])
def test_values_that_are_not_numbers_are_empty_in_csv_and_null_in_json(value: float | None) -> None:
    (line,) = csv.DictReader(io.StringIO(tidy_csv([row(value=value)])))
    assert line["value"] == ""
    assert json.loads(tidy_json([row(value=value)]))[0]["value"] is None


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_executes_nothing(text: str) -> None:
    for written in (tidy_csv([row(error=text)]), table_csv(assemble([row(text)]))):
        cells = [cell for line in csv.reader(io.StringIO(written, newline="")) for cell in line]
        assert "'" + text.replace("\r", "\n") in cells
        assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) for cell in cells)


def test_negative_numbers_stay_numbers() -> None:
    (line,) = csv.DictReader(io.StringIO(tidy_csv([row(value=-1.5, error="-3")])))
    assert (line["value"], line["error"]) == ("-1.5", "-3")


# ---------------------------------------------------------------- Markdown and LaTeX


@given(st.text(max_size=40))
def test_latex_specials_never_survive(text: str) -> None:
    escaped = escape_latex(text)
    for command in (
        r"\\textbackslash\{\}",
        r"\\text[a-z]+\{2?\}",
        r"\\allowbreak\{\}",
        r"\\[{}$&#%_]",
        r"\{\\char34\}",
        r"\{[\[\]*]\}",
        r"\$\\[a-z]+\$",
    ):
        escaped = re.sub(command, "", escaped)
    assert not re.search(r'[\\{}$&#%_^~<>|"\[\]*\n]', escaped)


@given(st.text(max_size=40))
def test_markdown_specials_never_survive(text: str) -> None:
    escaped = re.sub(r"\\[\\`*_$\[\]|~#+.)-]|&(amp|lt|gt);", "", escape_markdown(text))
    assert not re.search(r"[\\`*_$\[\]|~<>&\n]|^[#+-]", escaped) or escape_markdown(text)[:1] in "\\&"
    assert not re.search(r"[\\`*_$\[\]|~<>&\n]", escaped)


@pytest.mark.parametrize("name", EVIL)
def test_names_are_text_in_tables(name: str) -> None:
    tables = study(name, "other")
    lines = table_markdown(tables).splitlines()
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]
    assert len(set(cells)) == 1
    code = "\n".join(line for line in table_latex(tables).splitlines() if not line.startswith("%"))
    assert r"\input{" not in code
    assert (
        len({line.count(" & ") for line in code.splitlines() if line.endswith(r"\\") and "multicolumn" not in line})
        == 1
    )
    assert code.count(r"\begin{tabular}") == code.count(r"\end{tabular}") == 1


def test_line_end_in_a_name_opens_no_latex_line() -> None:
    assert "\n\\input" not in table_latex([row("a\n\\input{x}", error="%\n\\input{x}")])


def test_set_of_bests_is_bold_and_the_worse_is_not() -> None:
    tables = [*study("a", "b")[:3], *(row("b", seed, 90 + 0.1 * seed**2) for seed in range(3))]
    assert table_latex(tables).count(r"\textbf{") == 1
    assert "**10.10 ± 0.25**" in table_markdown(tables)
    assert "**90" not in table_markdown(tables)


# ---------------------------------------------------------------- the folder


def test_an_export_is_complete(tmp_path: Path) -> None:
    rows = study("swae", "vae")
    written = export(tmp_path / "out", rows, runs=facts_of(rows, tmp_path / "runs"), command="genbench run swae vae")
    names = {str(path.relative_to(tmp_path / "out")) for path in written}
    assert {"rows.csv", "rows.json", "table.csv", "table.md", "table.tex", "report.html"} < names
    assert {"pictures/swae-s0-samples.png", "pictures/vae-s0-reconstructions.png"} < names
    assert {p for p in (tmp_path / "out").rglob("*") if p.is_file()} == set(written)
    assert (tmp_path / "out/rows.csv").read_text() == tidy_csv(rows)


def test_a_repeated_export_writes_the_same_bytes(tmp_path: Path) -> None:
    rows = study("swae", "vae")
    runs = facts_of(rows, tmp_path / "runs")
    first = {path: path.read_bytes() for path in export(tmp_path / "out", rows, runs=runs)}
    assert {path: path.read_bytes() for path in export(tmp_path / "out", rows, runs=runs)} == first


def test_an_interrupted_export_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(tmp_path, study("swae", "vae"))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> str:
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no space"):
        export(tmp_path, study("other", "vae"))
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_page_shows_everything_and_requests_nothing(tmp_path: Path) -> None:
    rows = study("swae", "vae")
    protocols = {"aaaa1111": {"method": "Frechet distance", "generated": 500}}
    export(tmp_path / "out", rows, runs=facts_of(rows, tmp_path / "runs"), protocols=protocols, command="genbench run")
    text = (tmp_path / "out/report.html").read_text()
    page = Page(text)
    for expected in ("swae", "FID (grey28)", "genbench run", "c0ffee", "Frechet distance", "failed", "family-wise"):
        assert expected in page.text
    images = [tag["src"] for name, tag in page.tags if name == "img" and "src" in tag]
    assert len(images) == 6
    assert all(source and source.startswith("data:image/webp;base64,") for source in images)
    addresses = [
        tag.get(key) for _, tag in page.tags for key in ("src", "href", "action", "poster", "data") if tag.get(key)
    ]
    assert addresses == images
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub('data:image/webp;base64,[^"]*', "", text))


@pytest.mark.parametrize("name", EVIL)
def test_names_are_text_in_the_page(tmp_path: Path, name: str) -> None:
    plain, rows = study("plain", "other"), study(name, "other")
    export(tmp_path / "plain", plain, runs=facts_of(plain, tmp_path / "a"), command="x")
    export(
        tmp_path / "evil", rows, runs=facts_of(rows, tmp_path / "b"), command=name, protocols={"aaaa1111": {name: name}}
    )
    page = Page((tmp_path / "evil/report.html").read_text())
    known = [tag for tag, _ in Page((tmp_path / "plain/report.html").read_text()).tags]
    assert {tag for tag, _ in page.tags} <= {*known, "dl", "dt", "dd"}
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    assert name in page.text


def test_the_page_begins_with_what_was_compared_and_the_verdict(tmp_path: Path) -> None:
    rows = study("swae", "vae")[:-1]
    export(tmp_path / "out", rows)
    text = unescape((tmp_path / "out/report.html").read_text())
    assert "<h1>swae and vae on glyphs</h1>" in text
    sentence = verdict(assemble(rows)[0]).sentences[0]
    setup = setup_lines(assemble(rows)[0])[0]
    assert text.index(sentence) < text.index(setup) < text.index('class="results"')
    export(tmp_path / "out", rows, title="Ours & theirs")
    assert "<h1>Ours &amp; theirs</h1>" in (tmp_path / "out/report.html").read_text()


def test_the_page_has_the_values_of_each_seed_and_all_pairs(tmp_path: Path) -> None:
    rows = [row(model, seed, 10.0 + k + 0.1 * seed**2) for k, model in enumerate("abc") for seed in range(3)]
    export(tmp_path, rows)
    text = (tmp_path / "report.html").read_text()
    section = text[text.index("Values of each seed") : text.index("Runs and provenance")]
    for value in (10.0, 10.1, 10.4, 12.4):
        assert f"<td>{format_value(value).plain}</td>" in section
    pairs = re.findall(r"<tr><td>([abc])</td><td>([abc])</td><td>([^<]+)</td><td>3</td>", section)
    assert [pair[:2] for pair in pairs] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert [pair[2].split()[0] for pair in pairs] == ["-1", "-2", "-1"]


def test_columns_are_grouped_by_role_and_those_behind_the_headline_fold(tmp_path: Path) -> None:
    rows = [
        row("swae", metric=metric, metric_role=role)
        for metric, role in (("x.a", "one"), ("y", "two"), ("x.b", "one"), ("z", ""))
    ]
    export(tmp_path, rows)
    text = (tmp_path / "report.html").read_text()
    groups = re.findall(r'class="group" colspan="(\d+)".*?>(\w+)(?:</button>)?</span>', text)
    assert groups == [("2", "one"), ("1", "two"), ("1", "other")]
    assert len(re.findall(r'<th scope="col" data-extra="0">', text)) == 1


def test_an_anonymous_page_names_no_command_commit_or_path(tmp_path: Path) -> None:
    rows = [
        *study("swae", "vae")[:-1],
        row("bad", 0, None, status="failed", error="DataError: /home/jane/x.png is cut"),
    ]
    record = {
        "run": {"dataset": {"name": "folder", "options": {"path": "/home/jane/faces"}}},
        "provenance": {"command": "genbench run swae --out /home/jane/runs", "commit": "c0ffee", "device": "cpu"},
    }
    runs = {name: replace(facts, record=record) for name, facts in facts_of(rows, tmp_path / "runs").items()}
    export(tmp_path / "jane", rows, runs=runs, command="genbench report /home/jane/runs", anonymous=True)
    text = (tmp_path / "jane/report.html").read_text()
    assert not any(secret in text for secret in ("jane", "c0ffee", "genbench run"))
    assert "DataError: \N{HORIZONTAL ELLIPSIS} is cut" in text
    assert "cpu" in text
    export(tmp_path / "jane", rows, runs=runs)
    assert "c0ffee" in (tmp_path / "jane/report.html").read_text()


def test_hostile_run_names_stay_in_the_folder(tmp_path: Path) -> None:
    rows = [row("../../up"), row("/etc/x", value=2.0), row("..", value=3.0), row(".hidden", value=4.0)]
    written = export(tmp_path / "out", rows, runs=facts_of(rows, tmp_path / "runs"))
    pictures = [path for path in written if path.suffix == ".png"]
    assert len(set(pictures)) == 8
    assert all(path.resolve().parent == (tmp_path / "out/pictures").resolve() for path in pictures)


def test_pictures_beyond_the_limit_are_named_and_not_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "PICTURES", 0)
    rows = study("swae", "vae")
    export(tmp_path / "out", rows, runs=facts_of(rows, tmp_path / "runs"))
    page = Page((tmp_path / "out/report.html").read_text())
    assert "pictures/swae-s0-samples.png" in page.text
    assert not any("src" in tag for name, tag in page.tags if name == "img")


def test_a_file_that_is_no_png_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/samples.png").write_text("<script>")
    written = export(tmp_path / "out", [row()], runs={"swae-s0": RunFacts("swae-s0", tmp_path / "run")})
    assert not any(path.suffix == ".png" for path in written)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path: Path) -> None:
    export(tmp_path, [r for name in EVIL for r in study(name, "other")])
    packages = r"\usepackage{booktabs}"
    (tmp_path / "main.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}\input{{table}}\end{{document}}"
    )
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]


def test_controls_stand_apart_in_every_format(tmp_path: Path) -> None:
    rows = [*study("swae", "vae"), *(row("replayed", seed, 0.1, role="control") for seed in range(3))]
    (line,) = (x for x in csv.DictReader(io.StringIO(table_csv(assemble(rows)))) if x["model"] == "replayed")
    assert (line["role"], line["fid aaaa1111 mark"]) == ("control", "")
    assert "| *controls: scale only, not ranked* |" in table_markdown(rows)
    assert r"\emph{controls: scale only, not ranked}" in table_latex(rows)
    export(tmp_path, rows)
    text = (tmp_path / "report.html").read_text()
    assert text.index("controls: scale only, not ranked") > text.index('data-key="vae"')
    export(tmp_path / "alone", study("swae", "vae"))
    drawn = [re.findall(r"<line .*?/>", page) for page in (text, (tmp_path / "alone/report.html").read_text())]
    assert drawn[0] == drawn[1]  # a control does not change the scale of the models' intervals
    for written in (table_markdown(rows), table_latex(rows)):
        assert "**0.1" not in written
        assert "textbf{0.1" not in written
        ranked = next(written.rindex(row) for row in ("| vae |", "vae &") if row in written)
        assert written.index("controls: scale only") > ranked


def test_half_written_files_of_a_killed_export_are_removed(tmp_path: Path) -> None:
    left = [tmp_path / ".rows.csv.1a2b.part", tmp_path / "figures" / ".samples.png.1a2b.part"]
    runs = tmp_path / "run" / ".checkpoint.safetensors.1a2b.part"  # another command's, at work
    for path in (*left, runs):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    export(tmp_path, [])
    assert not any(path.exists() for path in left)
    assert runs.exists()
