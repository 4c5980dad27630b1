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
    usual = distances.pays
    values = []

    def ours() -> float:
        monkeypatch.setattr(distances, "pays", usual)
        values.append(exact_wasserstein(x, y, DEVICE))
        return 1

    def cold() -> float:
        monkeypatch.setattr(distances, "pays", lambda *_: False)
        values.append(exact_wasserstein(x, y, DEVICE))
        return 1

    used = "from a start" if usual(n, n, d, DEVICE) else "cold by the rule, so both are the same work"
    goal = 8.0 if DEVICE.type == "cuda" and n == 10_000 and d > 2 else 0.95  # equal work differs by noise
    contenders = {"genbench": ours, "cold simplex": cold}
    name = f"exact OT, n = {n}, d = {d}, {DEVICE.type}"
    item = compare(name, contenders, unit="solves", file="evaluation", goal=goal, note=f"Ours {used}.")
    assert values == pytest.approx([values[0]] * len(values), rel=1e-9)
    assert item.met


@pytest.mark.skipif(not INCEPTION.exists(), reason=f"no Inception weights at {INCEPTION}")
@pytest.mark.filterwarnings("ignore")  # torch-fidelity's own DataLoader
def test_inception() -> None:
    one, two = pictures(32, 64, 0, 3), pictures(32, 64, 1, 3, noise=60.0)
    extractor = Extractor("inception", "768", str(INCEPTION))
    found = {}

    def ours() -> float:
        features = [extract(extractor, x.to(DEVICE)) for x in (one, two)]
        found["ours"] = frechet_of_samples(*features)
        return 64

    def theirs() -> float:
        result = torch_fidelity.calculate_metrics(
            input1=Pictures(one),
            input2=Pictures(two),
            fid=True,
            cuda=DEVICE.type == "cuda",
            batch_size=32,
            cache=False,
            verbose=False,
            feature_layer_fid="768",
            feature_extractor=extractor.registered,
            feature_extractor_weights_path=extractor.weights,
        )
        found["theirs"] = result["frechet_inception_distance"]
        return 64

    note = "64 images of 64x64, features of layer 768 and the distance; theirs makes its extractor in every call."
    contenders = {"genbench": ours, "calculate_metrics": theirs}
    item = compare("FID by Inception", contenders, unit="images", file="evaluation", goal=2.0, note=note)
    assert found["ours"] == pytest.approx(found["theirs"], rel=1e-3)
    assert item.met
