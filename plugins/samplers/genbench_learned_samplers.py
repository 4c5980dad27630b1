"""Samplers that are networks, trained on the codes of training images: a normalizing flow and a second VAE."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Annotated, Any

import torch
from torch import Generator, Tensor, nn

from genbench.api import ComponentSpec, Noise, Option, Prior, Sampler
from genbench.data.seeds import generator
from genbench.errors import MetricError
from genbench.hookspecs import hookimpl

FIT_SEED = 1906
"""Seed of the networks' initialization, batches and held-out codes: the same for all runs."""

LEAST = 100
"""Codes below which nothing is trained: a tenth of them is held out, and a mean over fewer than ten says nothing."""

HELD_OUT = 10
"""One code in so many is held out."""

BATCH = 500
"""Codes in a training step."""

RATE = 2e-3
"""Adam's learning rate."""

CLIP = 5.0
"""Norm to which longer gradients are cut: a step beside the support of a spline would undo the ones before."""

PATIENCE = {"flow": 5, "two-stage": 15}
"""Epochs without a lower loss of the held-out codes, after which the training ends; those of the VAE are cheaper."""

LOG_GAMMA = -2.0
"""Start of the second VAE's log gamma: from 0 it ends, on codes of a ring, in the optimum where nothing is encoded."""

Loss = Callable[[Tensor, Generator], Tensor]
"""The loss of each code, `(n, d) -> (n,)`; random numbers come from the generator."""

EPOCHS = Option("passes over the codes within which the training ends; it ends earlier by held-out codes", low=1)
CODES = Option("training images whose codes are fitted", low=LEAST)
HIDDEN = Option("units of each hidden layer", low=1)


class Scaled:
    """Codes with mean 0 and standard deviation 1 in each coordinate; coordinates that are constant are left out.

    A density of a constant coordinate is infinite, so that a network would fit nothing but that coordinate.
    """

    def __init__(self, codes: Tensor, name: str) -> None:
        """`codes` are `(n, d)` float64; `name` is the sampler's, for its error."""
        self.mean, deviation = codes.mean(0), codes.std(0)
        # Rounding of the mean leaves a constant coordinate a deviation of some 1e-16 of its size.
        self.varying = deviation > 1e-12 * codes.abs().amax(0)
        if not self.varying.any():
            raise MetricError(f"{name}: all {len(codes):,} codes are equal: there is no density to fit")
        self.deviation = deviation[self.varying]
        scaled = (codes[:, self.varying] - self.mean[self.varying]) / self.deviation
        self.codes: Tensor = scaled.float()

    def restored(self, scaled: Tensor) -> Tensor:
        """Codes at their place and scale, `(n, varying coordinates) -> (n, d)` float32."""
        codes = self.mean.repeat(len(scaled), 1)
        codes[:, self.varying] += scaled.double() * self.deviation
        return codes.float()


def seeded_network(make: Callable[[], nn.Module]) -> nn.Module:
    """A network whose initial weights are the same at every call; torch's global random state is left as it was."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(FIT_SEED)
        return make()


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch: sums are then rounded alike on any count of cores, and such small ones gain nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@one_thread()
@torch.enable_grad()
def train(network: nn.Module, loss: Loss, codes: Tensor, epochs: int, name: str) -> None:
    """Trains a network on codes, `(n, d)`, until the held-out tenth of them is not fitted better any more.

    The weights are then those with the lowest loss of held-out codes. Raises `MetricError` where that is not finite.
    """
    draws = generator("cpu", FIT_SEED, name)
    held_out, fitted = codes[: len(codes) // HELD_OUT], codes[len(codes) // HELD_OUT :]
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    best, weights, since = math.inf, copy.deepcopy(network.state_dict()), 0
    for _ in range(epochs):
        for chosen in torch.randperm(len(fitted), generator=draws).split(BATCH):
            optimizer.zero_grad()
            loss(fitted[chosen], draws).mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
        with torch.no_grad():  # by the same draws after each epoch
            reached = float(loss(held_out, generator("cpu", FIT_SEED, name, "held-out")).mean())
        if not math.isfinite(reached):
            break
        since += 1
        if reached < best:
            best, weights, since = reached, copy.deepcopy(network.state_dict()), 0
        if since == PATIENCE[name]:
            break
    if not math.isfinite(best):
        raise MetricError(f"{name}: the training on {len(codes):,} codes diverged: its loss is not finite")
    network.load_state_dict(weights)
    network.eval()


class FlowSampler(Sampler):
    r"""A normalizing flow, trained by maximum likelihood on codes and stopped early by held-out ones.

    Coupling layers of monotonic rational-quadratic splines (arXiv:1906.04032) as zuko has them, on codes that are
    scaled to mean 0 and standard deviation 1: the loss of a code z is
    :math:`-\log N(f(z); 0, I) - \log |\det \partial f / \partial z|`, and a draw is :math:`f^{-1}(\epsilon)`.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        codes: Annotated[int, CODES] = 5_000,
        transforms: Annotated[int, Option("coupling layers", reference="zuko.flows.NSF", low=1)] = 3,
        hidden: Annotated[int, HIDDEN] = 64,
        epochs: Annotated[int, EPOCHS] = 100,
    ) -> None:
        """`prior` is not needed: the codes alone are fitted."""
        self.training_codes, self.least_codes = codes, LEAST
        self.transforms, self.hidden, self.epochs = transforms, hidden, epochs

    def fit(self, codes: Tensor) -> None:
        """Train the flow on codes, `(n, d)` float64."""
        import zuko  # half a second to import

        self.scaled = Scaled(codes, "flow")
        d, hidden = self.scaled.codes.shape[1], (self.hidden, self.hidden)
        flow: Any = seeded_network(
            lambda: zuko.flows.NSF(d, transforms=self.transforms, hidden_features=hidden, passes=min(2, d))
        )
        train(flow, lambda z, _: -flow().log_prob(z), self.scaled.codes, self.epochs, "flow")
        self.flow = flow

    @torch.no_grad()
    def sample(self, n: int, noise: Noise) -> Tensor:
        """n draws of the flow, `(n, d)` float32."""
        normal = noise.normal(n, self.scaled.codes.shape[1])
        return self.scaled.restored(self.flow().transform.inv(normal))


