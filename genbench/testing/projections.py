"""The checks of models with an option `projections`: a sliced distance is a mean over directions of length one."""

from __future__ import annotations

from genbench.api import ModelContext
from genbench.registry.options import specs
from genbench.testing.controlled_network import ControlledNetwork, images
from genbench.testing.fixtures import LATENT, SHAPE, Gauss, fresh, losses, model_context
from genbench.testing.models import Models, draws
from genbench.testing.objectives import AWAY, batches
from genbench.testing.results import ConformanceCheck, Failed, Reported, Skipped, expect


def default_count(subject: Models) -> int:
    """The default of the option, or `Skipped`."""
    spec = specs(subject.factory.spec.factory).get("projections")
    if spec is None or not isinstance(spec.default, int):
        raise Skipped("there is no option `projections`")
    return spec.default


def projections_are_averaged(subject: Models) -> str:
    """Where there is an option `projections`, twice as many leave the size of the loss alone, within 30 %."""
    sizes, few = [], default_count(subject)
    for count in (few, 2 * few):
        network = ControlledNetwork(SHAPE, LATENT)
        model = fresh(subject.factory, model_context(network=network), projections=count)
        network.offset.value = AWAY
        totals = [
            sum(float(loss) for loss in losses(model, x, z, k).values()) for k, (x, z) in enumerate(batches(64, 20))
        ]
        sizes.append(sum(totals) / len(totals))
    text = f"loss {sizes[0]:.4g} with {few} directions, {sizes[1]:.4g} with {2 * few}"
    expect(abs(sizes[1] - sizes[0]) <= 0.3 * abs(sizes[0]), text)
    return text


def directions_have_unit_length(subject: Models) -> str:
    """On a line, where a unit direction is 1 or -1, drawing other directions does not rescale the penalty.

    The penalty of codes shifted by t and by 2 t, each less that of codes in place, under two generators: directions
    that are not normalised multiply both differences by one factor, the mean of |theta|^p. Nonlinear slices, which do
    depend on the draw there, change the two by different factors; that is reported and is no fault.
    """
    default_count(subject)
    network = ControlledNetwork(SHAPE, 1)
    model = fresh(subject.factory, ModelContext(SHAPE, 1, Gauss(1), network))
    x, z = images(draws(64, 3)[:, :1], SHAPE), draws(64, 4)[:, :1]
    gaps = []
    for seed in (1, 2):
        totals = []
        for offset in (0.0, AWAY, 2.0 * AWAY):
            network.offset.value = offset
            totals.append(sum(float(loss) for loss in losses(model, x, z, seed).values()))
        gaps.append((totals[1] - totals[0], totals[2] - totals[0]))
    (near_first, far_first), (near_second, far_second) = gaps
    if not near_first or not far_first:
        raise Skipped("the loss does not depend on the codes")
    near, far = near_second / near_first, far_second / far_first
    if abs(near - 1.0) <= 1e-3 and abs(far - 1.0) <= 1e-3:
        return "the same under another generator"
    if abs(near - far) <= 1e-3 * abs(near):
        raise Failed(f"other directions multiply the penalty by {near:.4g}, on a line where all have length one")
    raise Reported(f"other projections multiply the penalty by {near:.4g} or {far:.4g}: it is no linear slice")


CHECKS: tuple[ConformanceCheck[Models], ...] = (
    ConformanceCheck(projections_are_averaged, "take the mean over directions"),
    ConformanceCheck(
        directions_have_unit_length, "use genbench.distances.random_projections, or divide each direction by its norm"
    ),
)
