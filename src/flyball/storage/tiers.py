"""Which small files of a table are merged, and when: by tiers of size, as log-structured merge trees do it.

Files of one tier are merged into the next, each tier 8 times the size of the one before; so a row is written again at
most once or twice per tier, however slowly a table grows, and a file that is large is never touched again.
"""

from __future__ import annotations

from collections.abc import Sequence

LARGEST = 128 * 2**20  # bytes of a file that is done
TIERS = (LARGEST // 512, LARGEST // 64, LARGEST // 8, LARGEST)
STEP = 8  # files of a tier above the first that are merged into the next


def merge_below(sizes: Sequence[int], *, small: int) -> int | None:
    """Files below how many bytes are to be merged now; None: nothing is.

    Args:
        sizes: bytes of each file of the table.
        small: how many files of the first tier are merged.

    >>> merge_below([5_000] * 48, small=48) == TIERS[0]
    True
    >>> merge_below([5_000] * 47 + [LARGEST] * 1000, small=48) is None
    True
    >>> merge_below([300_000] * 8, small=48) == TIERS[1]
    True
    """
    lower, found = 0, None
    for upper in TIERS:
        count = sum(lower <= size < upper for size in sizes)
        if count >= (STEP if lower else small):
            found = upper  # the largest tier that is due takes the smaller ones along
        lower = upper
    return found
