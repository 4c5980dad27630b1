"""Numbers as people write them: as many digits as the interval justifies, in plain text and in LaTeX. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from genbench.stats.intervals import Estimate

SMALL, LARGE = 1e-3, 1e7
"""Below and from these magnitudes a number is written with a power of ten."""

TINY = 1e-300
"""Up to this a number is written as 0: powers of ten end there."""


@dataclass(frozen=True)
class FormattedEstimate:
    """The digits of a value: `mean`, `half` ("" without an interval) and the power of ten that multiplies both."""

    mean: str
    half: str = ""
    exponent: int = 0

    @property
    def plain(self) -> str:
        """Text for a terminal: `18.32 ± 0.45`, `(1.23 ± 0.05)e-4`."""
        body = f"{self.mean} ± {self.half}" if self.half else self.mean
        if not self.exponent:
            return body
        return f"({body})e{self.exponent}" if self.half else f"{body}e{self.exponent}"

    @property
    def latex(self) -> str:
        r"""Text for LaTeX's mathematics, without the dollars: `18.32 \pm 0.45`."""
        body = f"{self.mean} \\pm {self.half}" if self.half else self.mean
        body = body.replace(",", "{,}")
        if not self.exponent:
            return body
        return rf"({body}) \times 10^{{{self.exponent}}}" if self.half else rf"{body} \times 10^{{{self.exponent}}}"


def format_estimate(estimate: Estimate) -> FormattedEstimate:
    """The digits of an estimate: two significant ones of the half-width fix those of the mean.

    >>> format_estimate(Estimate(18.3172, 3, 17.8672, 18.7672)).plain
    '18.32 ± 0.45'
    >>> format_estimate(Estimate(3772.0, 3, 3652.0, 3892.0)).plain
    '3,770 ± 120'
    """
    half = estimate.half_width
    if half is None or not half > max(abs(estimate.mean) * 1e-9, TINY):  # one seed, or seeds that agree to rounding
        return format_value(estimate.mean)
    exponent = _exponent(float(f"{max(abs(estimate.mean), half):.{_kept(estimate.mean, half)}e}"))
    mean, half = estimate.mean / 10.0**exponent, half / 10.0**exponent
    decimals = 1 - _magnitude(half)
    decimals = 1 - _magnitude(round(half, decimals))  # 0.0996 rounds to 0.10, not to 0.100
    return FormattedEstimate(_fixed(mean, decimals), _fixed(half, decimals), exponent)


def format_value(value: float, digits: int = 4) -> FormattedEstimate:
    """A value without an interval: whole numbers in full, others with `digits` significant digits at least.

    >>> format_value(511443.0).plain, format_value(0.0123456).plain, format_value(18.317).plain
    ('511,443', '0.01235', '18.32')
    """
    value = value if abs(value) > TINY else 0.0  # no "-0" either
    if value.is_integer() and abs(value) < LARGE:
        return FormattedEstimate(f"{value:,.0f}")
    value = float(f"{value:.{max(digits, _magnitude(value) + 1 if abs(value) < LARGE else 0) - 1}e}")
    exponent = _exponent(abs(value))  # of the rounded value: 9.99e-4 is 0.0010, and not 10.0e-4
    scaled = value / 10.0**exponent
    return FormattedEstimate(_fixed(scaled, max(0, digits - 1 - _magnitude(scaled))), "", exponent)


def _kept(mean: float, half: float) -> int:
    """Digits of the larger number after its first one that two digits of the half-width keep."""
    return max(1, _magnitude(max(abs(mean), half)) - _magnitude(half) + 1)


def p_value(p: float) -> str:
    """A p-value as it is printed.

    >>> p_value(0.0123), p_value(1e-9)
    ('p = 0.012', 'p < 0.001')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"


def _exponent(magnitude: float) -> int:
    return 0 if magnitude == 0 or SMALL <= magnitude < LARGE else _magnitude(magnitude)


def _magnitude(value: float) -> int:
    """The power of ten of the leading digit."""
    return math.floor(math.log10(abs(value))) if value else 0


def _fixed(value: float, decimals: int) -> str:
    rounded = round(value, decimals) + 0.0  # + 0.0: no "-0"
    return f"{rounded:,.{max(0, decimals)}f}"


def one_line_text(text: str) -> str:
    """Control characters and line ends become spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
