"""genbench trains autoencoder-type generative models side by side and measures which one is better.

From Python: `run` trains and compares, `tune` searches options first, `score` takes in what was trained elsewhere,
`load_results` reads the numbers, `load_model` a trained model.

    import genbench

    study = genbench.run(["swae", "vae"], dataset="mnist", seeds=5, progress=True)
    study                                            # the ranked table
    study.plot("ranks").save("ranks.pdf")
    model = genbench.load_model(study.runs[0])
    images = model.sample(64)

Nothing heavy is imported before one of the names is used: `genbench --help` must answer without loading torch.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genbench.errors import GenbenchError
    from genbench.interface.components import list_components
    from genbench.interface.model import TrainedModel, load_dataset, load_model
    from genbench.interface.results import Results, Study, load_results
    from genbench.interface.score import score
    from genbench.interface.study import evaluate, read_study, run
    from genbench.interface.tuning import tune
    from genbench.storage.results import Row

try:
    __version__ = version("genbench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "GenbenchError",
    "Results",
    "Row",
    "Study",
    "TrainedModel",
    "__version__",
    "evaluate",
    "list_components",
    "load_dataset",
    "load_model",
    "load_results",
    "read_study",
    "run",
    "score",
    "tune",
]

_MODULES = {
    "errors": ("GenbenchError",),
    "interface.components": ("list_components",),
    "interface.model": ("TrainedModel", "load_dataset", "load_model"),
    "interface.results": ("Results", "Study", "load_results"),
    "interface.score": ("score",),
    "interface.study": ("evaluate", "read_study", "run"),
    "interface.tuning": ("tune",),
    "storage.results": ("Row",),
}
"""The names above by the module that defines them."""


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"genbench.{module}"), name)
    raise AttributeError(f"module 'genbench' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
