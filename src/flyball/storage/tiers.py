"""Which small files of a table are merged, and when: by tiers of size, as log-structured merge trees do it.

Files of one tier are merged once they fill one file of the tier, 8 or 16 times as large as those of the tier before;
what comes out has left the tier. So a row is written again at most about twice per tier, however slowly its table
grows, and a file that is large is never touched again.
"""

from __future__ import annotations

from collections.abc import Sequence

LARGEST = 32 * 2**20  # bytes of a file that is done: about as many as a chunk of a bulk load, which is left as it is
TIERS = (LARGEST // 128, LARGEST // 16, LARGEST)


def merge_below(sizes: Sequence[int], *, small: int) -> int | None:
    """Files below how many bytes are to be merged now, into files of up to as many; None: nothing is.

    Args:
        sizes: bytes of each file of the table.
        small: how many files of the first tier are merged although they do not fill a file of it.

    >>> merge_below([5_000] * 16, small=16) == TIERS[0]
    True
    >>> merge_below([200_000] * 7 + [LARGEST] * 1000, small=16) is None
    True
    >>> merge_below([200_000] * 10, small=16) == TIERS[1]
    True
    """
    few = sum(size < TIERS[0] // 2 for size in sizes)
    found = TIERS[0] if few >= small else None
    for tier in TIERS:
        if sum(size for size in sizes if size < tier // 2) >= 9 * tier // 10:
            found = tier  # the largest tier that is full takes the smaller ones along
    return found
