"""From the command to an optimizer's step a reader follows nine calls at most."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

PROBE = '''
import sys
import traceback
from pathlib import Path

import torch
from torch import nn

import genbench
from genbench.api import ComponentSpec, Loss, Model, OptimizerConfig
from genbench.hookspecs import hookimpl

PACKAGE = str(Path(genbench.__file__).parent)


class Recorded(torch.optim.SGD):
    """Writes down, innermost last, the functions of genbench that are at work while it steps."""

    def step(self, closure=None):
        frames = [f for f in traceback.extract_stack() if f.filename.startswith(PACKAGE)]
        Path("frames.txt").write_text("\\n".join(f"{Path(f.filename).stem}.{f.name}" for f in frames))
        return super().step(closure)


class Probe(Model):
    """Two linear layers."""

    def __init__(self, context):
        super().__init__()
        self.context, size = context, torch.Size(context.shape).numel()
        self.inward, self.outward = nn.Linear(size, context.latent_dim), nn.Linear(context.latent_dim, size)

    def encode(self, x):
        return self.inward(x.flatten(1))

    def decode(self, z):
        return self.outward(z).sigmoid().unflatten(1, self.context.shape)

    def configure_optimizers(self):
        return {"all": OptimizerConfig(tuple(self.parameters()), lambda p: Recorded(p, lr=0.1))}

    def training_step(self, x, z, noise):
        yield Loss("all", (self.decode(self.encode(x)) - x).square().mean())


@hookimpl
def genbench_models():
    return [ComponentSpec(name="probe", description="For a test", factory=Probe)]
'''


@pytest.mark.parametrize(("runs", "last"), [((), "step.do_batch"), (("--seeds", "2"), "ensemble.do_batch")])
def test_at_most_nine_frames_lie_between_the_command_and_a_step(
    runs: tuple[str, ...], last: str, genbench: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    dots = str(Path(__file__).parents[1] / "fixtures" / "dots.py")
    words = (
        "--dataset dots --network mlp --images 32 --batch 16 --metrics reconstruction --executor serial --ensemble 2"
    )
    result = genbench("run", "probe", *words.split(), *runs, "--plugin", "probe.py", "--plugin", dots)
    assert result.exit_code == 0, result.output
    frames = (tmp_path / "frames.txt").read_text().splitlines()
    assert "main.run" in frames
    path = frames[frames.index("main.run") :]
    assert path[-1] == last
    assert len(path) <= 9, path
