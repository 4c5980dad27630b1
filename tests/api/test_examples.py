"""The examples in the docstrings of the public modules run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import genbench.api
import genbench.distances
import genbench.nn

MODULES = [
    "genbench.data.images",
    "genbench.errors",
    *(
        f"{package.__name__}.{module.name}"
        for package in (genbench.api, genbench.distances, genbench.nn)
        for module in pkgutil.iter_modules(package.__path__)
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), raise_on_error=False).failed == 0


def test_most_functions_of_the_distances_have_an_example() -> None:
    without = [
        name for name in genbench.distances.__all__ if ">>>" not in (getattr(genbench.distances, name).__doc__ or "")
    ]
    assert set(without) <= {"WAE_SCALES", "Kernel", "exact_transport", "transport_start"}
