"""Pictures as data: URIs within a budget of bytes: whole while all fit, else the largest are made smaller. No torch."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 3000
"""Bytes below which no picture is pressed: of more pictures than that allows the last ones are left out."""

NARROWEST = 48
"""Pixels of the shorter side below which a picture shows nothing."""

MOST_PIXELS = 40_000_000
"""Larger pictures are not decoded: a small file can claim any size."""


@dataclass(frozen=True)
class Embedded:
    """A picture's data: URI, "" where it is left out; `smaller` where it was scaled down or compressed to fit."""

    uri: str
    smaller: bool = False


def share(sizes: Sequence[int], room: int) -> int:
    """The most bytes that a picture may have so that all fit into `room`; small ones leave their rest to the others.

    >>> share([10, 100, 100], 110), share([10, 20], 1000)
    (50, 20)
    """
    for k, size in enumerate(sorted(sizes)):
        even = max(room, 0) // (len(sizes) - k)
        if size > even:
            return even
        room -= size
    return max(sizes, default=0)


def shares(sizes: Sequence[int], room: int) -> list[int]:
    """The bytes that each picture may have, in their order of importance; 0: it is left out."""
    shown = len(sizes)
    while shown and share(sizes[:shown], room) < min(LEAST, max(sizes[:shown])):
        shown = min(shown - 1, max(room, 0) // LEAST)
    each = share(sizes[:shown], room)
    return [each] * shown + [0] * (len(sizes) - shown)


def embedded(data: bytes, kind: str, most: int) -> Embedded:
    """A picture of a kind ("png", "svg+xml") in at most so many bytes; a PNG that is larger becomes a smaller JPEG."""
    if not most:
        return Embedded("")
    if len(data) <= most:
        return Embedded(_uri(kind, data))
    smaller = _smaller(data, most) if kind == "png" else None
    return Embedded("") if smaller is None else Embedded(_uri("jpeg", smaller), smaller=True)


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _smaller(data: bytes, most: int) -> bytes | None:
    """The picture as a JPEG of at most so many bytes; None where it cannot be read, or would show nothing."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                return None
            grey = picture.mode in ("L", "1", "I;16")
            whole = picture.convert("L" if grey else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # SyntaxError: Pillow's for a bad PNG
        return None
    scale = 1.0
    while min(whole.size) * scale >= min(NARROWEST, *whole.size):
        size = (max(1, round(whole.width * scale)), max(1, round(whole.height * scale)))
        out = io.BytesIO()
        whole.resize(size, Image.Resampling.LANCZOS).save(out, format="JPEG", quality=80)
        if out.tell() <= most:
            return out.getvalue()
        scale *= min(0.8, 1.1 * (most / out.tell()) ** 0.5)
    return None
