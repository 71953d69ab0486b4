"""How large a rate may still be after so many mismatches in so many comparisons: exact, by Clopper and Pearson.

Clopper and Pearson 1934, "The use of confidence or fiducial limits illustrated in the case of the binomial". The
one-sided upper bound is the rate at which so few mismatches would be seen with probability `1 - level`.
"""

from __future__ import annotations

import math

LEVEL = 0.95


def upper_bound(mismatched: int, compared: int, *, level: float = LEVEL) -> float:
    """The largest rate that `mismatched` of `compared` does not rule out at `level`; 1 where nothing was compared.

    >>> round(upper_bound(0, 3000) * 3000, 2)  # the rule of three
    2.99
    >>> round(upper_bound(2, 100), 4)
    0.0616
    """
    if compared <= 0 or mismatched >= compared:
        return 1.0
    if mismatched == 0:
        return -math.expm1(math.log1p(-level) / compared)
    low, high = mismatched / compared, 1.0
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if _at_most(mismatched, compared, middle) > 1 - level:
            low = middle
        else:
            high = middle
    return high


def _at_most(k: int, n: int, p: float) -> float:
    """P(X <= k) of a binomial, from its largest term down, so that nothing underflows that counts."""
    if p >= 1.0:
        return 1.0 if k >= n else 0.0
    top = min(k, int((n + 1) * p))
    log_top = (
        math.lgamma(n + 1)
        - math.lgamma(top + 1)
        - math.lgamma(n - top + 1)
        + top * math.log(p)
        + (n - top) * math.log1p(-p)
    )
    odds, total, term = p / (1 - p), 1.0, 1.0
    for i in range(top, 0, -1):
        term *= i / ((n - i + 1) * odds)
        total += term
        if term < total * 1e-18:
            break
    term = 1.0
    for i in range(top, k):
        term *= (n - i) / (i + 1) * odds
        total += term
        if term < total * 1e-18:
            break
    return min(1.0, math.exp(log_top) * total)


def told(mismatched: int, compared: int, *, level: float = LEVEL) -> str:
    """The bound in words: by the rule of three where no mismatch was seen.

    >>> told(0, 12_000)
    '≤ 3/12000 = 0.00025 at 95 %'
    """
    if compared == 0:
        return "nothing was compared yet"
    if mismatched == 0 and level == LEVEL:
        return f"≤ 3/{compared} = {3 / compared:.3g} at 95 %"
    return f"≤ {upper_bound(mismatched, compared, level=level):.3g} at {level:.0%}".replace("%", " %")
