"""`genbench.load_model`: a trained run as an object that encodes, decodes and samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from genbench.api import DataConfig, Images, Model, Noise
from genbench.data.images import to_float
from genbench.errors import StoreError, UsageError
from genbench.evaluation.evaluation import BATCH, finite
from genbench.evaluation.snapshots import trained_model
from genbench.experiment.build import create_dataset
from genbench.experiment.config import check_names, option_texts
from genbench.experiment.plan import named_components
from genbench.interface.config import settings_of
from genbench.interface.context import load_plugins, make_data_config
from genbench.interface.results import Results
from genbench.interface.study import Names, Value, evaluate
from genbench.registry.listing import Kind
from genbench.registry.loader import Registry
from genbench.storage.inventory import match_run
from genbench.storage.run_dir import SAMPLES, RunRecord, read_run
from genbench.utils.rng import generator
from genbench.utils.torch_state import pick_device

SAMPLE_BLOCK = 500
"""Prior draws made at once; the values of the draws depend on it."""


class TrainedModel:
    """A trained model. Tensors go in on any device and come back on the CPU; no gradients are kept.

    Example:
        >>> import genbench
        >>> model = genbench.load_model(genbench.load_results("runs").runs[0])
        >>> images = model.dataset.test[:10]
        >>> codes = model.encode(images)
        >>> codes.shape, model.decode(codes).shape, model.sample(4, seed=1).shape
        (torch.Size([10, 2]), torch.Size([10, 1, 28, 28]), torch.Size([4, 1, 28, 28]))
    """

    def __init__(
        self,
        record: RunRecord,
        registry: Registry,
        data_config: DataConfig,
        device: torch.device,
        data_root: Path | None = None,
    ) -> None:
        """The model of a run that was read, on a device; `load_model` makes it from the run's path.

        `data_root` is the folder of the datasets as the user names it.
        """
        if not record.run.trains:
            reason = "is a control, not a model" if record.run.role == "control" else "was trained elsewhere"
            raise UsageError(f"{record.path} {reason}: its samples are in {record.path / SAMPLES}")
        self._record, self._registry, self._data_config = record, registry, data_config
        self._data_root = data_root
        self.device = device
        """Where the model computes."""
        self.module: Model = trained_model(registry, record.run, record.folder, device).eval()
        """The model itself, a `torch.nn.Module`, in evaluation mode; `module.prior` is its prior."""

    def __repr__(self) -> str:
        run = self._record.run
        return f"<TrainedModel: {run.model.name} on {run.dataset.name}, d={run.latent_dim}, seed {run.seed}>"

    @property
    def path(self) -> Path:
        """The folder of the run."""
        return self._record.path

    @property
    def name(self) -> str:
        """The name of the run."""
        return self._record.name

    @property
    def latent_dim(self) -> int:
        """Dimension of the codes."""
        return self._record.run.latent_dim

    @property
    def options(self) -> dict[str, str | int | float | bool | None]:
        """Every option of the run's components, by "NAME.OPTION"."""
        run = self._record.run
        components = (run.dataset, run.model, run.prior, run.network)
        return {
            f"{component.name}.{option.replace('_', '-')}": value
            for component in components
            for option, value in component.options
        }

    @cached_property
    def dataset(self) -> Images:
        """The images it was trained on: `train`, `validation` and `test`, `(n, c, h, w)` uint8, and their labels.

        Raises:
            DataError: They are missing: name the folder by `data_root`, or allow `download`.
        """
        return create_dataset(self._registry, self._record.run.dataset).load(self._data_config)

    def encode(self, images: Tensor) -> Tensor:
        """The codes of images; of a stochastic encoder the means.

        Args:
            images: `(n, c, h, w)`, uint8 or floating point in [0, 1].

        Returns:
            `(n, latent_dim)` float32.

        Raises:
            UsageError: The images have another shape.
        """
        return self._blocks(self.module.encode, self._images(images))

    def decode(self, codes: Tensor) -> Tensor:
        """The images of codes.

        Args:
            codes: `(n, latent_dim)`.

        Returns:
            `(n, c, h, w)` float32 in [0, 1].

        Raises:
            UsageError: The codes have another shape.
            MetricError: The model yields NaN or infinity.
        """
        if codes.ndim != 2 or codes.shape[1] != self.latent_dim:
            raise UsageError(f"codes of shape {tuple(codes.shape)}: this model takes (n, {self.latent_dim})")
        return finite(self._blocks(self.module.decode, codes.float()), "images").clamp(0, 1)

    def reconstruct(self, images: Tensor) -> Tensor:
        """The decoded codes of images, `(n, c, h, w)` float32 in [0, 1]; arguments and errors as of `encode`."""
        return self.decode(self.encode(images))

    def sample(self, n: int, *, seed: int = 0) -> Tensor:
        """Decoded draws of the prior, the same as `genbench sample` makes with this seed.

        Args:
            n: How many, at least 1.
            seed: Seed of the draws.

        Returns:
            `(n, c, h, w)` float32 in [0, 1].
        """
        if n < 1:
            raise UsageError(f"sample({n}): the number of samples is at least 1")
        noise = Noise(generator("cpu", seed, "sample"))
        with torch.no_grad():
            blocks = [self.module.prior.sample(min(SAMPLE_BLOCK, n - at), noise) for at in range(0, n, SAMPLE_BLOCK)]
        return self.decode(torch.cat(blocks))

    def evaluate(self, metrics: Names, options: Mapping[str, Value | Sequence[Value]] | None = None) -> Results:
        """The run's numbers with further metrics, which are stored with it; see `genbench.evaluate`."""
        return evaluate(
            self.path,
            metrics,
            options=options,
            device=str(self.device),
            data_root=self._data_root,
            download=self._data_config.download,
            skip_corrupt=self._data_config.skip_corrupt,
            plugins=self._registry.files,
            disabled_plugins=self._registry.disabled,
            allow_changed_source=self._registry.allow_changed_source,
        )

    def _images(self, images: Tensor) -> Tensor:
        shape = self.module.context.shape if hasattr(self.module, "context") else tuple(self.dataset.shape)
        if images.ndim != 4 or tuple(images.shape[1:]) != tuple(shape):
            size = ", ".join(map(str, shape))
            raise UsageError(f"images of shape {tuple(images.shape)}: this model takes (n, {size})")
        if images.dtype == torch.uint8:
            return images
        if not images.is_floating_point() or (len(images) and not 0 <= float(images.min()) <= float(images.max()) <= 1):
            raise UsageError("images are uint8, or floating point in [0, 1]")
        return images.float()

    @torch.no_grad()
    def _blocks(self, function: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
        """The function of the inputs, a block at a time."""
        blocks = []
        for block in inputs.split(BATCH):
            moved = block.to(self.device)
            blocks.append(function(to_float(moved) if moved.dtype == torch.uint8 else moved).cpu())
        return torch.cat(blocks)


def load_dataset(
    name: str,
    *,
    options: Mapping[str, Value | Sequence[Value]] | None = None,
    data_root: str | Path | None = None,
    download: bool = False,
    skip_corrupt: bool = False,
    plugins: str | Path | Iterable[str | Path] = (),
) -> Images:
    """The images of a dataset, as models are trained and measured on them.

    Args:
        name: The dataset.
        options: Its options by "NAME.OPTION".
        data_root: Folder of the datasets. [`data` in GENBENCH_CACHE or ~/.cache/genbench]
        download: Allow the download of the dataset.
        skip_corrupt: Leave corrupt images out.
        plugins: Plug-in files to load.

    Returns:
        `train`, `validation` and `test`, `(n, c, h, w)` uint8 in the dataset's order, and their labels.

    Raises:
        UsageError: There is no such dataset or option.
        DataError: Its files are missing or damaged.

    Example:
        >>> import genbench
        >>> genbench.load_dataset("glyphs").test.shape[1:]
        torch.Size([1, 28, 28])
    """
    files = [Path(plugins)] if isinstance(plugins, str | Path) else [Path(file) for file in plugins]
    registry, _ = load_plugins(files)
    names: dict[Kind, tuple[str, ...]] = {"dataset": (name,)}
    check_names(names, registry)
    texts = option_texts(settings_of(options or {}, "genbench.load_dataset"), names, registry)
    (dataset,) = named_components(registry, "dataset", [name], texts)
    root = None if data_root is None else Path(data_root)
    data_config = make_data_config(root, download=download, skip_corrupt=skip_corrupt)
    return create_dataset(registry, dataset).load(data_config)


def load_model(
    run: str | Path,
    *,
    out: str | Path = "runs",
    device: str = "auto",
    data_root: str | Path | None = None,
    download: bool = False,
    skip_corrupt: bool = False,
    plugins: str | Path | Iterable[str | Path] = (),
    disabled_plugins: Iterable[str] = (),
    allow_changed_source: bool = False,
) -> TrainedModel:
    """The trained model of a run.

    Args:
        run: The run's folder; or its name in `out`, the beginning of its name, or the beginning of its key.
        out: Folder of the runs.
        device: "auto", "cpu", "cuda" or "cuda:i".
        data_root: Folder of the datasets. [`data` in GENBENCH_CACHE or ~/.cache/genbench]
        download: Allow the download of the dataset.
        skip_corrupt: Leave corrupt images out.
        plugins: Plug-in files that the run needs.
        disabled_plugins: Installed plug-ins that are not loaded.
        allow_changed_source: Accept plug-ins whose source has changed since the training.

    Raises:
        UsageError: No run, or several, have this name, or it is a control.
        StoreError: The run is not trained, its weights are missing or damaged, or a plug-in's source has changed.

    Example:
        >>> import genbench
        >>> genbench.load_model("glyphs-vae-normal-2d-s0")
        <TrainedModel: vae on glyphs, d=2, seed 0>
    """
    record = read_run(match_run(str(run), Path(out)))
    if record.state != "trained":
        raise StoreError(f"{record.path} is not trained ({record.state}): finish it with the command that began it")
    files = [Path(plugins)] if isinstance(plugins, str | Path) else [Path(file) for file in plugins]
    registry, _ = load_plugins(files, tuple(disabled_plugins), allow_changed_source=allow_changed_source)
    root = None if data_root is None else Path(data_root)
    data_config = make_data_config(root, download=download, skip_corrupt=skip_corrupt)
    return TrainedModel(record, registry, data_config, pick_device(device), root)
