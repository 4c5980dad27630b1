"""The usual loops that ours is measured against: a DataLoader of torchvision's MNIST, and pythae's trainer."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import textwrap
import venv
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

PYTHAE = "pythae==0.1.2"


def nets(width: int = 200, latent: int = 8) -> tuple[nn.Module, nn.Module]:
    """The network `mlp` as anybody would write it."""

    def half(inputs: int, outputs: int) -> list[nn.Module]:
        sizes = [inputs, width, width, width]
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.ReLU())]
        return [*layers, nn.Linear(width, outputs)]

    encoder = nn.Sequential(nn.Flatten(), *half(784, latent))
    return encoder, nn.Sequential(*half(latent, 784), nn.Sigmoid(), nn.Unflatten(1, (1, 28, 28)))


def swae_loss(encoder: nn.Module, decoder: nn.Module, x: Tensor, projections: int = 50) -> Tensor:
    """Squared error and sliced distance, with directions drawn and stacked one by one."""
    z = encoder(x)
    thetas = []
    for _ in range(projections):
        theta = torch.randn(z.shape[1], device=z.device)
        thetas.append(theta / theta.norm())
    projected = z @ torch.stack(thetas).T
    drawn = torch.randn_like(z) @ torch.stack(thetas).T
    apart = (projected.sort(dim=0).values - drawn.sort(dim=0).values).square().mean()
    return (decoder(z) - x).square().flatten(1).sum(1).mean() + 100.0 * apart


class UsualLoop:
    """Trains with a DataLoader of `workers`, whose processes are kept between calls."""

    def __init__(self, root: Path, workers: int, images: int, device: str = "cpu") -> None:
        mnist = Subset(MNIST(str(root), train=True, transform=ToTensor()), range(images))
        self.loader = DataLoader(
            mnist, 128, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.device = device
        self.encoder, self.decoder = (half.to(device) for half in nets())
        self.optimizer = torch.optim.Adam([*self.encoder.parameters(), *self.decoder.parameters()], lr=1e-3)

    def __call__(self) -> float:
        """One pass; the count of images."""
        count = 0
        for x, _ in self.loader:
            loss = swae_loss(self.encoder, self.decoder, x.to(self.device))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            count += len(x)
        return count


def pythae_python() -> Path:
    """The interpreter of an environment with pythae that sees this one's torch, made where there is none.

    Raises `OSError` or `subprocess.SubprocessError` where it cannot be installed.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "genbench-benchmarks" / PYTHAE
    python = home / "bin" / "python"
    if not (home / "complete").exists():
        venv.create(home, with_pip=True, clear=True)
        beside = [sysconfig.get_paths()["purelib"], *(path for path in sys.path if path.endswith("site-packages"))]
        for site in home.glob("lib/python*/site-packages"):
            (site / "torch_of_the_benchmark.pth").write_text("\n".join(dict.fromkeys(beside)) + "\n")
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", PYTHAE]
        subprocess.run(pip, check=True, capture_output=True, timeout=300, text=True)
        (home / "complete").touch()
    return python


class Elsewhere:
    """A loop in a process of its own, which trains on `images` images once for every line that it reads."""

    def __init__(self, python: Path, code: str, *arguments: object) -> None:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "TQDM_DISABLE": "1"}
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (as long as the process)
        self.process = subprocess.Popen(
            [str(part) for part in (python, "-c", textwrap.dedent(code), *arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            env=environment,
        )

    def __call__(self) -> float:
        """Train once; the count of images. `RuntimeError` with what it said where it died."""
        self.begin()
        return self.end()

    def begin(self) -> None:
        """Have it train."""
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def end(self) -> float:
        """Wait for what was begun; as a call."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("trained "):
                return float(line.split()[1])
        self.errors.seek(0)
        raise RuntimeError(f"the loop ended: {self.errors.read()[-2000:]}")

    def close(self) -> None:
        """End the process."""
        with self.process, self.errors:  # waits, and closes the pipes
            self.process.terminate()


class UsualLoops:
    """Two usual loops without workers at once, each in a process of its own with one thread."""

    CODE = """
        import sys
        from pathlib import Path
        import torch
        from usual import UsualLoop

        torch.set_num_threads(1)
        loop = UsualLoop(Path(sys.argv[1]), 0, int(sys.argv[2]))
        for line in sys.stdin:
            print("trained", loop(), flush=True)
    """

    def __init__(self, root: Path, images: int) -> None:
        self.loops = [Elsewhere(Path(sys.executable), self.CODE, root, images) for _ in range(2)]

    def __call__(self) -> float:
        """Both train; the count of the images of both."""
        for loop in self.loops:
            loop.begin()
        return sum(loop.end() for loop in self.loops)

    def close(self) -> None:
        """End the processes."""
        for loop in self.loops:
            loop.close()


class Pythae(Elsewhere):
    """pythae's trainer: a call trains on `images` images once."""

    CODE = """
        import logging, sys, tempfile
        import torch
        from pythae.models import WAE_MMD, WAE_MMD_Config
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
        from pythae.trainers import BaseTrainer, BaseTrainerConfig
        from torchvision.datasets import MNIST
        from usual import nets
        from pythae.data.datasets import BaseDataset

        logging.disable(logging.CRITICAL)
        root, images, workers, threads = sys.argv[1], *map(int, sys.argv[2:])
        torch.set_num_threads(threads)
        x = MNIST(root, train=True).data[:images, None].float() / 255

        class Encoder(BaseEncoder):
            def __init__(self):
                super().__init__()
                self.net, _ = nets()
            def forward(self, x):
                return ModelOutput(embedding=self.net(x))

        class Decoder(BaseDecoder):
            def __init__(self):
                super().__init__()
                _, self.net = nets()
            def forward(self, z):
                return ModelOutput(reconstruction=self.net(z))

        for line in sys.stdin:
            with tempfile.TemporaryDirectory() as folder:
                model = WAE_MMD(WAE_MMD_Config(input_dim=(1, 28, 28), latent_dim=8), Encoder(), Decoder())
                config = BaseTrainerConfig(
                    output_dir=folder, num_epochs=1, per_device_train_batch_size=128, learning_rate=1e-3,
                    train_dataloader_num_workers=workers, no_cuda=True,
                )
                data = BaseDataset(x, torch.zeros(len(x)))
                BaseTrainer(model, data, training_config=config).train()
            print("trained", len(x), flush=True)
    """

    def __init__(self, python: Path, root: Path, images: int, workers: int) -> None:
        super().__init__(python, self.CODE, root, images, workers, torch.get_num_threads())
