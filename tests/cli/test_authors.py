"""What the author of a plug-in meets: errors with their place, checks that are said once, files named again."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import Result

from genbench.api import ComponentSpec, Noise, Prior, UnsupportedError
from genbench.experiment.plan import Plan, check_noise
from genbench.interface.session import evaluable
from genbench.nn import require_finite_kl
from genbench.registry.loader import Registry
from genbench.testing.priors import CHECKS, build
from genbench.testing.results import BoundFactory, check_subject

ROOT = Path(__file__).parents[1]
DOTS = ("--plugin", str(ROOT / "fixtures" / "dots.py"))
FAULTY = ("--plugin", str(ROOT / "fixtures" / "faulty.py"))
TINY = (
    *DOTS,
    "--dataset",
    "dots",
    "--network",
    "mlp",
    "--latent-dim",
    "2",
    "--images",
    "64",
    "--batch",
    "16",
    "--metrics",
    "reconstruction",
)


def test_a_failed_run_names_the_line_show_prints_the_trace_and_no_empty_table_is_drawn(
    genbench: Callable[..., Result],
) -> None:
    result = genbench("run", "raises", *TINY, *FAULTY)
    assert result.exit_code == 1
    place = "faulty.py:59, in loss: ZeroDivisionError: a plug-in's own fault"
    assert f"FAILED: {place}" in result.output
    assert "MSE per pixel" not in result.output
    (run,) = Path("runs").iterdir()
    assert f"genbench show {run}" in result.output
    shown = genbench("show", str(run)).output
    assert place in shown
    assert "Traceback (most recent call last)" in shown
    assert 'faulty.py", line 59, in loss' in shown


def test_a_check_says_an_error_once(genbench: Callable[..., Result]) -> None:
    result = genbench("check", "raises", *FAULTY, "--format", "json")
    assert result.exit_code == 1
    details = [(check["status"], check["detail"]) for check in json.loads(result.stdout)]
    raised = [detail for status, detail in details if status == "fails"]
    assert [detail for detail in raised if "ZeroDivisionError" in detail] == [
        "faulty.py:59, in loss: ZeroDivisionError: a plug-in's own fault"
    ]
    assert ("skipped", "the error of optimizers_have_all_parameters again") in details


def test_a_prior_that_ignores_its_noise_is_refused_while_planning(genbench: Callable[..., Result]) -> None:
    result = genbench("run", "swae", "--prior", "global-prior", *TINY, "--plugin", str(ROOT / "zoo" / "priors.py"))
    assert result.exit_code == 2
    assert "the prior 'global-prior' ignores its noise" in result.output
    assert "generator=noise.generator" in result.output
    assert not Path("runs").exists()


def test_a_sampler_that_ignores_its_noise_is_seen() -> None:
    check_noise("sampler 'x'", lambda n, noise: noise.normal(n, 2))
    with pytest.raises(Exception, match="the sampler 'x' ignores its noise"):
        check_noise("sampler 'x'", lambda n, noise: torch.randn(n, 2))


class Arrays(Prior):
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def sample(self, n: int, noise: Noise) -> np.ndarray:  # type: ignore[override,type-arg]
        return np.zeros((n, self.latent_dim), dtype=np.float32)


def test_an_array_is_called_an_array() -> None:
    subject = build(BoundFactory(ComponentSpec(name="x", description="", factory=Arrays), {}))
    first = next(iter(check_subject("prior", "x", CHECKS, subject)))
    assert first.detail == "sample(1) is a numpy.ndarray, expected a torch.Tensor"


class Bare(Prior):
    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def sample(self, n: int, noise: Noise) -> torch.Tensor:
        return noise.normal(n, self.latent_dim)


class Dense(Bare):
    def log_prob(self, z: torch.Tensor) -> torch.Tensor:
        return -0.5 * z.square().sum(1)


@pytest.mark.parametrize(
    ("prior", "lack"), [(Bare, "Bare states no log_prob"), (Dense, "Dense does not state full_support = True")]
)
def test_a_vae_names_what_the_file_of_a_prior_lacks(prior: type[Prior], lack: str) -> None:
    with pytest.raises(UnsupportedError, match=lack):
        require_finite_kl("vae", prior(2))


def test_runs_of_a_plugin_file_say_which_file_to_name_again(genbench: Callable[..., Result]) -> None:
    assert genbench("new", "prior", "ripple").exit_code == 0
    plugin = ("--plugin", "./ripple.py")
    # The recorded command is that of this process: write the user's.
    assert genbench("run", "swae", "--prior", "normal,ripple", *TINY, *plugin).exit_code == 0
    (mine,) = Path("runs").glob("*ripple*")
    record = json.loads((mine / "run.json").read_text())
    record["provenance"]["command"] = "genbench run swae --prior normal,ripple --plugin ./ripple.py"
    (mine / "run.json").write_text(json.dumps(record))
    line = f"{mine.name} needs the prior 'ripple'; it was trained with --plugin ./ripple.py: name it again"

    measured = genbench("evaluate", "runs", "--metrics", "speed", *DOTS)
    assert measured.exit_code == 0
    assert f"left out: {line}" in measured.output
    (plain,) = Path("runs").glob("*normal*")
    assert "speed" in (plain / "metrics.json").read_text()
    assert "speed" not in (mine / "metrics.json").read_text()
    drawn = genbench("plot", "samples", "runs", *DOTS, "--out", "x.png")
    assert drawn.exit_code == 0
    assert line in drawn.output
    for command in (
        ("evaluate", str(mine), "--metrics", "speed", *DOTS),
        ("sample", str(mine), "--out", "y.png", *DOTS),
    ):
        refused = genbench(*command)
        assert refused.exit_code == 2
        assert line in refused.output
    assert genbench("sample", str(mine), "--out", "y.png", *DOTS, *plugin).exit_code == 0


@pytest.mark.parametrize("command", [("check", "./a.py"), ("run", "swae", "./a.py", "--plugin", "b.py", "--dry-run")])
def test_a_file_among_names_is_told_how_files_are_named(
    genbench: Callable[..., Result], command: tuple[str, ...]
) -> None:
    refused = genbench(*command)
    assert refused.exit_code == 2
    line = "./a.py is a plug-in file, not a name: give it with its own --plugin: --plugin ./a.py"
    assert refused.output.strip() == f"genbench: {line}"


def test_two_files_in_one_option_are_told_how_files_are_named(genbench: Callable[..., Result]) -> None:
    refused = genbench("check", "--plugin", "a.py,my b.py")
    assert refused.exit_code == 2
    assert "there is no such file; name each with its own --plugin: --plugin a.py --plugin 'my b.py'" in refused.output


@pytest.mark.parametrize(
    ("given", "advice"),
    [
        ((), "name it again: genbench evaluate runs --plugin ./a.py --plugin ./b.py"),
        (("--plugin", "b.py"), "name it again: genbench evaluate runs --plugin b.py --plugin ./a.py"),
        (("--plugin", "b.py", "--plugin", "a.py"), "no longer provides that: restore it, or train anew"),
    ],
)
def test_runs_that_lack_the_same_files_share_a_line_that_names_no_file_twice(
    registry: Registry,
    planned: Callable[..., Plan],
    monkeypatch: pytest.MonkeyPatch,
    given: tuple[str, ...],
    advice: str,
) -> None:
    command = "genbench run swae --plugin ./a.py --plugin ./b.py"
    recorded = SimpleNamespace(provenance={"command": command})
    monkeypatch.setattr("genbench.storage.provenance.read_file", lambda path, kind: recorded)
    monkeypatch.setattr(sys, "argv", ["genbench", "evaluate", "runs", *given])
    runs = [*planned("swae", seeds=(0, 1, 2)).runs, *planned("ae").runs]
    records = [SimpleNamespace(state="trained", run=run, path=Path("runs"), name=run.name) for run in runs]
    present = SimpleNamespace(names=lambda kind: tuple(name for name in registry.names(kind) if name != "swae"))
    usable, problems = evaluable(records, present)  # type: ignore[arg-type]
    assert [record.run for record in usable] == [runs[-1]]
    (line,) = problems
    assert line.startswith(f"{runs[0].name} and 2 more need the model 'swae'; they were trained with --plugin ./a.py ")
    assert advice in line
