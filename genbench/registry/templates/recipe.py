"""The recipe `my-recipe`: an experiment of a paper, whole. Change the cells, then the published numbers."""

from __future__ import annotations

from collections.abc import Iterable

from genbench.api import ComponentSpec, Recipe
from genbench.hookspecs import hookimpl

# TOML; unknown keys are refused. A longer one is a file beside this one: `Path(__file__).with_suffix(".toml")`.
TEXT = """
name = "my-recipe"                     # the registered name
about = "SWAE on drawn digits"
citation = "authors, title, arXiv id"
deviations = ["a specimen: the published number is invented"]   # how this differs from the paper

[protocols.paper]                      # how the published number was measured; fields of genbench.api.EvalProtocol,
split = "test"                         # those that you leave out are not compared

[[cells]]                              # a grid, as the options of `genbench run`; one table for each
name = "glyphs"
dataset = "glyphs"
models = ["swae"]
priors = ["normal"]
latent-dims = [8]
network = "mlp"
seeds = 2
images = 2560                          # or epochs
batch = 128
metrics = ["reconstruction"]
lambda = "mean over the batch of summed squares + lambda * mean sliced distance"
set = ["swae.weight=10"]

[[published]]                          # a number of the paper; one table for each
cell = "glyphs"
model = "swae"
metric = "reconstruction.pixel"        # as in the export's rows.csv
value = 0.08
margin = 0.02                          # nearer than this counts as equivalent: say why in the deviations
protocol = "paper"
source = "table 1"
"""


# Keyword-only parameters are options here too: `--set my-recipe.NAME=VALUE`. What no grid can say has
# study = "experiment" in the text, and Recipe(..., experiment=a function of (seed, budget) that yields Findings).
def my_recipe() -> Recipe:
    """The recipe; its text is read and every cell is planned before anything trains."""
    return Recipe(TEXT, "my_recipe.py")


@hookimpl
def genbench_recipes() -> Iterable[ComponentSpec[Recipe]]:
    """The recipe. `reference` is the paper that it comes from."""
    yield ComponentSpec(name="my-recipe", description="SWAE on drawn digits", factory=my_recipe, reference="")
