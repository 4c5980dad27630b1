"""Precision is part of a run: another key, stated in the record, the same weights at every repetition."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import pytest
import torch
from click.testing import Result
from torch import Tensor, nn
from torch.nn import functional as F

from genbench.api import DataConfig
from genbench.cli.main import run as run_command
from genbench.errors import StoreError, UnsupportedError, UsageError
from genbench.experiment.build import create_dataset, create_model, create_prior
from genbench.experiment.plan import Plan
from genbench.experiment.run import PRECISIONS, run_of_record
from genbench.registry.loader import Registry
from genbench.training.device import DeviceConfig, apply_device_config
from genbench.training.loop import TrainConfig, train
from genbench.training.precision import check_precision, computing

DOTS = Path(__file__).parents[1] / "fixtures" / "dots.py"
CPU = torch.device("cpu")


def test_precision_is_part_of_the_key_and_of_the_record(planned: Callable[..., Plan]) -> None:
    usual = planned("swae").runs[0]
    lowered = planned("swae", precision="bfloat16").runs[0]
    assert lowered.key != usual.key
    assert lowered.record()["precision"] == "bfloat16"
    assert run_of_record(lowered.record()) == lowered
    assert "precision" not in usual.record()  # the key of every run made before there was a choice
    assert run_of_record(usual.record()) == usual
    with pytest.raises(StoreError, match="int4"):
        run_of_record({**usual.record(), "precision": "int4"})


def test_precisions_that_a_device_lacks_are_refused_while_planning(genbench: Callable[..., Result]) -> None:
    with pytest.raises(UsageError, match="only a CUDA device"):
        check_precision("tf32", CPU)
    refused = genbench("run", "swae", "--precision", "tf32", "--device", "cpu", "--dry-run")
    assert refused.exit_code == 2


def test_the_command_line_accepts_every_precision() -> None:
    """It is written there again, since the help is shown without torch."""
    (option,) = (parameter for parameter in run_command.params if parameter.name == "precision")
    assert isinstance(option.type, click.Choice)
    assert set(option.type.choices) == set(PRECISIONS)


class Style(nn.Module):
    """Records the dtype of its products."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.seen: list[torch.dtype] = []

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.inner(x)
        self.seen.append(y.dtype)
        return y


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.more = Style(), nn.ModuleList([Style()])


def test_networks_compute_in_bfloat16_and_hand_out_float32() -> None:
    model, x = Pair(), torch.randn(3, 4)
    with computing(model, "bfloat16", CPU):  # type: ignore[arg-type]
        y = model.more[0](model.encoder(x))
        assert y.dtype == torch.float32
        assert not torch.is_autocast_enabled("cpu")
        assert F.linear(x, model.encoder.inner.weight).dtype == torch.float32
    assert model.encoder.seen == [torch.bfloat16]
    assert model.more[0].seen == [torch.bfloat16]  # type: ignore[union-attr]
    model.encoder(x)
    assert model.encoder.seen[-1] == torch.float32
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_a_model_without_networks_has_no_bfloat16() -> None:
    with pytest.raises(UnsupportedError, match="no networks"), computing(nn.Linear(2, 2), "bfloat16", CPU):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("model", ["swae", "wae-gan"])
@pytest.mark.parametrize("layout", ["contiguous", "channels-last"])
def test_a_training_in_either_memory_format_resumes_exactly(
    model: str, layout: str, registry: Registry, planned: Callable[..., Plan], data_config: DataConfig, tmp_path: Path
) -> None:
    run = planned(model, network="conv", settings=("dots.size=12",), precision="bfloat16").runs[0]
    images = create_dataset(registry, run.dataset).load(data_config).train

    def go(name: str, stop_at: int = 10**6) -> nn.Module:
        torch.manual_seed(0)
        made, asked = create_model(registry, run, (1, 12, 12)), iter(range(1, 10**7))
        config = TrainConfig(run.images, run.batch, run.seed, tmp_path / name, "k", log_seconds=1e9)
        with apply_device_config(made, DeviceConfig(1, layout)), computing(made, run.precision, CPU):  # type: ignore[arg-type]
            list(train(made, create_prior(registry, run), images, config, stop=lambda: next(asked) >= stop_at))
        return made

    whole = go("whole")
    go("parts", 4)
    resumed = go("parts")
    for (name, expected), actual in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(expected, actual), name
        assert actual.is_contiguous()


def test_the_record_says_how_a_training_was_done(genbench: Callable[..., Result], tmp_path: Path) -> None:
    few = ("--dataset", "dots", "--network", "mlp", "--batch", "16", "--images", "64", "--metrics", "reconstruction")
    few = (*few, "--plugin", str(DOTS), "--device", "cpu")
    assert genbench("run", "swae", "--precision", "bfloat16", *few).exit_code == 0
    (path,) = tmp_path.glob("runs/*/training.json")
    record = json.loads(path.read_text())
    recorded = {name: record[name] for name in ("precision", "memory_format", "step", "threads")}
    assert recorded == {"precision": "bfloat16", "memory_format": "contiguous", "step": "eager", "threads": 1}
    shown = genbench("show", path.parent.name).output
    assert "threads 1, precision bfloat16, memory_format contiguous, step eager" in shown
    both = genbench("run", "swae", *few)
    assert both.exit_code == 0
    report = genbench("report")
    assert "swae (bfloat16)" in report.output, report.output
