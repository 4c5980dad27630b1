"""`genbench check` and the kit itself: what is printed, the exit status, the suite, what is right though unusual."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from click.testing import Result as Ran
from torch import Tensor

import genbench.evaluation.evaluation
import genbench.features.extractor
import genbench.registry.scaffold
from genbench.api import ComponentSpec, Evaluation, Measurement, Metric, Noise, Prior
from genbench.cli.plugins import run_checks
from genbench.errors import UsageError
from genbench.registry.loader import load
from genbench.registry.options import complete
from genbench.testing import check, describe, suite
from genbench.testing.checks import CHECKED, PUBLIC, check_imports, check_names, deeper
from genbench.testing.metrics import build as build_metric
from genbench.testing.metrics import contrast_is_seen, finite_measurements, smaller_batches
from genbench.testing.priors import CHECKS, build
from genbench.testing.results import BoundFactory, ConformanceCheck, Failed, Reported, Skipped, check_subject

ZOO = Path(__file__).parents[1] / "zoo"
PRIORS = ("--plugin", str(ZOO / "priors.py"))


class Cauchy(Prior):
    """Independent Cauchy coordinates: right, and without a variance."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def sample(self, n: int, noise: Noise) -> Tensor:
        return noise.normal(n, self.latent_dim) / noise.normal(n, self.latent_dim)

    def log_prob(self, z: Tensor) -> Tensor:
        return -(math.log(math.pi) + torch.log1p(z.square())).sum(1)


class TooHeavy(Cauchy):
    """A normal density for Cauchy draws."""

    def log_prob(self, z: Tensor) -> Tensor:
        return (-0.5 * z.square() - 0.5 * math.log(math.tau)).sum(1)


def verdicts_of(kind: type[Prior]) -> dict[str, str]:
    spec = ComponentSpec(name="mine", description="", factory=kind)
    subject = build(BoundFactory(spec, complete("mine", kind, {})))
    return {result.check: result.status for result in check_subject("prior", "mine", CHECKS, subject)}


def test_a_law_with_a_heavy_tail_that_is_right_fails_nothing() -> None:
    verdicts = verdicts_of(Cauchy)
    assert "fails" not in verdicts.values()
    assert {name for name, verdict in verdicts.items() if verdict == "skipped"} == {
        "first_two_moments",
        "pairwise_scale",
        "learning_is_kept",  # it has no parameters
        "learned_by_its_density",
    }
    assert verdicts["log_prob_integrates_to_one"] == "holds"


def test_a_light_density_for_heavy_draws_fails() -> None:
    assert verdicts_of(TooHeavy)["log_prob_agrees_with_draws"] == "fails"


class MeanImages(Metric):
    """The distance of mean images; `scale` 255 takes samples for floats beside references in [0, 1]."""

    scale, role = 1.0, "sample quality"

    def measure(self, e: Evaluation) -> Iterable[Measurement]:
        n = len(e.references)
        references = e.held_out(n).double().mean(0) / self.scale
        apart, perfect = (
            float((images.double().mean(0) - references).abs().mean())
            for images in (e.samples(n), e.training_images(n))
        )
        protocol = e.protocol(method="mean images", references=n, generated=n, values="uint8")
        yield Measurement(
            value=apart,
            unit="levels",
            higher_is_better=False,
            n=n,
            protocol=protocol,
            floor=perfect,
            role=self.role,  # type: ignore[arg-type]
        )


class TwoScales(MeanImages):
    scale = 255.0


class Misnamed(MeanImages):
    role = "quality"


def test_samples_and_references_on_two_scales_fail_though_a_floor_is_stated() -> None:
    right, wrong = (
        build_metric(BoundFactory(ComponentSpec(name="mine", description="", factory=kind), {}))
        for kind in (MeanImages, TwoScales)
    )
    contrast_is_seen(right)
    with pytest.raises(Failed, match="which is better"):
        contrast_is_seen(wrong)


def test_a_measurement_that_cannot_be_stored_fails() -> None:
    subject = build_metric(BoundFactory(ComponentSpec(name="mine", description="", factory=Misnamed), {}))
    with pytest.raises(Failed, match="the role is 'quality'"):
        finite_measurements(subject)


def test_the_table_says_what_to_do_and_the_exit_status_is_one(genbench: Callable[..., Ran]) -> None:
    done = genbench("check", *PRIORS, "global-prior")
    assert done.exit_code == 1
    assert "fails    determined_by_noise" in done.output
    assert "to do: draw with noise.normal" in done.output
    assert done.output.rstrip().endswith("0 reported")
    assert "checking" not in done.output + done.stderr  # the line on what is being checked is for a terminal