class SecondVAE(nn.Module):
    """A VAE of codes with as many latent as code coordinates and one standard deviation, gamma, of its decoder.

    Encoder and decoder are MLPs of three hidden layers whose input also reaches the last layer directly, as in the
    authors' code of arXiv:1903.05789.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.encoder, self.decoder = _layers(dim, hidden), _layers(dim, hidden)
        self.posterior, self.mean = nn.Linear(dim + hidden, 2 * dim), nn.Linear(dim + hidden, dim)
        self.log_gamma = nn.Parameter(torch.tensor(LOG_GAMMA))

    def decode(self, u: Tensor) -> Tensor:
        """The decoder's mean, `(n, d) -> (n, d)`."""
        decoded: Tensor = self.mean(torch.cat([u, self.decoder(u)], 1))
        return decoded

    def loss(self, z: Tensor, draws: Generator) -> Tensor:
        """KL(q(u | z), N(0, I)) - log N(z; decode(u), gamma^2 I) at a draw u of q(u | z), `(n, d) -> (n,)`, in nats."""
        mean, log_deviation = self.posterior(torch.cat([z, self.encoder(z)], 1)).chunk(2, 1)
        u = mean + log_deviation.exp() * torch.randn(z.shape, generator=draws)
        divergence = 0.5 * (mean.square() + (2.0 * log_deviation).exp() - 1.0) - log_deviation
        error = 0.5 * ((z - self.decode(u)) / self.log_gamma.exp()).square()
        nats: Tensor = (divergence + error + self.log_gamma + 0.5 * math.log(math.tau)).sum(1)
        return nats


def _layers(dim: int, hidden: int) -> nn.Sequential:
    widths = (dim, hidden, hidden, hidden)
    return nn.Sequential(*(layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())))


class TwoStageSampler(Sampler):
    r"""A second VAE, trained on codes: u ~ N(0, I), z ~ N(decode(u), gamma^2 I) (arXiv:1903.05789).

    Where the codes fill the latent space without being normal there, a VAE whose gamma is learned finds their
    distribution. Of a model with a random encoder the codes are draws of q(z | x), as the paper has it. They are scaled
    to mean 0 and standard deviation 1, because the codes of an autoencoder without a prior have any scale.
    """

    def __init__(
        self,
        prior: Prior,
        *,
        codes: Annotated[int, CODES] = 5_000,
        hidden: Annotated[int, Option("units of each of three hidden layers; 1024 in the paper's code", low=1)] = 256,
        epochs: Annotated[int, EPOCHS] = 200,
    ) -> None:
        """`prior` is not needed: the codes alone are fitted."""
        self.training_codes, self.least_codes = codes, LEAST
        self.hidden, self.epochs = hidden, epochs

    def fit(self, codes: Tensor) -> None:
        """Train the second VAE on codes, `(n, d)` float64."""
        self.scaled = Scaled(codes, "two-stage")
        dim = self.scaled.codes.shape[1]
        vae = seeded_network(lambda: SecondVAE(dim, self.hidden))
        assert isinstance(vae, SecondVAE)
        train(vae, vae.loss, self.scaled.codes, self.epochs, "two-stage")
        self.vae = vae

    @torch.no_grad()
    def sample(self, n: int, noise: Noise) -> Tensor:
        """n draws of the second VAE, `(n, d)` float32."""
        u, around = (noise.normal(n, self.scaled.codes.shape[1]) for _ in range(2))
        return self.scaled.restored(self.vae.decode(u) + self.vae.log_gamma.exp() * around)


@hookimpl
def genbench_samplers() -> Iterable[ComponentSpec[Sampler]]:
    """The flow and the second VAE."""
    yield ComponentSpec(
        name="flow",
        description="spline flow (zuko), trained on the codes of training images",
        factory=FlowSampler,
        reference="arXiv:1906.04032",
        aliases=("nsf", "normalizing-flow"),
    )
    yield ComponentSpec(
        name="two-stage",
        description="second VAE, trained on the codes of training images",
        factory=TwoStageSampler,
        reference="arXiv:1903.05789",
        aliases=("2svae", "two-stage-vae"),
    )
