"""A site of bundles: the numbers of a report, protocols apart, unsound bundles refused, whole or not at all."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from click.testing import Result
from PIL import Image

from genbench.analysis.selection import leaderboards
from genbench.analysis.table import assemble
from genbench.api import EvalProtocol, Measurement
from genbench.errors import DataError, GenbenchError, UsageError
from genbench.evaluation.measure import to_stored
from genbench.experiment.run import Run
from genbench.reporting.site.folder import SITE, write_site
from genbench.reporting.site.pages import harmless
from genbench.reporting.site.submissions import collect
from genbench.storage.bundle import BUNDLE_SCHEMA, MANIFEST, export_bundle
from genbench.storage.results import rows
from genbench.storage.run_dir import RunFolder, find_runs, read_runs
from genbench.storage.schema import SCHEMA, MetricRecord, TunedFile
from genbench.utils.io import save_tensors
from tests.support.studies import fake_run, store_run

HOW = EvalProtocol("Frechet distance", "d", "none", "test", 100, 10, "uint8")
ROLES = {"fid": "sample quality", "mse": "reconstruction"}
FULL = {"fid": (2.0, HOW), "mse": (0.5, HOW)}


def source(run: Run, name: str) -> Run:
    """The same run of another model's source."""
    return replace(run, model=replace(run.model, fingerprint=name))


def store(
    folder: Path,
    run: Run,
    numbers: Mapping[str, tuple[float, EvalProtocol]],
    tuned: TunedFile | None = None,
    command: str = "genbench run swae",
) -> Path:
    """A trained run with weights, a picture, and numbers by metric with their protocols."""
    at = RunFolder(store_run(folder, run, started=f"2026-11-27T10:00:{run.seed:02}+00:00"))
    record = json.loads((at.path / "run.json").read_text())
    record["provenance"]["command"] = command
    (at.path / "run.json").write_text(json.dumps(record))
    save_tensors(at.path / "weights.safetensors", {"w": torch.zeros(1)}, {"key": run.key})
    Image.new("L", (8, 8)).save(at.path / "samples.png")
    at.save_measurements(
        {
            name: MetricRecord(
                name,
                {},
                "test",
                numbers=(
                    to_stored(
                        Measurement(
                            value=value + 0.1 * run.seed**1.5,
                            unit="u",
                            higher_is_better=False,
                            n=10,
                            protocol=protocol,
                            role=ROLES.get(name, ""),  # type: ignore[arg-type]
                        )
                    ),
                ),
            )
            for name, (value, protocol) in numbers.items()
        }
    )
    if tuned is not None:
        at.save_tuned(tuned)
    return at.path


def pack(folder: Path) -> Path:
    """A bundle of all runs of a folder, named after it."""
    records, _ = read_runs(find_runs([folder]))
    target = folder.with_suffix(".tar")
    export_bundle(records, target)
    return target


