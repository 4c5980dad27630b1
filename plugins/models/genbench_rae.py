"""The model `rae`: regularized autoencoder (Ghosh et al., arXiv:1903.12436)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp
from torch.nn.functional import normalize
from torch.nn.utils.parametrize import register_parametrization

from genbench.api import ComponentSpec, Loss, Model, ModelContext, Noise, Option, Search
from genbench.hookspecs import hookimpl
from genbench.nn import Autoencoder, adam, squared_error

_CODE = "ParthaEth/Regularized_autoencoders-RAE-, for MNIST"


class RAE(Autoencoder):
    r"""min E |x - psi(phi(x))|^2 + norm L_Z + weight L_REG, with images x, encoder phi and decoder psi.

    .. math:: L_Z = \tfrac12 E |\phi(x)|^2, \qquad L_{REG} = |\theta_\psi|^2 \;\text{(l2)}, \qquad
              L_{REG} = \tfrac12 E |\nabla_z \psi(\phi(x))|^2 \;\text{(gradient)}

    (section 3.1: L_REC + beta L_Z + lambda L_REG). l2 sums the squares of the decoder's weights without biases. The
    gradient penalty is the squared Frobenius norm of the Jacobian J of the image, estimated without bias from one
    normal draw v for each image: E |J^T v|^2. (The authors' code penalizes the gradient of the sum of the squared
    pixels instead.) spectral divides each weight of the decoder by its largest singular value, from one power
    iteration a step (arXiv:1802.05957), and has no weight. With norm = weight = 0 this is `ae`.

    L_Z is divided by the prior's mean variance, which is 1 for N(0, I): codes of a wide prior may be wide. Nothing else
    knows the prior: codes do not follow it, and samples from it are as poor as those of `ae`. The paper samples a
    mixture of 10 Gaussians fitted to the codes, `--sampler gmm`.

    Source: arXiv:1903.12436 and ParthaEth/Regularized_autoencoders-RAE-. Its weights stand before means over 1,024
    pixels and 16 coordinates: 1e-4 mean z^2 is 0.0128 times |z|^2 / 2 on our scale, 1e-7 |theta|^2 is 1e-4.
    """

    def __init__(
        self,
        context: ModelContext,
        *,
        regularizer: Annotated[
            Literal["l2", "gradient", "spectral", "none"],
            Option("decoder's weights, gradient penalty, spectral norm", reference="arXiv:1903.12436, section 3.1"),
        ] = "l2",
        norm: Annotated[
            float,
            Option(
                "beta, before the squared norm of codes / 2",
                reference=f"{_CODE}: 1e-4 of means",
                low=0,
                search=Search("log", 1e-4, 1),
            ),
        ] = 0.0128,
        weight: Annotated[
            float,
            Option(
                "lambda, before l2 or the gradient",
                reference=f"{_CODE}: l2 1e-7 of a mean",
                low=0,
                search=Search("log", 1e-6, 0.01),
            ),
        ] = 1e-4,
        rate: Annotated[
            float, Option("Adam's learning rate", reference=_CODE, above=0, search=Search("log", 1e-4, 0.01))
        ] = 5e-4,
    ) -> None:
        super().__init__(context)
        self.regularizer, self.norm, self.weight = regularizer, norm, weight
        self.optimizer = adam(rate)
        if regularizer == "spectral":
            for layer in list(self.decoder.modules()):
                if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
                    transposed = isinstance(layer, nn.modules.conv._ConvTransposeNd)
                    register_parametrization(layer, "weight", Normalized(layer.weight, int(transposed)))

    def training_step(self, x: Tensor, z: Tensor, noise: Noise) -> Iterator[Loss]:
        """One loss: summed squares + norm * L_Z + weight * L_REG."""
        code = self.encode(x)
        reconstruction = squared_error(self.logits(code), x).mean()
        size = 0.5 * code.square().sum(1).mean() / self.prior_variance
        terms = {"reconstruction": reconstruction.detach(), "code-norm": size.detach()}
        loss = reconstruction + self.norm * size
        if self.regularizer in ("l2", "gradient"):
            penalty = self.squared_weights() if self.regularizer == "l2" else self.gradient_penalty(code, noise)
            terms[self.regularizer] = penalty.detach()
            loss = loss + self.weight * penalty
        yield Loss("autoencoder", loss, terms)

    def squared_weights(self) -> Tensor:
        """|theta|^2 over the decoder's weights, `()`."""
        return torch.stack([p.square().sum() for p in self.decoder.parameters() if p.ndim > 1]).sum()

    def gradient_penalty(self, code: Tensor, noise: Noise) -> Tensor:
        """Half the mean squared Frobenius norm of the Jacobian of psi at the codes, estimated, `(n, d) -> ()`."""

        def image(z: Tensor) -> Tensor:
            # A transformed function may not change what lies outside: running statistics are changed in copies.
            buffers = {name: buffer.clone() for name, buffer in self.decoder.named_buffers()}
            logits: Tensor = functional_call(self.decoder, buffers, (z,))
            return torch.sigmoid(logits.to(z.dtype))

        decoded, pull_back, *_ = vjp(image, code)
        v = noise.normal(*decoded.shape, dtype=code.dtype).to(code.device)
        gradient: Tensor = pull_back(v)[0]
        return 0.5 * gradient.square().sum(1).mean()


class Normalized(nn.Module):
    """A weight over its largest singular value, by power iteration: one step at each use in training mode.

    torch.nn.utils.parametrizations.spectral_norm does the same and cannot be trained as an ensemble (torch 2.14).
    """

    u: Tensor

    def __init__(self, weight: Tensor, outputs: int) -> None:
        """`outputs` is the weight's dimension that counts its outputs."""
        super().__init__()
        self.outputs = outputs
        self.register_buffer("u", normalize(torch.randn(weight.shape[outputs]), dim=0))

    def forward(self, weight: Tensor) -> Tensor:
        """The normalized weight, of the same shape."""
        matrix = weight.movedim(self.outputs, 0).flatten(1)
        with torch.no_grad():
            v = normalize(matrix.T @ self.u, dim=0)
            if self.training:
                self.u.copy_(normalize(matrix @ v, dim=0))
            u = self.u.clone()  # the next use changes the buffer before this one's backward pass
        return weight / (u @ matrix @ v)


@hookimpl
def genbench_models() -> Iterable[ComponentSpec[Model]]:
    """The component."""
    yield ComponentSpec(
        name="rae",
        aliases=("regularized-autoencoder", "rae-l2", "rae-gp", "rae-sn"),
        family="Deterministic autoencoders",
        description="Regularized autoencoder, for --sampler gmm",
        factory=RAE,
        reference="arXiv:1903.12436",
    )
