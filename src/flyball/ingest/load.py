"""One file on its way into the log: its receipts, the chunk that is being committed, and the keys that were seen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from typing import TypeVar, cast

import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.contract import Checked
from flyball.ingest.files import Chunk
from flyball.ingest.keys import key_words
from flyball.ingest.receipts import Receipt
from flyball.ingest.seen import Seen

_Item = TypeVar("_Item")

Progress = Callable[[int, float], None]  # rows so far, and the fraction of the file that they end
SEEN = 1 << 23  # keys of a load that are remembered (up to 0.8 GB); a repetition further apart is found when applied


class Load:
    """A chunk is committed while the next one is read and judged; so `read` may be ahead of `stored`.

    Args:
        progress: told of each chunk that is done.
    """

    def __init__(self, spec: SourceSpec, progress: Progress | None) -> None:
        self._progress = progress
        self._pending: tuple[float, Future[Receipt]] | None = None
        self._seen = None if spec.corrections else Seen(SEEN)
        self.receipts: list[Receipt] = []
        self.read = 0  # rows of the chunks that were judged

    @property
    def stored(self) -> int:
        """Rows of the chunks that are committed."""
        return sum(receipt.received for receipt in self.receipts)

    def after(self, chunk: Chunk, receipt: Receipt | Future[Receipt]) -> None:
        """Take the next chunk's receipt, and wait for the one before. Raises what its commit raised."""
        self.settle()
        self.read += chunk.rows.height
        if isinstance(receipt, Receipt):
            self._done(chunk.fraction, receipt)
        else:
            self._pending = chunk.fraction, receipt

    def settle(self) -> None:
        """Wait for the chunk that is being committed."""
        if self._pending is not None:
            (fraction, future), self._pending = self._pending, None
            self._done(fraction, future.result())

    def _done(self, fraction: float, receipt: Receipt) -> None:
        self.receipts.append(receipt)
        if self._progress is not None:
            self._progress(self.stored, fraction)

    def once(self, checked: Checked) -> Checked:
        """Without the events that an earlier chunk had: it is committed before this one is."""
        if self._seen is None or checked.frame.is_empty():
            return checked
        again = self._seen.take(key_words(checked.frame["_key"]))
        if not again.any():
            return checked
        return replace(
            checked,
            frame=checked.frame.filter(pl.Series(~again)),
            places=checked.places[~again],
            duplicate_places=tuple(sorted([*checked.duplicate_places, *checked.places[again].tolist()])),
        )


def with_more(chunks: Iterator[Chunk], spec: SourceSpec) -> Iterator[tuple[Chunk, bool]]:
    """Each chunk, and whether another follows; looked up only where a rule asks how large the file is."""
    if not any(rule.kind == "volume" for rule in spec.rules):
        yield from ((chunk, True) for chunk in chunks)
        return
    waiting = next(chunks, None)
    while waiting is not None:
        following = next(chunks, None)
        yield waiting, following is not None
        waiting = following


def ahead(items: Iterator[_Item], reading: Executor) -> Iterator[_Item]:
    """The same, each next one made while the one before is in use, and the first at once."""
    end = object()
    first = reading.submit(next, items, end)

    def rest() -> Iterator[_Item]:
        waiting = first
        while (item := waiting.result()) is not end:
            waiting = reading.submit(next, items, end)
            yield cast(_Item, item)

    return rest()
