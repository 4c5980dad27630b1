"""Figures: what they show is what the rows say, their files are the same at every call, and names stay text."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from conftest import lay_out
from genbench.analysis.table import assemble
from genbench.api import Finding, Noise
from genbench.data.images import save_grid
from genbench.distances import random_projections, sliced_wasserstein_cost
from genbench.errors import UsageError
from genbench.plotting.curves import FROM_ROWS, case_numbers, curves, findings, latent_size, row_figures
from genbench.plotting.images import ImageRow, joined, leading, plane, stored, strips
from genbench.plotting.latent import has_random_codes, worst_projection
from genbench.plotting.ranks import rank_intervals, ranks
from genbench.plotting.report import sample_strips
from genbench.plotting.style import PALETTE, encoded, group_styles
from genbench.reporting import export as exporting
from genbench.stats.equivalence import estimate_findings
from genbench.stats.intervals import by_seed_table, paired_difference, paired_t_intervals
from genbench.storage.results import Row
from genbench.storage.results import rows as rows_of
from genbench.storage.run_dir import find_runs, read_runs

DOTS = ("--plugin", str(Path(__file__).parents[1] / "fixtures" / "dots.py"))
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def row(model: str, seed: int, value: float, **facts: object) -> Row:
    usual: dict[str, object] = {
        "run": f"{model}-{seed}", "group": model, "label": model, "dataset": "dots", "model": model,
        "prior": "normal", "network": "mlp", "latent_dim": 2, "images": 100, "metric": "fid", "higher_is_better": False,
        "protocol": "aaaa1111", "head": "FID (grey28)",
    }  # fmt: skip
    return Row(seed=seed, value=value, **{**usual, **facts})  # type: ignore[arg-type]


def study(*models: str) -> list[Row]:
    return [
        row(model, seed, 10.0 * (k + 1) + (0.1 + 0.001 * k) * seed**2)
        for k, model in enumerate(models)
        for seed in range(3)
    ]


# ---------------------------------------------------------------- styles


def test_images_of_the_plane_are_centred_on_their_codes_with_gaps_between() -> None:
    images = np.zeros((9, 4, 4, 1), np.uint8)
    (axes,) = plane("c", [("a", images, (-2.0, 2.0))]).figure.axes
    (shown,) = axes.images
    assert shown.get_extent() == [-3.0, 3.0, -3.0, 3.0]  # three images a side, two units apart
    assert (np.asarray(shown.get_array()) == 255).mean() > 0.5


def test_models_take_colours_in_their_order_and_groups_of_one_model_differ_otherwise() -> None:
    styles = group_styles([("a", "swae"), ("b", "swae"), ("c", "mine")])
    assert styles["a"].color == styles["b"].color == PALETTE[0]
    assert styles["c"].color == PALETTE[1]
    assert (styles["a"].marker, styles["a"].dash) != (styles["b"].marker, styles["b"].dash)


def test_more_models_than_colours_still_differ() -> None:
    count = len(PALETTE) + 3
    styles = group_styles([(f"group {k}", f"model {k}") for k in range(count)])
    assert len({(style.color, style.marker) for style in styles.values()}) == count


def luminance(code: str) -> float:
    channels = [int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot((0.2126, 0.7152, 0.0722), linear))


def test_every_colour_stands_out_on_white() -> None:
    assert all((1.05) / (luminance(code) + 0.05) > 1.9 for code in PALETTE)


# ---------------------------------------------------------------- ranks


def test_ranks_are_sure_where_differences_are_and_open_where_not() -> None:
    values = {"a": {0: 1.0, 1: 1.1, 2: 0.9}, "b": {0: 2.0, 1: 2.1, 2: 1.91}, "c": {0: 2.5, 1: 1.6, 2: 1.9}}
    assert rank_intervals(values, lower=True)["a"] == (1, 2)  # surely before b; c varies too much
    assert rank_intervals(values, lower=True)["b"] == (2, 3)
    assert rank_intervals(values, lower=False)["a"] == (2, 3)
    assert rank_intervals({"a": {0: 1.0}, "b": {0: 9.0}}, lower=True) == {"a": (1, 2), "b": (1, 2)}
    equal = {"a": {0: 1.0, 1: 1.1, 2: 0.9}, "b": {0: 2.0, 1: 2.1, 2: 1.9}}  # the same difference in every seed
    assert rank_intervals(equal, lower=True) == {"a": (1, 2), "b": (1, 2)}
    errors = {"a": dict.fromkeys(range(3), 0.1), "b": dict.fromkeys(range(3), 0.1)}
    assert rank_intervals(equal, lower=True, errors=errors) == {"a": (1, 1), "b": (2, 2)}


@given(st.permutations(range(4)), st.integers(0, 99))
def test_the_true_rank_is_covered_where_all_is_sure(order: list[int], seed: int) -> None:
    noise = np.random.default_rng(seed).normal(size=3) * 5  # shared by all: pairing removes it
    values = {str(k): {s: 10.0 * k + noise[s] + 0.01 * k * s for s in range(3)} for k in order}
    assert rank_intervals(values, lower=True) == {str(k): (k + 1, k + 1) for k in order}


def test_intervals_of_whole_columns_are_those_of_each_pair() -> None:
    draws = np.random.default_rng(0)
    values = [{s: float(draws.normal()) for s in range(9) if draws.random() < 0.6} for _ in range(30)]
    table = by_seed_table(values)
    low, high = paired_t_intervals(table[:, 0], table[:, 1:], 0.999)
    for k, column in enumerate(values[1:]):
        gap = paired_difference(values[0], column, 0.999)
        if gap is None or gap.low is None or gap.high is None:
            assert np.isnan(low[k])
        else:
            assert (low[k], high[k]) == pytest.approx((gap.low, gap.high))


@pytest.mark.parametrize("groups", [4, 20])
def test_many_groups_of_many_seeds_have_ranks(groups: int) -> None:
    noise = np.random.default_rng(0).normal(size=(groups, 12))
    values = {str(k): dict(enumerate((100.0 * k + noise[k]).tolist())) for k in range(groups)}
    assert rank_intervals(values, lower=False) == {str(k): (groups - k, groups - k) for k in range(groups)}


# ---------------------------------------------------------------- what is drawn


def test_rank_figure_puts_the_best_first_with_its_mean() -> None:
    left, right = ranks(study("vae", "swae", "mine")).figure.axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["vae", "swae", "mine"]
    assert left.get_title(loc="left") == "dots, protocol aaaa1111"
    assert [line.get_xdata()[0] for line in right.lines] == [1, 2, 3]


def test_numbers_of_different_protocols_are_not_drawn_in_one_panel() -> None:
    rows = [row("swae", s, 1.0 + s, group=f"d{d}", label=f"swae (d={d})", latent_dim=d) for d in (2, 8) for s in (0, 1)]
    (axes,) = latent_size(rows).figure.axes
    assert axes.get_legend_handles_labels()[1] == ["swae"]
    apart = [row("swae", 0, 1.0, group=f"d{d}", latent_dim=d, protocol=f"p{d}") for d in (2, 8)]
    with pytest.raises(UsageError, match="another protocol at each latent size"):
        latent_size(apart)
    with pytest.raises(UsageError, match="add --latent-dim"):
        latent_size(study("swae"))


def test_codes_are_random_where_two_draws_differ() -> None:
    x = torch.zeros(4, 1, 2, 2)
    fixed = SimpleNamespace(sample_codes=lambda x, noise: x.flatten(1))
    drawn = SimpleNamespace(sample_codes=lambda x, noise: x.flatten(1) + noise.normal(4, 4))
    assert [has_random_codes(model, x) for model in (fixed, drawn)] == [False, True]  # type: ignore[arg-type]


def test_the_intervals_of_shares_are_as_wide_as_their_known_errors_in_every_figure() -> None:
    """Three seeds that are equal: an interval of no width would claim certainty."""
    shares = {d: 0.25 if d == 2 else 0.0 for d in (2, 8)}
    rows = [
        row("swae", s, shares[d], group=f"d{d}", label=f"swae (d={d})", latent_dim=d, n=40)
        for d in shares
        for s in range(3)
    ]
    (axes,) = latent_size(rows).figure.axes
    (bars,) = (container for container in axes.containers if container.has_yerr)
    drawn = [float(segment[1][1] - segment[0][1]) / 2 for segment in bars.lines[2][0].get_segments()]
    tabled = {line.latent_dim: line.cells[0] for (table,) in [assemble(rows)] for line in table.rows}
    assert drawn == pytest.approx([cell.estimate.half_width for _, cell in sorted(tabled.items()) if cell])
    equal = [Finding(f"d = {d}", "share", value, 40, seed=s) for d, value in shares.items() for s in range(3)]
    assert [e.half_width for e in estimate_findings(equal).values()] == pytest.approx(drawn)
    others = [Finding(f"d = {d}", "W2", value, 40, seed=s) for d, value in {2: 0.31, 8: 0.0}.items() for s in (0, 1)]
    assert {e.half_width for e in estimate_findings(others).values()} == {None}


def test_figures_compare_models_alone_and_their_selected_snapshots_as_separate_groups() -> None:
    """Alike in ranks, latent size and ladder: controls are grey, copies of training images are nowhere."""
    both = study("swae", "copycat")
    chosen = [
        row("swae", s, 5.0 + s, group="swae best", label="swae selected by fid", stage="selected") for s in (0, 1)
    ]
    noise = [row("noise", 0, 12.0, role="control"), row("far", 0, 900.0, role="control")]
    copies = [
        row("copycat", s, 0.9, metric="nearest-train.copies", metric_role="memorization", protocol="c")
        for s in range(3)
    ]
    rows = [*both, *chosen, *noise, *copies]
    left, right = ranks(rows).figure.axes
    labels = [text.get_text() for text in left.get_yticklabels()]
    assert labels == ["swae selected by fid", "swae", "noise, control: 12", "far, control: 900"]
    assert len(right.lines) == 2
    assert max(line.get_xdata()[0] for line in left.lines) < 100  # a control far away does not dwarf the models
    wide = [dataclasses.replace(row, latent_dim=8, seed=row.seed + 10) for row in rows]
    (axes,) = latent_size([*rows, *wide], "fid").figure.axes
    assert axes.get_legend_handles_labels()[1] == ["swae", "swae selected by fid"]
    assert [text.get_text() for text in axes.texts] == ["noise"]
    rungs = [
        dataclasses.replace(row, metric="fid-ladder.prior", metric_role="ladder", protocol="l")
        for row in (*both, *chosen, *noise)
    ]
    (axes,) = FROM_ROWS["ladder"]([*rungs, *copies]).figure.axes
    assert sorted(axes.get_legend_handles_labels()[1]) == ["swae", "swae selected by fid"]


def test_a_figure_that_cannot_show_all_groups_says_so() -> None:
    drawing = ranks(study(*(f"m{k:02d}" for k in range(45))))
    assert "the 40 best of 45 groups are shown" in drawing.caption
    left, right = drawing.figure.axes
    assert len(left.get_yticklabels()) == 40
    assert right.get_xlim()[1] == 45.5  # ranks are among all
    assert "groups are shown" not in ranks(study("swae", "vae")).caption


def test_curves_show_the_means_of_snapshots() -> None:
    rows = [
        row("swae", seed, value + seed, stage="snapshot", split="validation", images=images, seconds=images / 100)
        for images, value in ((100, 5.0), (1000, 3.0))
        for seed in (0, 1)
    ]
    left, right = curves(rows).figure.axes
    assert np.allclose(left.lines[0].get_xydata(), [[100, 5.5], [1000, 3.5]])
    assert right.get_xlabel() == "training seconds"
    assert len(left.collections) == 1  # the band
    with pytest.raises(UsageError, match="--snapshots"):
        curves(study("swae"))


def test_a_report_draws_what_its_rows_allow() -> None:
    drawings, notes = row_figures(study("swae", "vae"))
    assert [drawing.name for drawing in drawings] == ["ranks"]
    assert [text.split(":")[0] for text in notes] == ["curves", "latent-size", "ladder"]
    assert all("\n" not in text for text in notes)
    rungs = [
        row("swae", 0, v, metric=f"fid-ladder.{r}", metric_role="ladder", head=f"FID {r}")
        for r, v in (("real", 1.0), ("prior", 9.0))
    ]
    assert "ladder" in {drawing.name for drawing in row_figures([*study("swae"), *rungs])[0]}
    assert set(FROM_ROWS) == {"ranks", "curves", "latent-size", "ladder"}


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_a_file_is_the_same_at_every_call_and_names_stay_text(form: str) -> None:
    rows = study("swae", "$x_{<script>&\x1b[2J\n\u4e2d")
    first = encoded(ranks(rows).figure, form)
    assert encoded(ranks(rows).figure, form) == first
    assert b"<script>&" not in first
    assert b"CreationDate" not in first


# ---------------------------------------------------------------- pictures


def test_stored_samples_come_back_as_they_were_drawn(tmp_path: Path) -> None:
    images = torch.randint(0, 256, (64, 3, 9, 11), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    save_grid(tmp_path / "samples.png", images)
    assert np.array_equal(stored(tmp_path / "samples.png", 12), images[:12].permute(0, 2, 3, 1).numpy())
    Image.new("RGB", (50, 33)).save(tmp_path / "other.png")
    assert len(stored(tmp_path / "other.png", 12)) == 0


def test_images_are_joined_row_by_row() -> None:
    sheet = joined(np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2), 2, padding=0)
    assert sheet.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_strips_of_unequal_images_share_a_figure() -> None:
    image_rows = [
        ImageRow("a", np.zeros((3, 8, 8, 1), np.uint8), "one"),
        ImageRow("b", np.zeros((2, 12, 9, 3), np.uint8), "two"),
    ]
    figure = strips("samples", "", image_rows).figure
    assert {text.get_text() for text in figure.texts} == {"a", "b", "one", "two"}
    assert all(0 <= edge <= 1 for axes in figure.axes for edge in axes.get_position().extents)


def test_principal_components_hold_the_largest_variance() -> None:
    draws = np.random.default_rng(0)
    z = draws.normal(size=(500, 5)) * np.array([0.1, 5.0, 0.1, 2.0, 0.1])
    plane, _ = leading(z, z)
    assert np.allclose(sorted(plane.var(0)), sorted(np.linalg.eigvalsh(np.cov(z.T, bias=True)))[-2:])


def test_worst_projection_finds_the_shift_and_beats_every_direction() -> None:
    draws = torch.Generator().manual_seed(0)
    x, shift = torch.randn(400, 6, generator=draws), torch.tensor([0.0, 0, 3, 0, -4, 0])
    theta, distance = worst_projection(x, x + shift, Noise(draws))
    assert distance == pytest.approx(5.0, abs=0.02)  # W2 of a translation along its direction
    assert abs(float(theta @ shift)) == pytest.approx(5.0, abs=0.02)
    y = torch.randn(400, 6, generator=draws)
    tried = random_projections(200, 6, Noise(torch.Generator().manual_seed(9)))
    best = max(float(sliced_wasserstein_cost(x, y, direction[None])) for direction in tried)
    assert worst_projection(x, y, Noise(draws))[1] ** 2 >= best


# ---------------------------------------------------------------- the command


def test_every_kind_is_drawn_or_says_what_it_needs(
    genbench: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny = ("--dataset", "dots", "--network", "mlp", "--images", "64", "--batch", "16", "--metrics", "reconstruction")
    genbench("run", "swae", "vae", *DOTS, *tiny, "--latent-dim", "2,3", "--snapshots", "2")
    for kind in ("samples", "reconstructions", "interpolations", "grid", "codes", "ranks", "curves", "latent-size"):
        plugins = () if kind in ("ranks", "curves", "latent-size") else DOTS
        result = genbench("plot", kind, "runs", "--out", f"{kind}.png", *plugins)
        assert result.exit_code == 0, result.output
        with Image.open(f"{kind}.png") as picture:
            assert min(picture.size) > 200
    assert "no metric of these runs has the role ladder" in genbench("plot", "ladder").output
    assert "ends in .pdf, .svg or .png" in genbench("plot", "ranks", "--out", "x.jpg").output
    flat = [str(path) for path in Path("runs").glob("*-3d-*")]
    assert "--latent-dim 2" in genbench("plot", "grid", *flat, *DOTS).output
    monkeypatch.setattr(Figure, "savefig", lay_out)
    genbench("report", "--export", "out")
    drawn = {path.name for path in Path("out/figures").iterdir()}
    assert {f"{kind}.{form}" for kind in ("samples", "ranks", "curves") for form in ("png", "pdf")} <= drawn
    text = Path("out/report.html").read_text()
    assert "they need the models: genbench report --figures all" in text
    assert "ladder: no metric of these runs has the role ladder" in text
    assert "report made by</dt><dd>genbench" in text
    assert re.search(r"data of dots</dt><dd>SHA-256 [0-9a-f]{12}", text)
    run = str(next(Path("runs").glob("*-swae-*-2d-*")))
    assert genbench("report", run, "--export", "all", "--figures", "all", *DOTS).exit_code == 0
    drawn = {path.name for path in Path("all/figures").iterdir()}
    assert {f"{kind}.png" for kind in ("reconstructions", "interpolations", "grid", "codes")} <= drawn
    result = genbench("report", run, "--export", "none", "--figures", "all")  # no such dataset without the plug-in
    assert result.exit_code == 0
    assert "needs the dataset" in Path("none/report.html").read_text()
    assert "--export" in genbench("report", "--figures", "all").output


def test_a_block_of_samples_has_one_prior_with_its_options_and_one_seed(genbench: Callable[..., Result]) -> None:
    tiny = ("--dataset", "dots", "--network", "mlp", "--images", "32", "--batch", "16", "--metrics", "reconstruction")
    genbench("run", "swae", "vae", *DOTS, *tiny, "--latent-dim", "2")
    genbench("run", "ae", *DOTS, *tiny, "--latent-dim", "2", "--set", "normal.sigma=2")
    with_seeds = genbench("run", "wae-mmd", *DOTS, *tiny, "--latent-dim", "2", "--seeds", "2")
    assert with_seeds.exit_code == 0, with_seeds.output
    shutil.rmtree(next(Path("runs").glob("*wae-mmd*-s0-*")))
    folders = read_runs(find_runs([Path("runs")]))[0]
    blocks = {strip.label.split()[0]: strip.block for strip in sample_strips(folders, rows_of(folders))}
    assert blocks["swae"] == blocks["vae"] == "dots, prior normal (sigma=1.0), d = 2, seed 0"
    assert "sigma=2.0" in blocks["ae"]
    assert blocks["wae-mmd"] == blocks["vae"].replace("seed 0", "seed 1")
    genbench("plot", "samples", "--out", "samples.svg", *DOTS)
    drawn = Path("samples.svg").read_text()
    assert "sigma=1.0" in drawn
    assert "sigma=2.0" in drawn


def test_a_page_of_many_pictures_stays_under_three_megabytes(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    rows = [row(f"model-{k:03d}", 0, float(k)) for k in range(60)]
    facts = {}
    noise = draws.integers(0, 256, (260, 260, 3), dtype=np.uint8)  # which no format presses: 200 kB each, 24 MB in all
    for k, entry in enumerate(rows):
        folder = tmp_path / str(k)
        folder.mkdir()
        for name in ("samples", "reconstructions"):
            Image.fromarray(noise).save(folder / f"{name}.png", compress_level=0)
        facts[entry.run] = exporting.RunFacts(entry.run, folder)
    figure = strips("samples", "noise", [ImageRow("row", draws.integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))] * 9)
    exporting.export(tmp_path / "out", rows, runs=facts, draw=lambda: ([figure], []))
    data = (tmp_path / "out/report.html").read_bytes()
    assert len(data) < 3_000_000
    shown = data.count(b'<img src="data:image/webp')
    assert 10 < shown < 60
    assert f"{121 - shown} pictures left out".encode() in data
    assert data.count(b': reconstructions"') == 0  # all samples come first


def test_a_large_figure_is_lossy_on_the_page_and_whole_beside_it(tmp_path: Path) -> None:
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(1, 64, 64, 3)
    photographs = (smooth + np.random.default_rng(0).normal(0, 12, (12, 64, 64, 3))).clip(0, 255).astype(np.uint8)
    large, small = (strips(name, name, [ImageRow("a", photographs)] * n) for name, n in (("large", 12), ("small", 1)))
    exporting.export(tmp_path, [row("a", 0, 1.0)], draw=lambda: ([large, small], []))
    uris = re.findall(r'src="data:image/([a-z+]+);base64,([^"]*)"', (tmp_path / "report.html").read_text())
    sizes = [len(base64.b64decode(data)) for _, data in uris]
    files = [(tmp_path / f"figures/{name}.png").stat().st_size for name in ("large", "small")]
    assert uris[0][0] == "webp"
    assert sizes[0] < files[0] / 5
    assert sizes[1] < files[1]


PROBE = """<script>
"use strict";
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));
addEventListener("load", () => {
  const table = document.querySelector(".results"), button = table.tHead.querySelectorAll("button")[1];
  const column = button.closest("th").cellIndex;
  const order = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.key);
  button.click(); const up = order(); button.click(); const down = order();
  const broken = [...document.images].filter(image => image.src && !image.naturalWidth).length;
  const facts = {up, down, broken, errors, fetched: performance.getEntriesByType("resource").map(it => it.name),
                 wide: document.documentElement.scrollWidth, seen: innerWidth,
                 right: table.tBodies[0].rows[0].cells[column].getBoundingClientRect().right};
  parent.postMessage(JSON.stringify(facts), "*");
});
</script></head>"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_the_page_in_a_browser(tmp_path: Path) -> None:
    """Sorting works, nothing is fetched, no error, and nothing is wider than a phone of 360 pixels."""
    rows, report = study("swae", "vae", "<script>alert(1)</script>", "mine-" * 20), tmp_path / "report.html"
    rows += [row("noise", 0, 30.0, role="control")]
    exporting.export(tmp_path, rows, draw=lambda: ([ranks(rows)], []), command="genbench " + "x" * 500)
    text = report.read_text()
    report.with_name("probed.html").write_text(text.replace("</head>", PROBE))
    outer = report.with_name("outer.html")
    outer.write_text(
        '<pre></pre><script>addEventListener("message", e => { document.querySelector("pre").textContent = e.data; });'
        '</script><iframe src="probed.html" width="360" height="800" style="border:0"></iframe>'
    )
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={report.parent / 'profile'}", "--virtual-time-budget=5000", "--dump-dom", outer.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    facts = json.loads(done.stdout.split("<pre>")[1].split("</pre>")[0].replace("&amp;", "&"))
    assert facts["errors"] == []
    assert facts["broken"] == 0
    assert [name for name in facts["fetched"] if not name.startswith("data:")] == []
    assert facts["up"] == sorted(facts["up"], key=float)
    assert facts["down"] == facts["up"][::-1]
    assert len(set(facts["up"])) == 4
    assert facts["seen"] == 360
    assert facts["wide"] <= 360
    assert facts["right"] <= 360  # the number that ranks is seen without scrolling
    assert len(text.encode()) < 10_000_000


