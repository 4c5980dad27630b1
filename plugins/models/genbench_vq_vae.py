"""The model `vq-vae`: vector-quantized autoencoder (van den Oord et al., arXiv:1711.00937)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Prior, Search
from genbench.distances import squared_distances
from genbench.errors import UnsupportedError
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, require_unset_prior, squared_error

_PAPER = "arXiv:1711.00937"
COUNT_DECAY = 0.99
"""Decay of the counts at each step: the prior is that of the last hundred batches or so."""


LEAST_WEIGHT = 1e-5
"""Moving count below which a vector stays where it is: 0 / 0 would move one that no output is nearest to."""


class Codebook(Prior):
    """K vectors in R^D, and how often each of P positions of a code uses each of them: the model's learned prior.

    A draw picks a vector for each position, independently, with the frequencies of the training, and joins them to
    d = P D numbers. It is discrete and has no density. The paper fits an autoregressive network over the indices after
    the training; this is the simplest law that is fitted, and knows nothing of how positions depend on each other.
    """

    vectors: Tensor
    weights: Tensor
    sums: Tensor
    counts: Tensor

    def __init__(self, latent_dim: int, size: int, entries: int) -> None:
        super().__init__()
        self.latent_dim, self.size, self.entries = latent_dim, size, entries
        self.vectors = nn.Parameter(torch.randn(entries, size))
        self.register_buffer("counts", torch.full((latent_dim // size, entries), 1.0 / entries))

    def nearest(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest vectors (equation 1), joined, and their indices: `(n, d) -> (n, d), (n, P)`."""
        parts = z.reshape(-1, self.size)
        indices = squared_distances(parts.detach(), self.vectors.detach()).argmin(1)
        return self.vectors[indices].reshape(z.shape), indices.view(len(z), -1)

    def used(self, indices: Tensor, dtype: torch.dtype) -> Tensor:
        """1 where a position has an entry, else 0, `(n, P) -> (n, P, K)`."""
        return (indices[:, :, None] == torch.arange(self.entries, device=indices.device)).to(dtype)

    def sample(self, n: int, noise: Noise) -> Tensor:
        """n draws, `(n, d)`: an entry for each position by its frequency."""
        steps = self.counts.cumsum(1)
        level = noise.uniform(n, len(steps)).to(steps) * steps[:, -1]
        indices = torch.searchsorted(steps, level.T.contiguous(), right=True).clamp(max=self.entries - 1)
        return self.vectors[indices.T].reshape(n, -1)

    @property
    def mean(self) -> Tensor:
        """The weighted mean of the vectors at each position, `(d,)`, on the CPU."""
        return (self.frequencies @ self.vectors.detach()).flatten().cpu()

    @property
    def variance(self) -> Tensor:
        """The weighted variance of the vectors at each position, `(d,)`, on the CPU."""
        gaps = self.vectors.detach() - (self.frequencies @ self.vectors.detach())[:, None]  # (P, K, D)
        return (self.frequencies[:, :, None] * gaps.square()).sum(1).flatten().cpu()

    @property
    def frequencies(self) -> Tensor:
        """The probability of each entry at each position, `(P, K)`."""
        return self.counts / self.counts.sum(1, keepdim=True)


