"""Merging by tiers: few files, and few rewrites, at every pace."""

from __future__ import annotations

import pytest

from flyball.storage.tiers import LARGEST, TIERS, merge_below


def planned(sizes: list[int], below: int) -> tuple[list[int], int]:
    """The files after a merge that keeps their order, as Delta plans it, and the bytes that it wrote."""
    out: list[int] = []
    written, bin_, members = 0, 0, 0

    def close() -> None:
        nonlocal written, bin_, members
        if members:
            out.append(bin_)
            written += bin_ if members > 1 else 0
        bin_ = members = 0

    for size in sizes:
        if size >= below:
            close()
            out.append(size)
            continue
        if bin_ + size > below:
            close()
        bin_, members = bin_ + size, members + 1
    close()
    return out, written


@pytest.mark.parametrize("size", [3_000, 9_000, 60_000, 200_000, 1_500_000, 20_000_000])
def test_a_table_keeps_few_files_and_writes_each_row_a_few_times(size: int) -> None:
    files: list[int] = []
    appended = written = most = 0
    for _ in range(20_000 if size < 10**6 else 2_000):
        files.append(size)
        appended += size
        below = merge_below(files, small=16)
        if below is not None:
            files, more = planned(files, below)
            written += more
        most = max(most, len(files) - appended // (LARGEST // 2))
    assert most <= 60
    assert written <= 2 * len(TIERS) * appended


def test_what_is_large_is_never_merged_again() -> None:
    assert merge_below([LARGEST] * 500, small=16) is None
    assert merge_below([LARGEST // 2] * 500, small=16) is None


def test_the_largest_tier_that_is_full_is_merged() -> None:
    assert merge_below([5_000] * 16 + [TIERS[2] // 3] * 4, small=16) == TIERS[2]
