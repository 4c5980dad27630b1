"""Threads and memory format: chosen by the size of a step, or by --threads, and recorded."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from click.testing import Result

from conftest import DOTS
from genbench.experiment.build import create_model
from genbench.experiment.plan import Plan
from genbench.registry.loader import Registry
from genbench.training.device import DeviceConfig, apply_device_config, select_device_config
from genbench.utils.torch_state import threads

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    """So that "all threads" is another number than one."""
    with threads(2):
        yield


def test_small_steps_have_one_thread_and_large_convolutions_all_threads_and_channels_last(
    registry: Registry, planned: Callable[..., Plan]
) -> None:
    small, large = (
        create_model(registry, planned(network="conv").runs[0], shape) for shape in ((1, 28, 28), (3, 64, 64))
    )
    dense = create_model(registry, planned(network="mlp").runs[0], (3, 64, 64))
    assert select_device_config(small, 128, CPU) == DeviceConfig(1, "contiguous")
    assert select_device_config(large, 256, CPU) == DeviceConfig(2, "channels-last")
    assert select_device_config(dense, 1024, CPU) == DeviceConfig(2, "contiguous")


def test_threads_can_be_chosen_without_another_memory_format(registry: Registry, planned: Callable[..., Plan]) -> None:
    small, large = (
        create_model(registry, planned(network="conv").runs[0], shape) for shape in ((1, 28, 28), (3, 64, 64))
    )
    assert select_device_config(small, 128, CPU, threads=3) == DeviceConfig(3, "contiguous")
    assert select_device_config(large, 256, CPU, threads=1) == DeviceConfig(1, "channels-last")


def test_a_device_config_holds_inside_alone(registry: Registry, planned: Callable[..., Plan]) -> None:
    model = create_model(registry, planned(network="conv").runs[0], (1, 28, 28))
    with apply_device_config(model, DeviceConfig(1, "channels-last")):
        assert torch.get_num_threads() == 1
        assert not all(parameter.is_contiguous() for parameter in model.parameters())
    assert torch.get_num_threads() == 2
    assert all(parameter.is_contiguous() for parameter in model.parameters())


@pytest.mark.parametrize("jobs", ["1", "2"])
@pytest.mark.parametrize(("options", "expected"), [((), 1), (("--threads", "2"), 2)])
def test_the_threads_of_a_training_are_those_of_the_option_and_recorded(
    jobs: str, options: tuple[str, ...], expected: int, genbench: Callable[..., Result], tmp_path: Path
) -> None:
    study = ("--dataset", "dots", "--network", "mlp", "--batch", "16", "--images", "64", "--plugin", str(DOTS))
    study = (*study, "--metrics", "speed", "--device", "cpu", "--seeds", jobs, "--jobs", jobs)
    assert genbench("run", "swae", *study, *options).exit_code == 0
    records = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/training.json")]
    assert [record["threads"] for record in records] == [expected] * int(jobs)
    shown = genbench("show", next(tmp_path.glob("runs/dots-*")).name).output
    assert f"threads {expected}, precision float32" in shown


def test_a_number_of_threads_below_one_is_refused(genbench: Callable[..., Result]) -> None:
    refused = genbench("run", "swae", "--threads", "0")
    assert refused.exit_code == 2
    assert "--threads" in refused.output
