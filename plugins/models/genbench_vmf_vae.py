"""The model `vmf-vae`: hyperspherical variational autoencoder (Davidson et al., arXiv:1804.00891)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Annotated

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution
from torch.nn.functional import normalize, softplus

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl
from genbench.nn import LikelihoodAutoencoder, LikelihoodOption, SigmaOption, adam

PROPOSALS = 16
"""Proposals for each draw, made in advance. One is rejected with a probability below 0.35 for every kappa and d, all of
them with one below 6e-8; the first is then taken, and no probability of a draw is wrong by more than that."""

LEAST_KAPPA = 1.0
"""Added to the concentration, as in the authors' code (nicola-decao/s-vae-tf): below it q is nearly uniform."""

DEBYE_ORDER = 20
"""Order from which the uniform expansion of the Bessel functions is used: an error of some 1e-8."""

NODES = 32
"""Of the integral behind the gradient in kappa: its error is below 1e-6 of its value."""


class VMFVAE(LikelihoodAutoencoder):
    r"""min E[-log p(x | z)] + KL(vMF(mu(x), kappa(x)) | U) in nats per image, on the sphere |z| = r of the prior U.

    q(z | x) is the von Mises-Fisher law with a density proportional to exp(kappa mu . z / r) on the sphere. The prior
    must be uniform on a sphere. With the modified Bessel functions I_v,

    .. math:: KL = \kappa \frac{I_{d/2}(\kappa)}{I_{d/2-1}(\kappa)} + \log C_d(\kappa) + \log |S^{d-1}|, \qquad
              C_d(\kappa) = \frac{\kappa^{d/2-1}}{(2\pi)^{d/2} I_{d/2-1}(\kappa)}

    A draw is cos(a) mu + sin(a) v with the angle a from mu by rejection (Wood 1994, algorithm VM*) and v uniform among
    the unit vectors orthogonal to mu. The gradient in kappa is the implicit one, da/dkappa = -(dF/dkappa) / f of the
    angle's distribution function F and density f (arXiv:1805.08498): it is without bias, as the paper's is by a
    correction of the rejection sampler's gradient, and has no score-function term.

    Source: arXiv:1804.00891.
    """

    quadrature: Tensor

    def __init__(
        self,
        context: ModelContext,
        *,
        likelihood: LikelihoodOption = "bernoulli",
        sigma: SigmaOption = 0.3,
        rate: Annotated[
            float,
            Option(
                "Adam's learning rate", reference="nicola-decao/s-vae-tf", above=0, search=Search("log", 1e-4, 0.01)
            ),
        ] = 1e-3,
    ) -> None:
        radius = context.prior.sphere_radius
        if radius is None:
            raise UnsupportedError(
                f"vmf-vae encodes to a sphere and needs a prior that is uniform on it; {type(context.prior).__name__}"
                " states no sphere_radius: take the prior sphere, or a model with codes in all of R^d"
            )
        super().__init__(context, outputs=context.latent_dim + 1, likelihood=likelihood, sigma=sigma)
        self.radius = radius
        self.optimizer = adam(rate)
        self.register_buffer("quadrature", gauss_legendre(), persistent=False)  # on the device before any step

    def posterior_parameters(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The direction mu and the concentration kappa of q(z | x), `(n, c, h, w) -> (n, d), (n,)`."""
        outputs = super().encode(x)
        return normalize(outputs[:, :-1], dim=1), softplus(outputs[:, -1]) + LEAST_KAPPA

    def encode(self, x: Tensor) -> Tensor:
        """The mode of q(z | x), `(n, c, h, w) -> (n, d)`."""
        return self.radius * self.posterior_parameters(x)[0]

    def sample_codes(self, x: Tensor, noise: Noise) -> Tensor:
        """A draw from q(z | x), `(n, c, h, w) -> (n, d)`."""
        return self.radius * draw_directions(*self.posterior_parameters(x), noise, self.quadrature)

    def posterior(self, x: Tensor) -> Distribution:
        """q(z | x) for each image; its density is with respect to the area of the sphere."""
        return VonMisesFisher(*self.posterior_parameters(x), self.radius)

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: the negative evidence lower bound; the prior's draws z are not needed."""
        mu, kappa = self.posterior_parameters(x)
        code = self.radius * draw_directions(mu, kappa, noise, self.quadrature)
        reconstruction = self.negative_log_likelihood(self.logits(code), x).mean()
        divergence = kl_to_uniform(kappa, mu.shape[1]).mean()
        terms = {"reconstruction": reconstruction.detach(), "kl": divergence.detach()}
        yield Loss("autoencoder", reconstruction + divergence, terms)


class VonMisesFisher(Distribution):
    """The law with a density proportional to exp(kappa mu . z / radius) on |z| = radius, mu `(n, d)`, kappa `(n,)`."""

    arg_constraints = {}  # noqa: RUF012 (torch's base class has it as an attribute)

    def __init__(self, mu: Tensor, kappa: Tensor, radius: float) -> None:
        super().__init__(kappa.shape, mu.shape[-1:], validate_args=False)
        self.mu, self.kappa, self.radius = mu, kappa, radius

    @property
    def mean(self) -> Tensor:
        """`(n, d)`, within the sphere."""
        return self.radius * bessel(self.kappa, self.mu.shape[-1])[1][:, None] * self.mu

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density with respect to the sphere's area, in nats, `(..., d)` against `(n, d)`."""
        d = self.mu.shape[-1]
        along = (value * self.mu).sum(-1) / self.radius
        return self.kappa * along - bessel(self.kappa, d)[0] - log_area(d) - (d - 1) * math.log(self.radius)


def log_area(d: int) -> float:
    """Log of the area of the unit sphere in R^d."""
    return math.log(2.0) + 0.5 * d * math.log(math.pi) - math.lgamma(0.5 * d)


def kl_to_uniform(kappa: Tensor, d: int) -> Tensor:
    """KL(vMF(mu, kappa) | uniform on the sphere in R^d) in nats, `(n,) -> (n,)`; from 0 at kappa = 0.

    In float64 within, since two numbers of the size of kappa cancel.
    """
    log_normalizer, ratio = bessel(kappa.double(), d)
    return (kappa.double() * ratio - log_normalizer).to(kappa.dtype)


def bessel(kappa: Tensor, d: int) -> tuple[Tensor, Tensor]:
    r"""log E exp(kappa u) and its derivative, u a coordinate of a uniform point of the unit sphere in R^d; `(n,)` each.

    .. math:: E e^{\kappa u} = \Gamma(v + 1) (2 / \kappa)^v I_v(\kappa), \qquad v = d / 2 - 1

    and the derivative is I_{v+1} / I_v. Orders above `DEBYE_ORDER` by Debye's uniform expansion; from there down by the
    recurrence I_{v-1} = I_{v+1} + (2 v / kappa) I_v, written for s_v = (2 v / kappa) I_v / I_{v-1} in (0, 1], which is
    stable in this direction and smooth at kappa = 0.
    """
    v = 0.5 * d - 1.0
    steps = max(0, math.ceil(DEBYE_ORDER - v))
    orders = v + torch.arange(steps + 2, dtype=kappa.dtype, device=kappa.device)[:, None]
    log_value, log_next = _debye(orders[-2:], kappa)
    s = (log_next - log_value).exp()
    if steps:
        unit, quarters = torch.ones_like(kappa), 0.25 * kappa.square() / (orders * (orders + 1.0))[1:-1]
        factors = [s := torch.addcmul(unit, quarter, s).reciprocal() for quarter in quarters.flip(0).unbind()]
        log_value = log_value - torch.stack(factors).log().sum(0)
    return log_value, kappa / d * s


def _debye(v: Tensor, kappa: Tensor) -> Tensor:
    """log of Gamma(v + 1) (2 / kappa)^v I_v(kappa) for large v, 0 at kappa = 0 (DLMF 10.41.3, four terms)."""
    square = (kappa / v).square()
    root = (1.0 + square).sqrt()
    rise = square / (root + 1.0)  # root - 1, without cancellation
    series = _debye_series(v, 1.0 / root) / _debye_series(v, torch.ones_like(root))
    return v * (rise - torch.log1p(0.5 * rise)) - 0.5 * root.log() + series.log()


def _debye_series(v: Tensor, p: Tensor) -> Tensor:
    """1 + u_1(p) / v + ... + u_4(p) / v^4 (DLMF 10.41.10; Abramowitz and Stegun 9.3.9)."""
    q = p.square()
    u1 = p * (3.0 - 5.0 * q) / 24.0
    u2 = q * (81.0 + q * (-462.0 + 385.0 * q)) / 1152.0
    u3 = p * q * (30375.0 + q * (-369603.0 + q * (765765.0 - 425425.0 * q))) / 414720.0
    u4 = 4465125.0 + q * (-94121676.0 + q * (349922430.0 + q * (-446185740.0 + 185910725.0 * q)))
    u4 = q.square() * u4 / 39813120.0
    return 1.0 + (u1 + (u2 + (u3 + u4 / v) / v) / v) / v


def gauss_legendre() -> Tensor:
    """Nodes and weights on [0, 1], `(2, 32)` float64."""
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return torch.from_numpy(np.stack([0.5 * (nodes + 1.0), 0.5 * weights]))


def draw_directions(mu: Tensor, kappa: Tensor, noise: Noise, quadrature: Tensor) -> Tensor:
    """One draw of each vMF(mu, kappa) on the unit sphere, differentiable in both, `(n, d), (n,) -> (n, d)`."""
    n, d = mu.shape
    with torch.no_grad():
        angle = draw_angles(kappa, d, noise)
        slope = angle_slope(angle, kappa, d, quadrature.to(kappa.dtype))
    angle = angle + slope * (kappa - kappa.detach())  # the angle itself, with the gradient `slope`
    free = noise.normal(n, d, dtype=mu.dtype).to(mu.device)
    tangent = normalize(free - (free * mu).sum(1, keepdim=True) * mu, dim=1)
    return angle.cos()[:, None] * mu + angle.sin()[:, None] * tangent


def draw_angles(kappa: Tensor, d: int, noise: Noise) -> Tensor:
    """Angles between mu and draws, with a density proportional to exp(kappa cos a) sin(a)^(d-2), `(n,) -> (n,)`.

    Wood's proposals: the angle t of a uniform direction, moved towards mu by tan(a / 2) = sqrt(b) tan(t / 2).
    """
    b = (d - 1) / (2.0 * kappa + (4.0 * kappa.square() + (d - 1) ** 2).sqrt())
    uniform = noise.normal(PROPOSALS, len(kappa), d, dtype=kappa.dtype).to(kappa.device)
    along, across = uniform[..., 0], torch.linalg.vector_norm(uniform[..., 1:], dim=-1)
    # The squared tangent of t / 2 by the half-angle formula without cancellation; infinite at t = pi.
    length = (along.square() + across.square()).sqrt()
    squared = b * torch.where(along > 0, (across / (length + along)).square(), ((length - along) / across).square())
    bulge = 2.0 / (1.0 + 1.0 / squared)  # 1 - cos a
    best = 2.0 * b / (1.0 + b)  # where the ratio of the densities is largest

    def log_scale(values: Tensor) -> Tensor:
        return (2.0 * b + (1.0 - b) * values).log()

    log_ratio = kappa * (best - bulge) + (d - 1) * (log_scale(bulge) - log_scale(best))
    chance = noise.uniform(PROPOSALS, len(kappa), dtype=kappa.dtype).to(kappa.device)
    first = (chance.log() <= log_ratio).long().argmax(0, keepdim=True)  # 0 where none is accepted
    return 2.0 * squared.gather(0, first)[0].sqrt().atan()


def angle_slope(angle: Tensor, kappa: Tensor, d: int, quadrature: Tensor) -> Tensor:
    r"""da/dkappa at a fixed value of the angle's distribution function, `(n,), (n,) -> (n,)`.

    .. math:: -\int_0^a (\cos t - A) \, e^{\kappa (\cos t - \cos a)} \Big(\frac{\sin t}{\sin a}\Big)^{d-2} dt

    with A = E cos a. It is integrated from the side on which cos t - A keeps its sign, over the six standard deviations
    in which the integrand falls.
    """
    ratio = bessel(kappa.double(), d)[1].to(kappa.dtype)
    reach = 6.0 * kappa.clamp(min=max(1.0, d - 2.0)).rsqrt()
    start = torch.where(angle.cos() > ratio, (angle - reach).clamp(min=0.0), (angle + reach).clamp(max=math.pi))
    nodes, weights = quadrature
    t = start[:, None] + (angle - start)[:, None] * nodes
    a, tiny = angle[:, None], torch.finfo(angle.dtype).tiny
    rise = 2.0 * torch.sin(0.5 * (a + t)) * torch.sin(0.5 * (a - t))  # cos t - cos a
    log_sines = t.sin().clamp(min=tiny).log() - a.sin().clamp(min=tiny).log()
    density = torch.exp(kappa[:, None] * rise + (d - 2) * log_sines)
    slope: Tensor = (start - angle) * (((t.cos() - ratio[:, None]) * density) @ weights)
    return slope


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="vmf-vae",
        aliases=("hyperspherical-vae", "s-vae", "svae", "von-mises-fisher"),
        family="Variational autoencoders",
        description="Hyperspherical VAE, von Mises-Fisher encoder",
        factory=VMFVAE,
        reference="arXiv:1804.00891",
    )
