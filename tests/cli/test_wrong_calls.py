"""Fifty wrong calls: each is met by one line with what was given, what is possible and what to do, and status 2."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from genbench.cli.main import main
from genbench.registry import loader
from support.studies import DOTS, TINY

Call = Callable[..., Result]
LOAD = loader.load
RUN = ("run", "swae")
ON_DOTS = (*RUN, *DOTS, *TINY, "--metrics", "reconstruction", "--dry-run")


@cache
def _load(files: tuple[Path, ...], disabled: tuple[str, ...]) -> loader.Registry:
    return LOAD(files, disabled=disabled)


def load_once(files: Sequence[Path] = (), *, disabled: Sequence[str] = ()) -> loader.Registry:
    """The plug-ins, loaded once for all calls that name the same ones."""
    return _load(tuple(files), tuple(disabled))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, a damaged picture archive and an empty folder; one cache for all calls."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "afile").write_text("a")
    (folder / "broken.py").write_text("import nothing_of_this_name\n")
    (folder / "notes.txt").write_text("a")
    (folder / "empty").mkdir()
    (folder / "damaged.zip").write_bytes(b"PK\x03\x04 cut short")
    return folder


@pytest.fixture
def call(place: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    monkeypatch.chdir(place)
    monkeypatch.setenv("GENBENCH_CACHE", str(place / "cache"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(loader, "load", load_once)
    return lambda *arguments: CliRunner().invoke(main, arguments, prog_name="genbench", catch_exceptions=False)


WRONG: list[tuple[tuple[str, ...], tuple[str, ...]]] = [
    # Names: any case, a typing error, another word, another kind.
    (("run", "swea"), ("no model 'swea'", "did you mean 'swae'", "possible: ae, ")),
    (("run", "SWEA", "vea", "--prior", "nrmal"), ("no model 'swea'", "no model 'vea'", "prior 'nrmal'", "'normal'")),
    (("run", "normal"), ("no model 'normal': it is a prior", "--prior")),
    (("run", "--epochs", "2"), ("Missing MODEL or STUDY.toml",)),
    (("run", "--controls", "swae"), ("Missing MODEL", "put the models first, or write --controls=all")),
    ((*RUN, "swae"), ("'swae' is named twice", r"--set swae\.OPTION=A,B")),
    ((*RUN, "--dataset", "MINST"), ("no dataset 'minst'", "did you mean 'mnist'")),
    ((*RUN, "--dataset", "imagenet"), ("no dataset 'imagenet'", "possible: celeba, ")),
    ((*RUN, "--prior", "gaussian"), ("no prior 'gaussian'", "did you mean 'normal'", "possible: bowl, ")),
    ((*RUN, "--metrics", "fid,fid", "--prior", "gauss"), ("prior 'gauss'", "metric 'fid' is named twice")),
    ((*RUN, "--network", "unet"), ("no network 'unet'", "possible: conv, mlp")),
    ((*RUN, "--metrics", "FID (grey28)"), ("no metric 'fid .grey28.'", "did you mean 'fid'")),
    ((*RUN, "--metrics", "MSE per pixel"), ("did you mean 'reconstruction'",)),
    ((*RUN, "--metrics", "latent-w2.excess"), ("did you mean 'latent-w2'",)),
    ((*RUN, "--metrics", "mse"), ("no metric 'mse'", "did you mean 'reconstruction'")),
    ((*RUN, "--metrics", "precision"), ("did you mean 'precision-recall'",)),
    ((*RUN, "--metrics", "swae"), ("'swae': it is a model",)),
    ((*RUN, "--sampler", "flows"), ("no sampler 'flows'", "possible: ")),
    ((*RUN, "--controls", "vae"), ("no control 'vae': it is a model", "--controls=all")),
    ((*RUN, "--disable-plugin", "nobody"), ("'nobody'", "possible: ")),
    # Numbers.
    ((*RUN, "--seeds", "0,1,2"), ("--seeds", "'0,1,2' is not a whole number: --seeds 3")),
    ((*RUN, "--seeds", "0"), ("--seeds", "0 is not in the range")),
    ((*RUN, "--images", "2k"), ("'2k' is not a whole number: --images 2000",)),
    ((*RUN, "--images", "60,000"), ("--images 60000",)),
    ((*RUN, "--images", "1e4"), ("--images 10000",)),
    ((*RUN, "--images", "-5"), ("--images", "-5 is not in the range")),
    ((*RUN, "--epochs", "many"), ("'many' is not a whole number",)),
    ((*RUN, "--epochs", "1", "--images", "5"), ("--epochs 1 and --images 5: give one of them",)),
    ((*RUN, "--latent-dim", "0"), ("--latent-dim", "at least 1")),
    ((*RUN, "--latent-dim", "8,8"), ("8", "each once")),
    ((*RUN, "--batch", "1"), ("--batch", "1 is not in the range x>=2")),
    ((*ON_DOTS, "--batch", "100000"), ("--batch 100000", r"--batch \d+$")),
    ((*RUN, "--threads", "none"), ("--threads", "not a whole number")),
    ((*RUN, "--jobs", "some"), ("--jobs",)),
    ((*RUN, "--run-timeout", "nan"), ("--run-timeout", "not a finite number")),
    # Options of components.
    ((*RUN, "--set", "weight=3"), ("weight is an option of swae: --set swae.weight=3",)),
    ((*RUN, "--set", "vae.rate=1"), ("--set vae.rate: the model 'vae' is no part of this study", "swae")),
    ((*RUN, "--set", "swae.wieght=3"), ("'swae.wieght'", "did you mean 'weight'")),
    ((*RUN, "--set", "nobody.rate=3"), ("'nobody'", "possible: ")),
    ((*RUN, "--set", "swae"), ("--set swae: ", "NAME.OPTION=VALUE")),
    ((*ON_DOTS, "--set", "swae.weight=heavy"), ("swae.weight=heavy: not a float",)),
    ((*ON_DOTS, "--set", "swae.weight=nan"), ("swae.weight=nan: not a float",)),
    ((*ON_DOTS, "--set", "swae.projections=0"), ("swae.projections=0: must be at least 1",)),
    (
        (*ON_DOTS, "--set", "swae.weight=heavy", "--set", "swae.projections=0"),
        ("swae.(weight|projections)",),
    ),
    ((*RUN, "--set", "swae.rate=1", "--set", "swae.rate=1"), ("--set swae.rate=1", "twice", "--set swae.rate=A,B")),
    # Devices, folders, files.
    ((*ON_DOTS, "--device", "mps"), ("--device mps: Apple GPUs are not supported", "--device cpu")),
    ((*ON_DOTS, "--device", "tpu"), ("--device tpu: possible are auto, cpu, cuda",)),
    ((*ON_DOTS[:-1], "--out", "afile"), ("--out afile", "is a file", "name a folder")),
    ((*ON_DOTS[:-1], "--out", "afile/x"), ("--out afile/x", "is a file", "name a folder")),
    ((*RUN, "--data-root", "nowhere"), ("--data-root nowhere: there is no such folder",)),
    ((*RUN, "--plugin", "nowhere.py"), ("--plugin nowhere.py: there is no such file",)),
    ((*RUN, "--plugin", "broken.py"), ("--plugin broken.py", "nothing_of_this_name")),
    ((*RUN, "--dataset", "mnist"), ("mnist", "train-images", "--data-root|--download")),
    ((*RUN, "--dataset", "folder"), ("--set dataset.path=DIR",)),
    ((*RUN, "--dataset", "folder", "--set", "dataset.path=empty"), ("empty", "no image")),
    ((*RUN, "--dataset", "folder", "--set", "dataset.path=damaged.zip"), ("damaged.zip",)),
    ((*RUN, "--dataset", "folder", "--set", "dataset.path=~nobodyhere/x"), ("~nobodyhere/x", "dataset.path=DIR")),
    # Combinations.
    ((*ON_DOTS, "--select", "reconstruction"), ("--select reconstruction", "--snapshots 6")),
    ((*ON_DOTS, "--snapshot-metrics", "reconstruction"), ("--snapshot-metrics", "--snapshots 6")),
    ((*RUN, "--precision", "tf32", "--device", "cpu"), ("tf32", "cpu|CPU")),
    ((*RUN, "--precision", "float16"), ("--precision", "'float16' is not one of", "bfloat16")),
    ((*RUN, "--executor", "serial", "--jobs", "2"), ("--executor serial", "--jobs 2")),
    ((*RUN, "--executor-option", "cpus-per-run=2"), ("--executor-option", "--executor ray")),
    (("run", "vae", *DOTS, *TINY, "--prior", "ring", "--set", "ring.noise=0"), ("ring.noise=0",)),
    (("run", "vae", *DOTS, *TINY, "--prior", "uniform", "--metrics", "reconstruction"), ("vae", "[Uu]niform")),
    # Other commands.
    (("rnu",), ("'rnu'", "[Dd]id you mean 'run'")),
    (("run",), ("MODEL", "genbench run --help")),
    ((*RUN, "--imags", "3"), ("'--imags'", "'--images'")),
    (("list", "swae"), ("'swae' is a model: genbench list models",)),
    (("list", "SWAE"), ("genbench list models",)),
    (("list", "prior"), ("did you mean 'priors'",)),
    (("report", "afile"), ("afile is a file", "name a folder of runs")),
    (("report", "nowhere"), ("no folder nowhere", "genbench run")),
    (("report", "empty"), ("empty holds no runs", "genbench run")),
    (("show", "that"), ("that",)),
    (("evaluate", "nowhere", "--metrics", "fid"), ("no folder nowhere",)),
    (("evaluate", "empty"), ("--metrics", "genbench evaluate --help")),
    (("compare", "a"), ("genbench compare|a",)),
    (("new", "thing", "x"), ("'thing'", "'?model'?")),
    (("reproduce", "nothing"), ("no recipe 'nothing'", "possible: ")),
    (("--verbos",), ("'--verbos'", "genbench --help")),
]


@pytest.mark.parametrize(("arguments", "patterns"), WRONG, ids=lambda value: " ".join(value)[:60])
def test_a_wrong_call_is_met_by_one_line(call: Call, arguments: tuple[str, ...], patterns: tuple[str, ...]) -> None:
    result = call(*arguments)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if not re.search("takes .* s to import", line)]
    advice = lines[1:]
    assert lines[0].startswith("genbench: "), result.output
    assert all(line.startswith("This would run: genbench ") for line in advice), result.output
    for pattern in patterns:
        assert re.search(pattern, lines[0]), f"{pattern!r} is not in: {lines[0]}"
    assert "Traceback" not in result.output
    assert not result.stdout
