"""Images on their way to a worker: every field arrives, and a worker maps the files that were written."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from torch import Tensor

from genbench.api import Images
from genbench.execution.transfer import image_facts, image_tensors, images_of, map_images


def known() -> Images:
    """Images with a value in every field."""
    train, test = (torch.randint(0, 256, (n, 1, 2, 2), dtype=torch.uint8) for n in (6, 4))
    factors = {"size": torch.rand(6, dtype=torch.float64), "pen/ink": torch.arange(6)}
    return Images(
        train,
        test,
        test[:0],
        torch.arange(6),
        torch.arange(4),
        torch.arange(0),
        preprocessing="drawn",
        skipped=2,
        sha256="a" * 64,
        class_names=("x/1",),
        notes=("read",),
        duplicates=1,
        originals="b",
        train_factors=factors,
        test_factors={name: values[:4] for name, values in factors.items()},
        validation_factors={name: values[:0] for name, values in factors.items()},
    )


@pytest.mark.parametrize("mapped", [True, False])
def test_every_field_arrives(mapped: bool, tmp_path: Path) -> None:
    sent = known()
    facts, tensors = json.loads(json.dumps(image_facts(sent))), image_tensors(sent)
    if mapped:
        paths = {name: str(tmp_path / str(i)) for i, name in enumerate(tensors)}
        for name, tensor in tensors.items():
            Path(paths[name]).write_bytes(tensor.numpy().tobytes())
        arrived = map_images(facts, paths)
    else:
        arrived = images_of(facts, tensors)
    for field in fields(Images):
        before, after = getattr(sent, field.name), getattr(arrived, field.name)
        if isinstance(before, Tensor):
            assert torch.equal(before, after), field.name
        elif isinstance(before, dict):
            assert list(before) == list(after)
            assert all(torch.equal(before[name], after[name]) for name in before), field.name
        else:
            assert before == after, field.name