def test_an_experiment_is_drawn_over_the_numbers_of_its_cases() -> None:
    """A panel for each metric, a line for each second number, a band where there are seeds."""
    numbers = [
        Finding(f"d = {d}, L = {count}", metric, d + count + seed, 5, seed=seed)
        for d in (2, 4, 8)
        for count in (1, 50)
        for metric in ("W2", "factor", "variance")
        for seed in (0, 1)
    ]
    drawing = findings(numbers)
    assert drawing is not None
    first, *further = drawing.figure.axes
    assert [axes.get_ylabel() for axes in (first, *further)][:3] == ["W2", "factor", "variance"]
    assert not further[-1].axison  # four places, three metrics
    first_line, last_line = first.get_lines()
    assert (first_line.get_label(), last_line.get_label()) == ("L = 1", "L = 50")
    assert list(last_line.get_ydata()) == [d + 50.5 for d in (2, 4, 8)]
    assert len(first.collections) == 2
    assert first.get_xlabel() == "d"


@pytest.mark.parametrize("case", ["all", "d = x", "d = 2, L = 1, M = 3", "d = 1.2.3", "", "d = 2"])
def test_an_experiment_without_numbers_across_has_no_figure(case: str) -> None:
    assert findings([Finding(case, "W2", 1.0, 5)]) is None


def test_a_case_is_read_by_its_names() -> None:
    assert case_numbers("d = 64, L = 5e2") == (("d", 64.0), ("L", 500.0))
    assert case_numbers("latent dim = 1.5") == (("latent dim", 1.5),)
    assert case_numbers("d = 64, all") == ()