class VQVAE(Autoencoder):
    r"""min E |x - psi(z_q)|^2 + |sg[z_e] - z_q|^2 + commitment |z_e - sg[z_q]|^2, with images x and decoder psi.

    Equation 3, with a Gaussian likelihood of variance 1/2 and sg the stop of gradients: z_e = phi(x) is the encoder's
    output, and z_q has its P groups of `size` numbers replaced by the nearest of K shared vectors (equations 1 and 2).
    The gradient of the first term passes from z_q to z_e as if they were equal. With `codebook=ema` the second term is
    left out, and each vector is moved to the mean of the outputs that it is nearest to (appendix A.1).

    `encode` returns z_q, a point of R^d with d = P size, so that codes are vectors as those of other models. The law of
    a uniform or normal prior has no meaning for them: `prior` is the fitted `Codebook`, samples are decoded from it,
    and latent fit compares codes with it. A `--prior` other than N(0, I) would not be used and is refused.

    Source: arXiv:1711.00937; its images are coded on grids of 32 x 32 positions by a convolutional encoder.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        entries: Annotated[int, Option("K, the vectors of the codebook", reference=_PAPER, low=2)] = 512,
        size: Annotated[
            int | None,
            Option("D, numbers of a vector; default 2, or 1 for an odd latent dimension", reference="ours", low=1),
        ] = None,
        commitment: Annotated[
            float,
            Option(
                "beta, before the commitment loss",
                reference=f"{_PAPER}, section 3.2",
                low=0,
                search=Search("log", 0.025, 2.5),
            ),
        ] = 0.25,
        codebook: Annotated[
            Literal["loss", "ema"], Option("gradient descent, or moving means", reference=f"{_PAPER}, equation 3")
        ] = "loss",
        decay: Annotated[
            float, Option("gamma of the moving means", reference=f"{_PAPER}, appendix A.1", low=0, high=1)
        ] = 0.99,
        rate: Annotated[
            float,
            Option(
                "Adam's learning rate",
                reference=f"ours: that of ae; {_PAPER}: 2e-4",
                above=0,
                search=Search("log", 1e-4, 0.01),
            ),
        ] = 1e-3,
    ) -> None:
        require_unset_prior("vq-vae", context.prior, "take another model for this one")
        size = (1 if context.latent_dim % 2 else 2) if size is None else size
        if context.latent_dim % size:
            fitting = [str(k) for k in range(1, context.latent_dim + 1) if context.latent_dim % k == 0]
            raise UnsupportedError(
                f"vq-vae joins vectors of {size} numbers to a code, and the latent dimension {context.latent_dim} is no"
                f" multiple of that: set vq-vae.size to {' or '.join(fitting)}, or take another --latent-dim"
            )
        super().__init__(context)
        self.codebook = Codebook(context.latent_dim, size, entries)
        self.commitment, self.decay = commitment, decay
        self.moving = codebook == "ema"
        self.optimizer = adam(rate)
        if self.moving:
            # A buffer in place of a parameter, and the moving sums of equations 6 to 8.
            vectors = self.codebook.vectors.detach()
            del self.codebook.vectors
            self.codebook.register_buffer("vectors", vectors)
            self.codebook.register_buffer("weights", torch.ones(entries))
            self.codebook.register_buffer("sums", vectors.clone())

    @property
    def prior(self) -> Prior:
        """The codebook with the frequencies of its entries."""
        return self.codebook

    def encode(self, x: Tensor) -> Tensor:
        """z_q: the encoder's output with each group replaced by the nearest vector, `(n, c, h, w) -> (n, d)`."""
        return self.codebook.nearest(super().encode(x))[0]

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: summed squares + codebook loss + commitment * commitment loss; then the counts."""
        output = super().encode(x)
        code, indices = self.codebook.nearest(output)
        reconstruction = squared_error(self.logits(straight_through(output, code)), x).mean()
        apart = (output - code.detach()).square().sum(1).mean()
        moved = (output.detach() - code).square().sum(1).mean()
        terms = {"reconstruction": reconstruction.detach(), "commitment": apart.detach()}
        loss = reconstruction + self.commitment * apart
        yield Loss("autoencoder", loss if self.moving else loss + moved, terms)

        with torch.no_grad():
            used = self.codebook.used(indices, output.dtype)
            move(self.codebook.counts, used.mean(0), 1.0 - COUNT_DECAY)
            if self.moving:
                self.move_vectors(used.flatten(0, 1), output.detach().reshape(-1, self.codebook.size))

    def move_vectors(self, used: Tensor, parts: Tensor) -> None:
        """Equations 6 to 8: N <- decay N + (1 - decay) n, m <- decay m + (1 - decay) sum, vector <- m / N."""
        book, new = self.codebook, 1.0 - self.decay
        move(book.weights, used.sum(0), new)
        move(book.sums, used.T @ parts, new)
        counted = (book.weights >= LEAST_WEIGHT)[:, None]
        book.vectors.copy_(torch.where(counted, book.sums / book.weights[:, None], book.vectors))


def move(mean: Tensor, new: Tensor, share: float) -> None:
    """Move a moving mean in place: torch has `lerp_` under vmap for one member after another only."""
    mean.copy_(mean.lerp(new, share))


def straight_through(output: Tensor, code: Tensor) -> Tensor:
    """The value of `code` with the gradient of `output`, both `(n, d)`."""
    return output + (code - output).detach()


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="vq-vae",
        aliases=("vqvae", "vq", "vector-quantized"),
        family="Discrete codes",
        description="Vector-quantized autoencoder, categorical prior",
        factory=VQVAE,
        reference=_PAPER,
    )
