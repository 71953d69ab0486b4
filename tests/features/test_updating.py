"""Memory that is used again from batch to batch is bounded."""

import numpy as np

from flyball.features import updating


def test_what_is_kept_is_bounded_in_all_and_in_number() -> None:
    spare = updating._Spare()
    large = np.empty(updating._KEPT // 2 + 1, np.int64)  # pages that nothing is written to
    spare.give(large, np.empty(updating._KEPT // 2 + 2, np.int64), np.empty(updating._KEPT + 1, np.int64))
    assert sum(map(len, spare._arrays)) <= updating._KEPT
    assert len(spare.take(updating._KEPT // 2)) == updating._KEPT // 2 + 2, "the largest that there is room for"
    spare.give(*[np.empty(10, np.int64) for _ in range(3 * updating._SPARE)])
    assert len(spare._arrays) == updating._SPARE


def test_a_part_is_given_back_for_the_whole_and_the_smallest_that_fits_is_taken() -> None:
    spare = updating._Spare()
    small, large = np.empty(10, np.int64), np.empty(100, np.int64)
    spare.give(large[:7], small, np.empty(0, np.int64))
    assert spare.take(11) is large
    assert spare.take(11) is not large
    assert spare.take(3) is small
