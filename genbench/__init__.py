"""genbench trains autoencoder-type generative models side by side and measures which one is better.

Nothing heavy is imported here: `genbench --help` must answer without loading torch.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("genbench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
