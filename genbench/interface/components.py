"""`genbench.list_components`: what plug-ins offer, as data. No torch where the listing is cached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genbench.errors import unknown
from genbench.registry.cache import get_listing
from genbench.registry.listing import KINDS, Kind, ListedComponent, Listing


def list_components(kind: Kind | None = None, *, plugins: Iterable[str | Path] = ()) -> list[ListedComponent]:
    """The components of all plug-ins, or those of a kind, with their options, defaults, meanings and sources.

    Args:
        kind: "model", "prior", "network", "dataset", "metric", "extractor", "sampler", "control", "recipe" or
            "tracker"; None: all.
        plugins: Plug-in files whose components are listed too.

    Raises:
        UsageError: There is no such kind.

    Example:
        >>> import genbench
        >>> "swae" in [component.name for component in genbench.list_components("model")]
        True
        >>> swae = next(c for c in genbench.list_components("model") if c.name == "swae")
        >>> [(option.name, option.default) for option in swae.options if option.name == "weight"]
        [('weight', '100')]
    """
    if kind is not None and kind not in KINDS:
        raise unknown("kind of component called", kind, KINDS)
    listing = get_listing([Path(file) for file in plugins])
    return [component for listed in KINDS if kind in (None, listed) for component in listing.components[listed]]


def listing_plain(listing: Listing, kinds: Sequence[Kind], *, plugins: bool) -> dict[str, Any]:
    """The listing as JSON data: components by kind, and plug-ins."""
    plain: dict[str, Any] = {
        f"{kind}s": [asdict(component) for component in listing.components[kind]] for kind in kinds
    }
    return {**plain, "plugins": [asdict(plugin) for plugin in listing.plugins]} if plugins else plain