def test_a_terminal_shows_the_component_being_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    results = list(run_checks(load(), ("held-out",), ()))
    assert len(results) == len(check_names("control"))
    assert "checking 1 of 1: control held-out" in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_json_holds_every_result_and_the_exit_status_is_zero(genbench: Callable[..., Ran]) -> None:
    done = genbench("check", "disk", "--format", "json")
    assert done.exit_code == 0
    rows = json.loads(done.stdout)
    assert [row["check"] for row in rows] == list(check_names("prior"))
    assert {row["status"] for row in rows} == {"holds", "skipped"}
    assert {row["check"] for row in rows if row["status"] == "skipped"} == {
        "learning_is_kept",
        "learned_by_its_density",
    }
    assert set(rows[0]) == {"kind", "name", "check", "status", "detail", "advice"}


def test_a_misspelt_name_gets_the_nearest_as_a_suggestion(genbench: Callable[..., Ran]) -> None:
    done = genbench("check", "dsik")
    assert done.exit_code == 2
    assert "there is no plug-in 'dsik'" in done.output
    assert "disk" in done.output
    with pytest.raises(UsageError, match="disk"):
        list(check("dsik"))


def test_every_kind_has_checks_that_say_what_they_assert_and_what_to_do() -> None:
    assert set(CHECKED) == set(load().registrations)
    for kind in CHECKED:
        assert all(describe(kind).values())
        assert len(set(check_names(kind))) == len(check_names(kind))


def cases(test: Callable[..., None]) -> dict[str, tuple[str, str, str]]:
    (mark,) = test.pytestmark  # type: ignore[attr-defined]
    return {case.id: case.values for case in mark.args[1]}


def test_the_suite_has_a_case_for_each_check() -> None:
    test = suite("global-prior", plugins=[ZOO / "priors.py"])
    assert list(cases(test)) == [f"prior-global-prior-{name}" for name in check_names("prior")]
    with pytest.raises(AssertionError, match="prior-global-prior-determined_by_noise"):
        test("prior", "global-prior", "determined_by_noise")
    test("prior", "global-prior", "support")
    with pytest.raises(UsageError, match="global-pior"):
        suite("global-pior", plugins=[ZOO / "priors.py"])


def test_a_skipped_check_skips_its_case() -> None:
    with pytest.raises(pytest.skip.Exception, match="no density"):
        suite("sphere")("prior", "sphere", "log_prob_integrates_to_one")


@pytest.mark.parametrize(
    ("source", "modules"),
    [
        ("from genbench.api import Prior\nfrom genbench.data.images import with_content", []),
        ("from genbench.training.loop import train", ["genbench.training.loop"]),
        ("import genbench.storage.run_dir", ["genbench.storage.run_dir"]),
        ("from genbench import api, experiment", ["genbench.experiment"]),
        ("def f():\n    from genbench.experiment.plan import plan", ["genbench.experiment.plan"]),
        ("from genbench_mlp import MLP\nfrom .genbench import store", []),
    ],
)
def test_imports_below_the_public_surface_are_reported(source: str, modules: list[str], tmp_path: Path) -> None:
    assert deeper(source) == modules
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert check_imports(path, "mine").status == ("reported" if modules else "holds")


def test_the_public_surface_is_the_one_that_the_contract_names() -> None:
    import genbench.api

    assert f"genbench.{{{', '.join(PUBLIC)}}}" in (genbench.api.__doc__ or "")


@pytest.mark.parametrize(
    "template", sorted((Path(genbench.registry.scaffold.__file__).parent / "templates").glob("*.py"))
)
def test_the_templates_keep_to_the_public_surface(template: Path) -> None:
    assert deeper(template.read_text()) == []


PLUGINS = Path(__file__).parents[2] / "plugins"


@pytest.mark.parametrize("kind", ["models", "priors", "networks"])
def test_bundled_plugins_import_what_anyone_may_import(kind: str) -> None:
    assert {path.name: deeper(path.read_text()) for path in (PLUGINS / kind).glob("*.py")} == {
        path.name: [] for path in (PLUGINS / kind).glob("*.py")
    }


def test_a_verdict_for_each_way_to_end_and_global_state_is_put_back() -> None:
    def ends(error: Exception | None) -> ConformanceCheck[None]:
        def run(_: None) -> str:
            torch.rand(1)
            if error:
                raise error
            return "fine"

        return ConformanceCheck(run, "do this")

    before = torch.get_rng_state()
    outcomes: Iterable[Exception | None] = (None, Failed("a"), Skipped("b"), Reported("c"), ZeroDivisionError("d"))
    results = list(check_subject("prior", "x", [ends(error) for error in outcomes], None))
    assert [result.status for result in results] == ["holds", "fails", "skipped", "reported", "fails"]
    assert [result.advice for result in results] == ["", "do this", "", "", "do this"]
    assert results[-1].detail == "ZeroDivisionError: d"
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_are_put_back_whatever_happens() -> None:
    def fail_within() -> None:
        with smaller_batches():
            assert before != (genbench.evaluation.evaluation.BATCH, genbench.features.extractor.BATCH)
            raise ZeroDivisionError

    before = genbench.evaluation.evaluation.BATCH, genbench.features.extractor.BATCH
    with pytest.raises(ZeroDivisionError):
        fail_within()
    assert before == (genbench.evaluation.evaluation.BATCH, genbench.features.extractor.BATCH)
