"""What every command and every function of the interface needs: plug-ins, folders of data, a run by its name."""

from __future__ import annotations

import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from genbench.errors import StoreError, UsageError
from genbench.registry.cache import cache_folder, cache_listing, cached_listing
from genbench.storage.lock import lock_run

if TYPE_CHECKING:
    from genbench.api import DataConfig
    from genbench.interface.config import StudyConfig
    from genbench.registry.listing import Listing
    from genbench.registry.loader import Registry


def load_plugins(
    files: Sequence[Path] = (), disabled: Sequence[str] = (), *, allow_changed_source: bool = False
) -> tuple[Registry, Listing]:
    """The loaded plug-ins, and their listing, which is cached where nothing but installed plug-ins is in it."""
    from genbench.registry.loader import list_registry, load

    registry = load(files, disabled=disabled)
    registry.allow_changed_source = allow_changed_source
    listing = list_registry(registry)
    if not files and cached_listing(disabled) is None:
        cache_listing(listing, disabled)
    return registry, listing


def plugin_problems(listing: Listing, *, slow: bool = True) -> list[str]:
    """A line for each plug-in that is broken, and for each slow one."""
    problems = []
    for plugin in listing.plugins:
        prefix = f"plug-in '{plugin.name}' of {plugin.origin}"
        if plugin.state == "broken":
            problems.append(f"{prefix} is broken: {plugin.cause}")
        if slow and plugin.note:
            problems.append(f"{prefix} {plugin.note}")
    return problems


def make_data_config(data_root: Path | None, *, download: bool, skip_corrupt: bool) -> DataConfig:
    """The folders of data and caches, checked."""
    from joblib import cpu_count

    from genbench.api import DataConfig

    cache = cache_folder()
    if data_root is not None and not data_root.is_dir() and not download:
        raise UsageError(f"--data-root {data_root}: there is no such folder")
    return DataConfig(
        data_root=data_root or cache / "data",
        cache=cache,
        download=download,
        skip_corrupt=skip_corrupt,
        workers=cpu_count(),
    )


def data_config_of(study: StudyConfig) -> DataConfig:
    """The folders of data and caches of a study, checked."""
    root = None if study.data_root is None else Path(study.data_root)
    return make_data_config(root, download=study.download, skip_corrupt=study.skip_corrupt)


def make_room(out: Path, flag: str = "--out") -> None:
    """Make a folder before anything trains: one that cannot be written to is refused at once."""
    folder = ""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".", ignore_cleanup_errors=True) as folder:  # noqa: SIM117
            with lock_run(Path(folder)):
                pass
    except (FileExistsError, NotADirectoryError):
        raise UsageError(f"{flag} {out}: a part of this path is a file; name a folder") from None
    except OSError as error:
        raise UsageError(
            f"{flag} {out}: the folder cannot be written to ({error.strerror}); name another one"
        ) from None
    except StoreError as error:
        raise UsageError(f"{flag} {out} {str(error).removeprefix(folder).strip()}") from None


@contextmanager
def stoppable(announce: Callable[[str], object] = len) -> Iterator[Callable[[], bool]]:
    """A function that is true after Ctrl-C or SIGTERM; a second one raises `KeyboardInterrupt`.

    Only the main thread of a process receives signals: in any other thread the function stays false.
    """
    stopping = False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            raise KeyboardInterrupt
        stopping = True
        announce("stopping after this step; press Ctrl-C again to stop at once")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
