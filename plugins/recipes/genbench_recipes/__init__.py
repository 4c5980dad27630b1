"""The bundled recipes: the papers' experiments as TOML files beside this one; code for one is in `gaussians`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.resources import files
from string import Template
from typing import Annotated, Literal

from genbench.api import ComponentSpec, Option, Recipe
from genbench.hookspecs import hookimpl
from genbench_recipes.gaussians import gaussians

GRIDS = {
    "swae-priors": ("SWAE: codes of MNIST take the shape of four priors in the plane", "arXiv:1804.01947"),
    "wae-celeba": ("The WAE paper's table of faces, FID and sharpness", "arXiv:1711.01558"),
    "cwae-table1": ("SWAE, WAE-MMD and CWAE on four datasets", "gmum/cwae-pytorch"),
    "rae-table1": (
        "VAE, WAE-MMD and AE: FID of reconstructions, prior, mixture, interpolations",
        "arXiv:1903.12436",
    ),
}
"""Description and source of each recipe without code."""


def text(name: str) -> str:
    """The TOML of a recipe."""
    return files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")


def _grid(name: str) -> Callable[[], Recipe]:
    def make() -> Recipe:
        return Recipe(text(name), f"{name}.toml")

    return make


def convergence(
    *, network: Annotated[Literal["mlp", "conv", "swae-mnist"], Option("encoder and decoder", reference="ours")] = "mlp"
) -> Recipe:
    """The recipe whose network is an option: the MLP is ninety times cheaper than the notebooks' convolutions."""
    return Recipe(Template(text("swae-convergence")).substitute(network=network), "swae-convergence.toml")


def faces(
    *,
    network: Annotated[
        Literal["wae-celeba", "conv"], Option("encoder and decoder", reference="arXiv:1711.01558")
    ] = "wae-celeba",
) -> Recipe:
    """The recipe whose network is an option: `wae-celeba` takes 19 GFLOP an image, hours a run without a GPU."""
    return Recipe(Template(text("swae-celeba")).substitute(network=network), "swae-celeba.toml")


@hookimpl
def genbench_recipes() -> Iterable[ComponentSpec[Recipe]]:
    """The components."""
    for name, (about, source) in GRIDS.items():
        yield ComponentSpec(name=name, description=about, factory=_grid(name), reference=source)
    about = "SWAE: faces at three latent sizes and two priors, four models"
    yield ComponentSpec(name="swae-celeba", description=about, factory=faces, reference="arXiv:1804.01947")
    about = "SWAE against WAE-GAN on a ring prior, along the training"
    yield ComponentSpec(name="swae-convergence", description=about, factory=convergence, reference="arXiv:1804.01947")
    about = "SWAE: sliced W2 of random Gaussians against the closed form; no training"
    yield ComponentSpec(name="swae-gaussians", description=about, factory=gaussians, reference="arXiv:1804.01947")
