"""Evaluation: exact optimal transport from a start against cold, FID against torch-fidelity's own path.

On a machine without a GPU the start is found on the CPU; `pytest tests/benchmarks/test_evaluation.py`.
"""

from __future__ import annotations

import pytest
import torch
import torch_fidelity
from ratio import compare
from torch import Tensor

import genbench.distances as distances
from conftest import INCEPTION
from genbench.distances import exact_wasserstein, frechet_of_samples
from genbench.features import Extractor, extract
from test_features import Pictures, pictures

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = (2000, 10_000) if DEVICE.type == "cuda" else (1000, 2000)


def normal(n: int, d: int, seed: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("d", [2, 8, 64])
@pytest.mark.parametrize("n", SIZES)
def test_exact_transport(n: int, d: int, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = normal(n, d, 0), normal(n, d, 1)
    used, values = distances.pays(n, n, d, DEVICE), []

    def started() -> float:
        monkeypatch.setattr(distances, "pays", lambda *_: True)
        values.append(exact_wasserstein(x, y, DEVICE))
        return 1

    def cold() -> float:
        monkeypatch.setattr(distances, "pays", lambda *_: False)
        values.append(exact_wasserstein(x, y, DEVICE))
        return 1

    note = "The rule uses the start here." if used else "The rule does not use the start here: nothing is claimed."
    goal = 8.0 if DEVICE.type == "cuda" and n == 10_000 and d > 2 else 1.0
    contenders = {"from a start": started, "cold": cold}
    name = f"exact OT, n = {n}, d = {d}, {DEVICE.type}"
    item = compare(name, contenders, unit="solves", file="evaluation", goal=goal if used else None, note=note)
    assert values == pytest.approx([values[0]] * len(values), rel=1e-9)
    assert item.met


@pytest.mark.skipif(not INCEPTION.exists(), reason=f"no Inception weights at {INCEPTION}")
@pytest.mark.filterwarnings("ignore")  # torch-fidelity's own DataLoader
def test_inception() -> None:
    one, two = pictures(16, 64, 0, 3), pictures(16, 64, 1, 3, noise=60.0)
    extractor = Extractor("inception", "768", str(INCEPTION))
    found = {}

    def ours() -> float:
        features = [extract(extractor, x.to(DEVICE)) for x in (one, two)]
        found["ours"] = frechet_of_samples(*features)
        return 32

    def theirs() -> float:
        result = torch_fidelity.calculate_metrics(
            input1=Pictures(one),
            input2=Pictures(two),
            fid=True,
            cuda=DEVICE.type == "cuda",
            batch_size=16,
            cache=False,
            save_cpu_ram=True,  # no worker processes: faster here than starting some for so few images
            verbose=False,
            feature_layer_fid="768",
            feature_extractor=extractor.registered,
            feature_extractor_weights_path=extractor.weights,
        )
        found["theirs"] = result["frechet_inception_distance"]
        return 32

    note = "32 images of 64x64, features of layer 768 and the distance; theirs makes its extractor in every call."
    contenders = {"genbench": ours, "calculate_metrics": theirs}
    item = compare("FID by Inception", contenders, unit="images", file="evaluation", goal=2.0, note=note)
    assert found["ours"] == pytest.approx(found["theirs"], rel=1e-3)
    assert item.met
