"""Errors that the command line shows as one line: what was given, what is possible, what to do."""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping


class GenbenchError(Exception):
    """A fault that the user can mend; its text is one line and complete."""


class UsageError(GenbenchError):
    """A name, an option or a value that does not exist or does not fit."""


class UnsupportedError(GenbenchError):
    """A combination that has no meaning (a VAE on a prior without a density), with the reason."""


class DataError(GenbenchError):
    """A dataset, weights or cache file that is missing, broken or not what it claims to be."""


class PluginError(GenbenchError):
    """A plug-in that cannot be loaded, or that offers what the contract does not allow."""


class StoreError(GenbenchError):
    """A run folder that is not what the run's record says, or cannot be read."""


class SystemFailureError(StoreError):
    """The system refuses what every run needs (space on the disk, locks): no further run can succeed either."""


class DivergenceError(GenbenchError):
    """A loss that became NaN or infinite; names the term and the step."""


class MetricError(GenbenchError):
    """A metric that has no right value on what it was given; never replaced by a number."""


class NotApplicableError(MetricError):
    """A metric that has no meaning for a run (the latent fit of what has no codes): left out, and nothing failed."""


_SURROGATE = re.compile("[\ud800-\udfff]")


def printable(text: str) -> str:
    """Text with the bytes of names that are not UTF-8 written out, as in 'caf\\xe9.png': JSON takes no surrogates."""
    return _SURROGATE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", text)


def shell_word(word: str) -> str:
    """A word as it is typed into a shell, with bytes that are not UTF-8 as bash and zsh read them: $'caf\\xe9'."""
    if word == printable(word):
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'")
    return f"$'{printable(escaped)}'"


def one_line(error: BaseException, limit: int = 300) -> str:
    """What an error says, in one line of printable characters: plug-ins may say anything, escape codes among it."""
    text = "".join(c if c.isprintable() else " " for c in printable(str(error)))
    return " ".join(text.split())[:limit] or type(error).__name__


MANY = 60
"""Names that a refusal lists one by one at most."""


def unknown(kind: str, given: str, possible: Iterable[str], aliases: Mapping[str, str] | None = None) -> UsageError:
    """An error for a name that does not exist, with the nearest one, whatever its case, and the list.

    Of more than `MANY` names the ten nearest are listed. `aliases` are further words for the
    possible names. Of several words one that is a name or an alias is the nearest.

    Example:
        >>> print(unknown("model", "SWAE", ["swae", "vae"]))
        there is no model 'SWAE': did you mean 'swae'? possible: swae, vae
    """
    names = sorted(possible)
    words = {**{name.casefold(): name for name in reversed(names)}, **(aliases or {})}
    near = [word for word in re.findall(r"[a-z0-9-]+", given.casefold()) if word in words]
    near = near or difflib.get_close_matches(given.casefold(), words, n=1, cutoff=0.55)
    hint = f"did you mean '{words[near[0]]}'? " if near else ""
    listed = ", ".join(names) or "none"
    if len(names) > MANY:
        nearest = difflib.get_close_matches(given.casefold(), [name.casefold() for name in names], n=10, cutoff=0.0)
        listed = f"{', '.join(words[name] for name in nearest)} and {len(names) - len(nearest)} others"
    return UsageError(f"there is no {kind} '{given}': {hint}possible: {listed}")
