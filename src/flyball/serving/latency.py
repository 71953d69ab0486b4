"""What a version's batches take, learned from its last ones."""

from __future__ import annotations

from collections import deque

KEPT = 64  # batches of a size that are remembered
SIZES = 24  # powers of two of rows
QUANTILE = 0.95
_SETTLE = 8  # batches after which the table is made again


class Latency:
    """Learns the time of a batch by its rows: the 95th percentile of the last batches of each power of two.

    What a batch took is moved to its size's upper end by the slope between the smallest and the largest size that were
    seen (in proportion, while there is one). A size that was not seen takes what the next larger one takes, for a part
    of a batch is not slower than the whole; beyond the largest, time grows in proportion; between two sizes it lies on
    the line. One thread observes.

    >>> latency = Latency()
    >>> for rows in (1, 64):
    ...     latency.observe(rows, 0.001 + rows * 0.0001)
    >>> round(latency.expect(1), 4), round(latency.expect(50), 4), round(latency.expect(128), 4)
    (0.0011, 0.0074, 0.0148)
    >>> latency.largest(0.0148, most=1000)
    128
    """

    __slots__ = ("_changed", "_fresh", "_means", "_seen", "_table", "_tops", "known")

    def __init__(self) -> None:
        self._seen: list[deque[tuple[int, float]]] = [deque(maxlen=KEPT) for _ in range(SIZES)]
        self._means: dict[int, tuple[float, float]] = {}  # of the sizes that were seen: rows and seconds
        self._tops: dict[int, float] = {}  # and what their largest batch is expected to take
        self._table = [0.0] * SIZES
        self._changed: set[int] = set()
        self._fresh = 0
        self.known = False

    def observe(self, rows: int, seconds: float) -> None:
        """A batch of so many rows took so long."""
        size = min((rows - 1).bit_length(), SIZES - 1)
        seen = self._seen[size]
        seen.append((rows, seconds))
        self._changed.add(size)
        self.known = True
        self._fresh += 1
        if self._fresh >= _SETTLE or len(seen) <= _SETTLE:
            self._settle()

    def expect(self, rows: int) -> float:
        """Seconds that a batch of so many rows takes at most, in 19 of 20 cases; 0.0 while nothing is known."""
        size = (rows - 1).bit_length()
        if size == 0:
            return self._table[0]
        if size >= SIZES:
            return self._table[-1] * rows / (1 << (SIZES - 1))
        below, above = self._table[size - 1], self._table[size]
        half = 1 << (size - 1)
        return below + (above - below) * (rows - half) / half

    def largest(self, seconds: float, *, most: int) -> int:
        """The most rows, up to `most`, that take no longer; 0 where one row does."""
        table = self._table
        if table[0] > seconds:
            return 0
        size = 0
        while size + 1 < SIZES and table[size + 1] <= seconds:
            size += 1
        rows = 1 << size
        if size + 1 < SIZES and table[size + 1] > table[size]:
            rows += int(rows * (seconds - table[size]) / (table[size + 1] - table[size]))
        return min(rows, most)

    def _settle(self) -> None:
        self._fresh = 0
        for size in self._changed:
            seen = self._seen[size]
            n = len(seen)
            self._means[size] = (sum(rows for rows, _ in seen) / n, sum(seconds for _, seconds in seen) / n)
        slope = self._slope()
        for size in self._changed:
            top = 1 << size
            ordered = sorted(seconds + slope * (top - rows) for rows, seconds in self._seen[size])
            self._tops[size] = ordered[min(len(ordered) - 1, int(len(ordered) * QUANTILE))]
        self._changed.clear()
        table = [-1.0] * SIZES
        for size, seconds in self._tops.items():
            table[size] = seconds
        largest = max(self._tops)
        for size in range(largest - 1, -1, -1):
            if table[size] < 0 or table[size] > table[size + 1]:
                table[size] = table[size + 1]
        for size in range(largest + 1, SIZES):
            table[size] = table[size - 1] * 2
        self._table = table

    def _slope(self) -> float:
        """Seconds a row, between the smallest and the largest size."""
        few, many = self._means[min(self._means)], self._means[max(self._means)]
        if many[0] <= few[0]:
            return many[1] / many[0]
        return max(0.0, (many[1] - few[1]) / (many[0] - few[0]))
