"""Parameters and training speed of each network on one thread: `python tests/benchmarks/network_speed.py resnet conv`.

Images per second of processor time over four steps of 64 images: encoder, decoder, cross entropy, backward, Adam; 16
latent dimensions. The numbers in the networks' docstrings are from here.
"""

from __future__ import annotations

import sys
import time

import torch

from genbench.errors import UnsupportedError
from genbench.nn import cross_entropy
from genbench.registry.loader import load

SHAPES = [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 128, 128)]
LATENT, BATCH, STEPS = 16, 64, 4


def main(names: list[str]) -> None:
    torch.set_num_threads(1)
    registry = load()
    for name in names or sorted(registry.registrations["network"]):
        for shape in SHAPES:
            try:
                network = registry.get("network", name).spec.factory(shape)
            except UnsupportedError as refusal:
                print(refusal)
                continue
            encoder, decoder = network.encoder(LATENT), network.decoder(LATENT)
            parameters = [*encoder.parameters(), *decoder.parameters()]
            optimizer, x = torch.optim.Adam(parameters), torch.rand(BATCH, *shape)
            for step in range(STEPS + 2):
                if step == 2:
                    started = time.process_time()
                optimizer.zero_grad()
                cross_entropy(decoder(encoder(x)), x).mean().backward()
                optimizer.step()
            rate = BATCH * STEPS / (time.process_time() - started)
            count = sum(parameter.numel() for parameter in parameters)
            size = "x".join(map(str, shape))
            print(f"{name:<12} {size:<10} {count:>11,} parameters {rate:>8,.0f} images/s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
