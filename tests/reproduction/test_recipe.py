"""Recipes as text: every bundled one passes the kit, and errors name the file and the key."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from torch import Generator

from genbench.errors import UsageError
from genbench.registry.loader import load
from genbench.reproduction.plan import read_recipe
from genbench.reproduction.recipe import parse
from genbench_coverage import covered, evenness
from genbench_recipes.gaussians import closed_form, findings, repeat
from support.studies import RECIPE_TEXT


def test_a_good_text_is_read() -> None:
    recipe = parse(RECIPE_TEXT, "r.toml")
    assert recipe.cells[0].models == ("swae", "ae")
    assert recipe.published[0].protocol == {"layer": "2048"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "r"', 'nom = "r"', "r.toml: there is no key 'nom': did you mean 'name'?"),
        ('name = "r"', "name = 3", "r.toml: key 'name': 3 is not a text"),
        ('about = "a"', "", "r.toml: the key 'about' is missing"),
        ("seeds = 2", "seeds = true", "r.toml: cells[0]: key 'seeds': True is not a whole number"),
        ("seeds = 2", "seed = 2", "did you mean 'seeds'?"),
        ("images = 64", "images = 64\nepochs = 2", "give one of 'epochs' and 'images'"),
        ('lambda = "as it is"', "", "cells[0]: the key 'lambda' is missing"),
        ("batch = 16", "batch = 1", "cells[0]: key 'batch': 1 is not a whole number from 2"),
        ("margin = 0.5", "margin = 0", "published[0]: key 'margin': 0 is not a number above 0"),
        ("margin = 0.5", "", "published[0]: the key 'margin' is missing"),
        ("value = 1", "value = nan", "published[0]: key 'value'"),
        ('source = "s"', "", "published[0]: the key 'source' is missing"),
        ('model = "swae"', "", "published[0]: the key 'model' is missing"),
        ('model = "swae"', 'model = "vae"', "'vae' is not in the cell 'one'"),
        ('protocol = "p"', 'protocol = "q"', "there is no protocol 'q'"),
        ('layer = "2048"', 'layr = "2048"', "[protocols.p]: there is no key 'layr': did you mean 'layer'?"),
        ('cell = "one"', 'cell = "two"', "there is no cell 'two'"),
        ('metric = "reconstruction.pixel"', 'metric = "fid"', "the cell 'one' measures reconstruction"),
        ('name = "r"', "name = ", "r.toml: no TOML"),
    ],
)
def test_errors_name_the_file_and_the_key(old: str, new: str, message: str) -> None:
    assert old in RECIPE_TEXT
    with pytest.raises(UsageError) as error:
        parse(RECIPE_TEXT.replace(old, new, 1), "r.toml")
    assert message in str(error.value)
    assert "r.toml" in str(error.value)


def test_a_text_that_cannot_be_read_fails_the_check(genbench: Callable[..., Result]) -> None:
    """It is the author's fault, not an option that lacks a default: skipped, it would pass."""
    assert genbench("new", "recipe", "mine").exit_code == 0
    assert genbench("check", "--plugin", "mine.py").exit_code == 0
    Path("mine.py").write_text(Path("mine.py").read_text().replace("seeds = 2", "sedes = 2"))
    result = genbench("check", "--plugin", "mine.py")
    assert (result.exit_code, "did you mean 'seeds'" in result.output) == (1, True), result.output


def test_every_bundled_recipe_is_read_and_states_its_deviations() -> None:
    registry = load()
    assert len(registry.registrations["recipe"]) >= 7
    for name in registry.registrations["recipe"]:
        _, recipe = read_recipe(name, registry)
        assert recipe.deviations, name


def test_the_factor_of_random_gaussians_tends_to_the_root_of_three_halves() -> None:
    """Of sqrt(d) SW2 and W2: 1.22 in the paper; singular values of two Gaussian matrices have the mean 3/4."""
    exact, scaled = zip(*(repeat(256, 1000, Generator().manual_seed(i)) for i in range(6)), strict=True)
    assert sum(exact) / sum(values[-1] for values in scaled) == pytest.approx(math.sqrt(1.5), abs=0.03)


def test_the_closed_form_is_that_of_two_gaussians() -> None:
    """One law at two places is as far apart as the places; N(0, a^2) and N(0, b^2) on a line are |a - b| apart."""
    m, a = torch.tensor([3.0, 4.0]), torch.tensor([[2.0, 1.0], [0.0, 1.0]])
    assert closed_form(m, a, a) == pytest.approx(5.0, rel=1e-5)
    assert closed_form(torch.zeros(1), torch.tensor([[2.0]]), torch.tensor([[-5.0]])) == pytest.approx(3.0, rel=1e-5)


def test_the_spread_of_the_sliced_distance_falls_with_directions() -> None:
    variances = {f.case: f.value for f in findings(0, 1.0, 30, 50, 5) if f.metric.startswith("variance")}
    assert variances["d = 32, L = 1000"] < 0.2 * variances["d = 32, L = 1"]


def test_coverage_sees_an_empty_arc() -> None:
    turns = torch.linspace(0, 1, 7201)[:-1] * math.tau
    ring = torch.stack([turns.cos(), turns.sin()], 1)
    assert covered(ring, 36) == 1.0
    assert evenness(ring, 36) == pytest.approx(1.0, abs=1e-6)
    assert covered(ring[: len(ring) // 4], 36) == pytest.approx(0.25)
    assert evenness(ring[: len(ring) // 4], 36) == pytest.approx(math.log(9) / math.log(36), abs=1e-6)
    assert covered(ring * torch.rand(7200, 1, generator=Generator().manual_seed(0)), 36) == 1.0