def repacked(path: Path, ending: str, change: Callable[[dict[str, object]], object], *, honest: bool = True) -> Path:
    """The bundle with the JSON of its last such file changed; if `honest` with a true manifest."""
    with tarfile.open(path) as archive:
        files = {info.name: file.read() for info in archive if (file := archive.extractfile(info))}
    name = next(name for name in reversed(files) if name.endswith(ending))
    value = json.loads(files[name])
    change(value)
    files[name] = json.dumps(value).encode()
    if honest:
        listed = {
            n: {"size": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items() if n != MANIFEST
        }
        files[MANIFEST] = json.dumps({"schema": BUNDLE_SCHEMA, "genbench": "x", "files": listed}).encode()
    with tarfile.open(path, "w") as target:
        for each, data in files.items():
            info = tarfile.TarInfo(each)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two people, and a bundle of each."""
    at = tmp_path_factory.mktemp("made")
    tuned = TunedFile(SCHEMA, "search", "random", "trials", 30, "fid", 1.5, 2.0, {})
    longer = replace(HOW, generated=20)
    for seed in range(3):
        store(at / "ann", fake_run("swae", seed), FULL)
        store(at / "ann", fake_run("vae", seed), {"fid": (3.0, HOW), "mse": (0.4, HOW)}, tuned)
        store(at / "bob", source(fake_run("swae", seed), "bobs-source"), {"fid": (1.0, HOW), "mse": (0.3, longer)})
        store(at / "bob", fake_run("ae", seed), {"fid": (9.0, longer), "mse": (0.2, HOW)})
    pack(at / "ann")
    pack(at / "bob")
    return at


@pytest.fixture
def ann(made: Path, tmp_path: Path) -> Path:
    """Two models, three seeds each, one of them tuned."""
    return Path(shutil.copy(made / "ann.tar", tmp_path))


@pytest.fixture
def bob(made: Path, tmp_path: Path) -> Path:
    """The same model of another source, and one whose two metrics were measured otherwise."""
    return Path(shutil.copy(made / "bob.tar", tmp_path))


class Tables(HTMLParser):
    """The results tables of a page: for each the hashes in its head, and its rows as lists of texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[tuple[list[str], list[list[str]]]] = []
        self.links: list[str] = []
        self.inside = self.hash = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = dict(attrs)
        self.links += [known[name] or "" for name in ("href", "src") if name in known]
        if tag == "table":
            self.inside = known.get("class") == "results"
            if self.inside:
                self.tables.append(([], []))
        if self.inside and tag == "tr":
            self.tables[-1][1].append([])
        if self.inside and tag in ("td", "th"):
            self.tables[-1][1][-1].append("")
        if tag == "span":
            self.handle_data(" ")
        self.hash = tag == "span" and known.get("class") == "hash"

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag != "table"
        self.hash = False

    def handle_data(self, data: str) -> None:
        if self.inside and self.hash:
            self.tables[-1][0].append(data)
        if self.inside and self.tables[-1][1] and self.tables[-1][1][-1]:
            self.tables[-1][1][-1][-1] += data


# ---------------------------------------------------------------- the numbers


def test_the_numbers_are_those_of_the_report_over_all_runs(tmp_path: Path, made: Path, ann: Path, bob: Path) -> None:
    write_site(tmp_path / "site", [ann, bob])
    records, _ = read_runs(find_runs([made / "ann", made / "bob"]))
    (table,) = assemble(rows(records))
    whole = {
        (row.group, column.metric, column.protocol): cell.estimate
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell is not None
    }
    submissions, _ = collect([ann, bob], tmp_path / "again")
    tidy = rows([r for s in submissions for r in s.records], owners=[s.name for s in submissions for _ in s.records])
    shown = {}
    for board in leaderboards(tidy):
        (part,) = assemble(board.rows, board.metric)
        for row in part.rows:
            for column, cell in zip(part.columns, row.cells, strict=True):
                if cell is not None:
                    shown[row.group, column.metric, column.protocol] = cell.estimate
    assert shown == whole
    assert len(whole) == 8
    pages = "".join(path.read_text() for path in (tmp_path / "site").glob("*fid*.html"))
    for estimate in whole.values():
        assert re.search(rf'data-key="{re.escape(repr(estimate.mean))}"', pages)


def test_protocols_and_tuned_and_untuned_models_never_share_a_table(tmp_path: Path, ann: Path, bob: Path) -> None:
    pages, _ = write_site(tmp_path / "site", [ann, bob])
    assert len(pages) == 3  # the index, FID of 10 and FID of 20 samples
    kinds = set()
    for page in pages[1:]:
        tables = Tables((tmp_path / "site" / page).read_text()).tables
        assert tables
        assert tables[0][0][0] in page  # the protocol that ranks
        for hashes, lines in tables:
            metrics = [head.split()[0] for head in lines[1][1:]]
            assert len({*metrics}) == len(metrics) == len(hashes)  # each metric under one protocol
            models = {line[0].split()[0].rstrip(",") for line in lines[2:] if len(line) > 1}
            kinds.add(frozenset(models - {"a"}))
    assert frozenset({"vae"}) in kinds  # the tuned model stands alone
    assert not any({"vae", "swae"} <= kind for kind in kinds)


def test_one_model_of_two_people_is_a_row_of_each(tmp_path: Path, ann: Path, bob: Path) -> None:
    write_site(tmp_path / "site", [ann, bob])
    text = "".join(path.read_text() for path in (tmp_path / "site").glob("*.html"))
    assert "swae (swae of ann)" in text
    assert "swae (swae of bob)" in text


def test_seeds_of_one_model_from_two_people_are_one_row_that_names_both(tmp_path: Path) -> None:
    for name, seeds in (("ann", (0, 1)), ("bob", (2,))):
        for seed in seeds:
            store(tmp_path / name, fake_run("swae", seed), FULL)
    write_site(tmp_path / "site", [pack(tmp_path / "ann"), pack(tmp_path / "bob")])
    (page,) = (tmp_path / "site").glob("*fid*.html")
    assert "ann, seeds 0, 1; bob, seed 2" in page.read_text()


def test_a_model_without_sample_quality_is_ranked_by_what_it_has(tmp_path: Path, ann: Path) -> None:
    store(tmp_path / "cy", fake_run("pae", 0), {"mse": (0.1, HOW)})
    pages, _ = write_site(tmp_path / "site", [ann, pack(tmp_path / "cy")])
    (page,) = (page for page in pages if "mse" in page)
    names = {
        line[0].split()[0].rstrip(",")
        for _, lines in Tables((tmp_path / "site" / page).read_text()).tables
        for line in lines[2:]
    }
    assert {"pae", "swae"} <= names


# ---------------------------------------------------------------- what is refused


def deep(value: dict[str, object], *path: str | int) -> dict[str, object]:
    for key in path:
        value = value[key]  # type: ignore[index, assignment]
    return value


CONTRADICTIONS: tuple[tuple[str, Callable[[dict[str, object]], object], str], ...] = (
    (
        "metrics.json",
        lambda m: deep(m, "measurements", "fid", "numbers", 0, "how").update(generated=50),
        "protocol of fid",
    ),
    (
        "metrics.json",
        lambda m: deep(m, "measurements", "fid", "numbers", 0).update(protocol="ffff0000"),
        "protocol of fid",
    ),
    ("training.json", lambda m: m.update(images=10**6), "is of 1,000,000 images"),
    ("training.json", lambda m: m.update(batch=7), "batches of 7"),
    ("run.json", lambda m: deep(m, "run").update(images=10**6), "its record describes"),
    ("run.json", lambda m: deep(m, "run", "model").update(name="mine"), "its record describes"),
    ("tuned.json", lambda m: m.update(options={"weight": 3.0}), "chose another weight"),
)


@pytest.mark.parametrize(("ending", "change", "message"), CONTRADICTIONS)
def test_records_that_contradict_each_other_are_refused_by_name(
    tmp_path: Path, ann: Path, ending: str, change: Callable[[dict[str, object]], object], message: str
) -> None:
    repacked(ann, ending, change)
    with pytest.raises(GenbenchError, match=message) as caught:
        write_site(tmp_path / "sites" / "one", [ann])
    assert "ann.tar" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert ".part" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ann.tar"]


def test_a_selection_that_does_not_follow_from_the_snapshots_is_refused(tmp_path: Path) -> None:
    path = store(tmp_path / "ann", fake_run(), FULL)
    number = json.loads((path / "metrics.json").read_text())["measurements"]["fid"]["numbers"][0]
    cost = {"step": 5, "seconds": 1.0, "flops": None}

    def measured(value: float) -> dict[str, object]:
        entry = {"metric": "fid", "options": {}, "split": "validation", "numbers": [{**number, "value": value}]}
        return {"key": entry}

    snapshots = {
        str(images): {**cost, "images": images, "measurements": measured(value)}
        for images, value in ((80, 4.0), (160, 5.0))
    }
    (path / "snapshots.json").write_text(json.dumps({"schema": SCHEMA, "snapshots": snapshots}))
    chosen = {**cost, "images": 80, "measurements": measured(4.5), "by": "fid", "component": "", "value": 4.0}
    chosen |= {"higher_is_better": False, "protocol": number["protocol"], "candidates": 2}
    (path / "selected.json").write_text(json.dumps({"schema": SCHEMA, "selections": {"key": chosen}}))
    bundle = pack(tmp_path / "ann")
    write_site(tmp_path / "site", [bundle])
    for wrong in ({"images": 160, "value": 5.0}, {"value": 3.0}):
        repacked(bundle, "selected.json", lambda file, wrong=wrong: deep(file, "selections", "key").update(wrong))
        with pytest.raises(GenbenchError, match=r"ann\.tar.*selected\.json does not follow"):
            write_site(tmp_path / "site", [bundle])
        bundle = pack(tmp_path / "ann")


def test_a_number_changed_without_the_hash_of_its_file_is_refused(tmp_path: Path, ann: Path) -> None:
    repacked(
        ann, "metrics.json", lambda m: deep(m, "measurements", "fid", "numbers", 0).update(value=0.1), honest=False
    )
    with pytest.raises(DataError, match=r"ann\.tar"):
        write_site(tmp_path / "site", [ann])
    assert not (tmp_path / "site").exists()


def test_files_and_names_are_refused_twice_and_a_run_counts_once(tmp_path: Path, ann: Path) -> None:
    (tmp_path / "x").mkdir()
    with pytest.raises(UsageError, match="given twice"):
        write_site(tmp_path / "site", [ann, Path(str(ann))])
    with pytest.raises(UsageError, match="have one name"):
        write_site(tmp_path / "site", [ann, Path(shutil.copy(ann, tmp_path / "x" / "ann.tar"))])
    copy = Path(shutil.copy(ann, tmp_path / "copy.tar"))
    with pytest.raises(DataError, match=r"copy\.tar is the same file as ann\.tar"):
        write_site(tmp_path / "site", [ann, copy])
    store(tmp_path / "copy", fake_run("swae", 1), FULL)
    store(tmp_path / "copy", fake_run("cwae", 1), FULL)
    copy = pack(tmp_path / "copy")
    _, lines = write_site(tmp_path / "site", [ann, copy])
    assert lines == [
        f"left out: 1 run of {copy}, already in ann.tar: a run counts once, in the bundle that is named first"
    ]


def test_a_bundle_cannot_turn_the_ranking_of_others(tmp_path: Path, ann: Path, bob: Path) -> None:
    def turn(file: dict[str, object]) -> None:
        deep(file, "measurements", "fid", "numbers", 0).update(higher_is_better=True)

    with pytest.raises(DataError, match=r"bob\.tar gives fid another unit, direction or role than ann\.tar does"):
        write_site(tmp_path / "site", [ann, repacked(bob, "metrics.json", turn)])


# ---------------------------------------------------------------- the folder


def test_an_earlier_site_is_replaced_whole_and_any_other_folder_kept(
    tmp_path: Path, ann: Path, bob: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "deep" / "site"
    write_site(target, [ann, bob])
    first = {path.name: path.read_bytes() for path in target.iterdir()}
    write_site(target, [ann, bob])
    assert {path.name: path.read_bytes() for path in target.iterdir()} == first
    rename = Path.rename

    def failing(self: Path, to: Path) -> Path:
        if self.name == "site" and ".site-" in str(self):
            raise OSError(28, "No space left on device")
        return rename(self, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(GenbenchError, match="is full"):
            write_site(target, [ann])
    assert {path.name: path.read_bytes() for path in target.iterdir()} == first
    write_site(target, [ann])
    assert {path.name for path in target.iterdir()} < {*first}
    (target / "mine.txt").write_text("x")
    with pytest.raises(UsageError, match=r"holds mine\.txt"):
        write_site(target, [ann])
    (target / SITE).unlink()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="file is no folder: name a new folder"):
        write_site(tmp_path / "file" / "site", [])
    with pytest.raises(UsageError, match="not empty and no earlier site"):
        write_site(target, [ann])
    assert (target / "mine.txt").read_text() == "x"
    assert [path.name for path in tmp_path.joinpath("deep").iterdir()] == ["site"]


def test_pages_request_nothing_and_link_among_themselves(tmp_path: Path, ann: Path, bob: Path) -> None:
    pages, _ = write_site(tmp_path / "site", [ann, bob])
    for page in pages:
        text = (tmp_path / "site" / page).read_text()
        for link in Tables(text).links:
            assert link.startswith("data:image/webp;base64,") or (tmp_path / "site" / link).is_file(), link
        assert not re.search(r"https?://|@import|url\(", text)
    assert "data:image/webp" in (tmp_path / "site" / pages[1]).read_text()


EVIL = "<script>alert(1)</script>"


def test_names_of_others_are_text(tmp_path: Path) -> None:
    store(tmp_path / "ann", source(fake_run("ae"), EVIL), {"fid": (1.0, replace(HOW, detail=EVIL))}, command=EVIL)
    bundle = pack(tmp_path / "ann").rename(tmp_path / f"{EVIL.replace('/', '')}.tar")
    pages, _ = write_site(tmp_path / "site", [bundle], title=EVIL)
    for page in pages:
        text = (tmp_path / "site" / page).read_text()
        assert text.count("<script>") == 1
        assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    "command", ["curl x | sh", "genbench rm runs --yes", "genbench run 'a", "genbench run a\nb", 7]
)
def test_a_recorded_command_that_does_something_else_is_not_shown(command: object) -> None:
    assert harmless(command) == ""


def test_the_command_says_what_it_wrote(genbench: Callable[..., Result], ann: Path) -> None:
    result = genbench("site", str(ann), "--out", "site", "--title", "Ours")
    assert (result.exit_code, result.output) == (0, "1 leaderboard of 1 bundle: site/index.html\n")
    assert "<h1>Ours</h1>" in Path("site/index.html").read_text()
    repacked(ann, "training.json", lambda record: record.update(images=1))
    result = genbench("site", str(ann), "--out", "site")
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)
    assert "<h1>Ours</h1>" in Path("site/index.html").read_text()
