"""The exact test that aborts a canary: a conditional-binomial e-process on its errors.

A failed request is on the canary with the known probability `w` with which it was routed there, unless the canary
fails more often than the stable version. If its rate is `r` times the stable one's, that probability is
`q(r) = w r / (w r + 1 - w)`. The wealth of a bet on `r` is the product, over failed requests, of `q/w` where the
canary failed and `(1-q)/(1-w)` where the stable version did; the e-value is the mean wealth over a grid of `r > 1`.

While the canary is no worse, the e-value is a non-negative supermartingale that starts at 1, so by Ville's inequality
it ever reaches `1/alpha` with probability at most `alpha`: at any number of looks, under any schedule of weights and
any drift of the base rate that both arms share. It counts each request as its own unit of randomisation.

Ville (1939), Étude critique de la notion de collectif; Ramdas et al. (2023), Game-theoretic statistics.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

TOTAL_WEIGHT = 10_000
RATE_RATIOS: tuple[float, ...] = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class ArmCounts:
    """Requests and failed requests of one arm while the canary's weight was `weight` (of 10 000)."""

    arm: str  # "canary" or "stable"
    weight: int
    requests: int = 0
    errors: int = 0


def e_value(counts: Iterable[ArmCounts], *, ratios: tuple[float, ...] = RATE_RATIOS) -> float:
    """Evidence that the canary fails more often than the stable version; 1 is none, 100 is strong.

    >>> import random
    >>> rng = random.Random(7)
    >>> arms = ["canary" if rng.random() < 0.05 else "stable" for _ in range(20_000)]
    >>> rate = {"stable": 0.01, "canary": 0.05}
    >>> failed = [arm for arm in arms if rng.random() < rate[arm]]
    >>> bad = e_value(ArmCounts(arm=arm, weight=500, errors=failed.count(arm)) for arm in rate)
    >>> bad > 100
    True
    >>> e_value([ArmCounts(arm="canary", weight=500, errors=10), ArmCounts(arm="stable", weight=500, errors=190)]) < 1
    True
    """
    log_wealth = [0.0] * len(ratios)
    for count in counts:
        weight = count.weight / TOTAL_WEIGHT
        if not count.errors or not 0.0 < weight < 1.0:
            continue  # where every request goes to one arm, a failure says nothing about the other
        for i, ratio in enumerate(ratios):
            total = weight * ratio + 1.0 - weight
            log_wealth[i] += count.errors * math.log((ratio if count.arm == "canary" else 1.0) / total)
    top = max(log_wealth)
    if top > 700.0:
        return math.inf
    return sum(math.exp(value) for value in log_wealth) / len(ratios)
