"""Evaluation: exact optimal transport from a start against cold, FID against torch-fidelity's own path.

On a machine without a GPU the start is found on the CPU; `pytest tests/benchmarks/test_evaluation.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ot
import pytest
import torch
import torch_fidelity
from click.testing import CliRunner
from ratio import compare
from torch import Tensor

from conftest import INCEPTION, SHARED
from features.test_features import Pictures, pictures
from genbench.api import DataConfig, Noise
from genbench.cli.main import main
from genbench.data.images import to_float
from genbench.distances import (
    exact_transport,
    frechet_distance_of_samples,
    squared_distances,
    transport,
    wasserstein_distance,
)
from genbench.evaluation.snapshots import trained_model
from genbench.experiment.build import create_dataset
from genbench.features import FeatureLayer, extract, feature_layer
from genbench.registry.loader import load
from genbench.storage.run_dir import WEIGHTS, find_runs, read_runs
from genbench.training.checkpoint import restore_weights
from genbench.utils.torch_state import threads as thread_count

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = (2000, 10_000) if DEVICE.type == "cuda" else (2000, 4000)


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("d", [2, 8, 16, 32, 64])
@pytest.mark.parametrize("n", SIZES)
def test_exact_transport(n: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(n, d, 0), normal(n, d, 1)
    used, values = transport.start_pays(n, n, d, DEVICE), []

    def started() -> float:
        monkeypatch.setattr(transport, "start_pays", lambda *_: True)
        values.append(wasserstein_distance(x, y, DEVICE))
        return 1

    def cold() -> float:
        monkeypatch.setattr(transport, "start_pays", lambda *_: False)
        values.append(wasserstein_distance(x, y, DEVICE))
        return 1

    note = "The rule uses the start here." if used else "The rule does not use the start here: nothing is claimed."
    goal = 8.0 if DEVICE.type == "cuda" and n == 10_000 and d > 2 else 1.0
    contenders = {"from a start": started, "cold": cold}
    name = f"exact OT, n = {n}, d = {d}, {DEVICE.type}"
    item = compare(name, contenders, unit="solves", file="evaluation", goal=goal if used else None, note=note)
    assert values == pytest.approx([values[0]] * len(values), rel=1e-9)
    assert item.met


def codes_at_snapshots(store: Path, d: int) -> list[Tensor]:
    """Codes of 2,000 Fashion-MNIST images, `(2000, d)`, at three snapshots of 240,000 images of a swae's training."""
    command = ["run", "swae", "--latent-dim", str(d), "--dataset", "fashion-mnist", "--network", "mlp"]
    schedule = ["--snapshots", "3", "--snapshot-metrics", "reconstruction", "--set", "fashion-mnist.validation=2000"]
    locations = ["--images", "240000", "--metrics", "reconstruction", "--data-root", str(SHARED), "--out", str(store)]
    done = CliRunner().invoke(main, [*command, *schedule, *locations])
    assert done.exit_code == 0, done.output
    (record,), registry = read_runs(find_runs([store]))[0], load()
    run, folder = record.run, record.folder
    held_out = create_dataset(registry, run.dataset).load(DataConfig(SHARED, store / "cache")).validation
    model, codes = trained_model(registry, run, folder, torch.device("cpu")).eval(), []
    for path in [*sorted(folder.path.glob("**/*.safetensors"), key=lambda path: (path.name == WEIGHTS, path.name))]:
        restore_weights(path, model, run.key)
        with torch.no_grad():
            codes.append(model.sample_codes(to_float(held_out), Noise(torch.Generator().manual_seed(0))).double())
    assert len(codes) == 3
    return codes


def potentials(x: Tensor, y: Tensor) -> Tensor:
    """The optimal ones of y, `(m,)`."""
    _, log = ot.emd2([], [], squared_distances(x, y).numpy(), numItermax=transport.SIMPLEX_STEPS, log=True)
    return torch.from_numpy(log["v"])


@pytest.mark.skipif(not SHARED.exists(), reason=f"no Fashion-MNIST in {SHARED}")
@pytest.mark.parametrize("d", [8, 64])
def test_codes_of_a_training(d: int, tmp_path: Path) -> None:
    _, before, x = codes_at_snapshots(tmp_path, d)
    y, values = normal(2000, d, 1), []
    earlier = potentials(before, y)

    def annealed() -> Tensor:
        cost = squared_distances(x, y)
        largest = float(cost.max())
        return largest * transport.annealed_potentials(cost.div_(largest).float())[1]

    def solved(start: Callable[[], Tensor | None]) -> float:
        values.append(exact_transport(x, y, start()))
        return 1

    contenders = {
        "from the snapshot before": lambda: solved(lambda: earlier),
        "from a start": lambda: solved(annealed),
        "cold": lambda: solved(lambda: None),
    }
    note = "swae on Fashion-MNIST: the codes after 240,000 images, and the potentials that the draws had after 160,000."
    note += " Neither is used at d = 8, the start alone at d = 64: nothing is claimed."
    compare(f"exact OT of real codes, n = 2000, d = {d}", contenders, unit="solves", file="evaluation", note=note)
    assert values == pytest.approx([values[0]] * len(values), rel=1e-9)


@pytest.mark.skipif(not INCEPTION.exists(), reason=f"no Inception weights at {INCEPTION}")
@pytest.mark.filterwarnings("ignore")  # torch-fidelity's own DataLoader
@pytest.mark.parametrize("threads", [1, 2])
def test_inception(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    load()  # registers the extractors
    first, second = pictures(24, 64, 0, 3), pictures(24, 64, 1, 3, noise=60.0)
    extractor = feature_layer("inception", "768", str(INCEPTION), DataConfig(Path(), Path()))
    made, distances = rival(extractor), {}
    monkeypatch.setattr(torch_fidelity.metrics, "create_feature_extractor", lambda *_, **__: made)

    def ours() -> float:
        features = [extract(extractor, x.to(DEVICE)) for x in (first, second)]
        distances["ours"] = frechet_distance_of_samples(*features)
        return 48

    def theirs() -> float:
        result = torch_fidelity.calculate_metrics(
            input1=Pictures(first),
            input2=Pictures(second),
            fid=True,
            cuda=DEVICE.type == "cuda",
            batch_size=24,
            cache=False,
            save_cpu_ram=True,  # no worker processes: faster here than starting some for so few images
            verbose=False,
            feature_layer_fid="768",
            feature_extractor=extractor.implementation,
            feature_extractor_weights_path=extractor.weights,
        )
        distances["theirs"] = result["frechet_inception_distance"]
        return 48

    note = "48 images of 64x64, layer 768 and the distance; neither side makes its extractor within the time."
    contenders = {"genbench": ours, "calculate_metrics": theirs}
    name = f"FID by Inception, {threads} threads" if DEVICE.type == "cpu" else "FID by Inception"
    with thread_count(threads):
        item = compare(name, contenders, unit="images", file="evaluation", goal=2.0, note=note)
    assert distances["ours"] == pytest.approx(distances["theirs"], rel=1e-3)
    assert item.met


def rival(extractor: FeatureLayer) -> torch.nn.Module:
    """torch-fidelity's extractor as its own `calculate_metrics` makes it."""
    options = {"feature_extractor_weights_path": extractor.weights}
    made: torch.nn.Module = torch_fidelity.utils.create_feature_extractor(
        extractor.implementation, [extractor.layer], cuda=DEVICE.type == "cuda", verbose=False, **options
    )
    return made
