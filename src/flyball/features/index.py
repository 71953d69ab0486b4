"""The keys of the events that counted, so that an event counts once however often it is sent.

Keys lie in *runs*, sorted, in pages; a Bloom filter says of nearly every new key, without a page being read, that a run
does not have it. Small batches gather in a *young* list, which becomes a run when it is long; runs of one age and size
are merged. So a key costs a few words that are written in order, and no random write of its own. An event that is
dropped as a duplicate is noted by its LSN, in a bitmap of 4,096.

In `key/SOURCE`: `m` the list of runs; `n` the young list's state, `y` NUMBER its batches; `p` RUN PAGE, `f` RUN (the
filter), `i` RUN (first word of each page). In `dropped/SOURCE`: LSN / 4,096 → when it may be forgotten, bits.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.features.bloom import (
    Keys,
    Mask,
    ascending_order,
    empty_filter,
    fill,
    may_hold,
    members,
    merged,
    repeated,
    taken,
    warm,
)
from flyball.features.frames import words
from flyball.features.ports import ReadTransaction, WriteTransaction
from flyball.features.states import dropped_space, encode, key_space, ordered
from flyball.kernel.times import DAY, HOUR

GRACE = 7 * DAY  # beyond a source's lateness, how long a key is kept
YOUNG = 1 << 15  # keys of the young list; a batch of a quarter of it is a run at once
LARGEST = 1 << 22  # keys of a run that is merged no more
FAN = 6  # runs of one age and size that are merged
_PAGE = 255  # keys: with LMDB's header, 4,096 bytes
_SWEEP_EVERY = HOUR
_BUCKETS = 8  # runs are merged within an eighth of the time that keys are kept
_FEW = 2_000  # keys that are read one by one sooner than by an expression
_BLOCK = 12  # bits of an LSN within a bitmap


class _Run(msgspec.Struct, frozen=True, array_like=True):
    """`until`: the greatest age in it; `bucket`: runs of one are merged."""

    name: bytes
    count: int
    until: int
    bucket: int


class _Young(msgspec.Struct, frozen=True, array_like=True):
    """The young list: its batches are numbered `first` to `next - 1`. `mark` differs each time it is written."""

    first: int = 0
    next: int = 0
    count: int = 0
    until: int = -(1 << 62)
    bucket: int = 0
    mark: bytes = b""


@dataclass(frozen=True, slots=True)
class _Guide:
    """What is kept in memory of a run, which never changes: its filter, and the first word of each page."""

    filter: Keys
    pages: Keys


class KeyIndex:
    """Keys of one source. A key is kept for the source's lateness and 7 days after its event time or its coming,
    whichever is later, and up to an eighth longer; an event older than that is refused before it gets here.

    In memory: about two bytes a key. What is in memory only mirrors the store, also after a transaction that failed.
    """

    def __init__(self, source: str) -> None:
        warm()
        self._space = key_space(source)
        self._dropped = dropped_space(source)
        self._guides: dict[bytes, _Guide] = {}
        self._young: tuple[bytes, set[bytes]] = (b"", set())
        self._swept = -(1 << 62)

    def add(
        self, transaction: WriteTransaction, frame: pl.DataFrame, *, now: int, horizon: int
    ) -> npt.NDArray[np.bool_]:
        """Remember the keys of new events in LSN order; which of them were the first with their key."""
        if frame.is_empty():
            return np.zeros(0, np.bool_)
        keys = as_words(frame["_key"])
        until = max(int(words(frame, "_event_time").max()), now)
        bucket = now // max(DAY, (horizon + GRACE) // _BUCKETS)
        before, young = self._runs(transaction), self._young_state(transaction)
        runs = list(before)
        if young.count and young.bucket != bucket:
            young = self._settle(transaction, young, runs)
        runs = self._forget(transaction, runs, now=now, horizon=horizon)
        known = self._in_runs(transaction, runs, keys)
        large = 4 * len(keys) >= YOUNG
        if large:
            order, firsts = ascending_order(keys)
            repeated(keys, order, firsts, known)
            self._known_young(transaction, young, keys, known)
        else:
            self._known_small(transaction, young, keys, known)
        fresh = keys[~known]
        if large and len(fresh):
            ascending = _taken(keys, order[~known[order]] if known.any() else order)
            runs.append(self._write_run(transaction, ascending, until, bucket))
        elif len(fresh):
            self._grow(transaction, young, fresh, until, bucket, runs)
        runs = self._merge(transaction, runs, bucket)
        if runs != before:
            transaction.put(self._space, b"m", encode(runs))
            self._guides = {run.name: self._guides[run.name] for run in runs if run.name in self._guides}
        if known.any():
            self._note_dropped(transaction, words(frame, "_lsn")[known], until)
        first: npt.NDArray[np.bool_] = ~known
        return first

    def is_first(self, transaction: ReadTransaction, lsns: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these events counted when they were added; what was never added, or is forgotten, counts."""
        blocks, place = np.unique(lsns >> _BLOCK, return_inverse=True)
        maps = [
            bytes(1 << _BLOCK - 3) if found is None else found[8:]
            for found in transaction.get_many(self._dropped, [ordered(block) for block in blocks.tolist()])
        ]
        bits = np.frombuffer(b"".join(maps), np.uint8).reshape(len(maps), -1)
        within = lsns & ((1 << _BLOCK) - 1)
        first: npt.NDArray[np.bool_] = (bits[place, within >> 3] >> (within & 7).astype(np.uint8)) & 1 == 0
        return first

    def erase(self, transaction: WriteTransaction, keys: Sequence[bytes]) -> None:
        """Forget these keys as if they had never come."""
        runs, young = self._runs(transaction), self._young_state(transaction)
        if young.count:
            self._settle(transaction, young, runs)
        wanted, kept = _sorted(_joined(keys)), list[_Run]()
        for run in runs:
            held = self._read(transaction, run, range(_pages(run)))
            gone: Mask = np.zeros(len(held), np.bool_)
            members(wanted, held, gone)
            if not gone.any():
                kept.append(run)
                continue
            self._drop_run(transaction, run)
            if not gone.all():
                kept.append(self._write_run(transaction, held[~gone], run.until, run.bucket))
        transaction.put(self._space, b"m", encode(kept))
        self._guides = {run.name: self._guides[run.name] for run in kept if run.name in self._guides}

    # --- looking

    def _runs(self, transaction: ReadTransaction) -> list[_Run]:
        data = transaction.get(self._space, b"m")
        return [] if data is None else msgspec.msgpack.decode(data, type=list[_Run])

    def _young_state(self, transaction: ReadTransaction) -> _Young:
        data = transaction.get(self._space, b"n")
        return _Young() if data is None else msgspec.msgpack.decode(data, type=_Young)

    def _in_runs(self, transaction: ReadTransaction, runs: Sequence[_Run], keys: Keys) -> Mask:
        known: Mask = np.zeros(len(keys), np.bool_)
        perhaps: Mask = np.empty(len(keys), np.bool_)
        for run in runs:
            guide = self._guide(transaction, run)
            if may_hold(guide.filter, keys, perhaps):
                asked = np.flatnonzero(perhaps)
                found: Mask = np.zeros(len(asked), np.bool_)
                members(self._pages_of(transaction, run, guide, keys[asked, 0]), keys[asked], found)
                known[asked[found]] = True
        return known

    def _guide(self, transaction: ReadTransaction, run: _Run) -> _Guide:
        guide = self._guides.get(run.name)
        if guide is None:
            filter_, pages = transaction.get_many(self._space, [b"f" + run.name, b"i" + run.name])
            assert filter_ is not None
            assert pages is not None
            guide = _Guide(np.frombuffer(filter_, np.uint64), np.frombuffer(pages, np.uint64))
            self._guides[run.name] = guide
        return guide

    def _pages_of(self, transaction: ReadTransaction, run: _Run, guide: _Guide, highs: Keys) -> Keys:
        """The pages in which keys with these first words may stand, one after another."""
        low = np.maximum(np.searchsorted(guide.pages, highs, "left") - 1, 0).tolist()
        high = np.searchsorted(guide.pages, highs, "right").tolist()
        pages = {page for a, b in zip(low, high, strict=True) for page in range(a, b)}
        return self._read(transaction, run, sorted(pages))

    def _read(self, transaction: ReadTransaction, run: _Run, pages: Sequence[int]) -> Keys:
        found = transaction.get_many(self._space, [_page(run.name, page) for page in pages])
        return _joined([data for data in found if data is not None])

    def _young_keys(self, transaction: ReadTransaction, young: _Young) -> set[bytes]:
        mark, keys = self._young
        if mark != young.mark:
            data = self._young_data(transaction, young)
            keys = {data[i : i + 16] for i in range(0, len(data), 16)}
            self._young = young.mark, keys
        return keys

    def _young_data(self, transaction: ReadTransaction, young: _Young) -> bytes:
        names = [b"y" + ordered(number) for number in range(young.first, young.next)]
        return b"".join(data for data in transaction.get_many(self._space, names) if data is not None)

    def _known_small(self, transaction: ReadTransaction, young: _Young, keys: Keys, known: Mask) -> None:
        """Mark what is in the young list or came before in the same batch."""
        there = self._young_keys(transaction, young)
        data, batch = keys.tobytes(), set[bytes]()
        for i in range(len(keys)):
            key = data[16 * i : 16 * i + 16]
            if key in there or key in batch:
                known[i] = True
            batch.add(key)

    def _known_young(self, transaction: ReadTransaction, young: _Young, keys: Keys, known: Mask) -> None:
        """Mark what is in the young list."""
        if young.count:
            members(_sorted(_joined([self._young_data(transaction, young)])), keys, known)

    # --- writing

    def _settle(self, transaction: WriteTransaction, young: _Young, runs: list[_Run]) -> _Young:
        """Make a run of the young list, which is empty then."""
        keys = _sorted(_joined([self._young_data(transaction, young)]))
        runs.append(self._write_run(transaction, keys, young.until, young.bucket))
        for number in range(young.first, young.next):
            transaction.delete(self._space, b"y" + ordered(number))
        empty = _Young(first=young.next, next=young.next, mark=os.urandom(8))
        transaction.put(self._space, b"n", encode(empty))
        return empty

    def _grow(
        self, transaction: WriteTransaction, young: _Young, keys: Keys, until: int, bucket: int, runs: list[_Run]
    ) -> None:
        """Add keys to the young list; one that is long becomes a run first."""
        if young.count + len(keys) > YOUNG:
            young = self._settle(transaction, young, runs)
        there, data = self._young_keys(transaction, young), keys.tobytes()
        self._young = b"-", set()  # neither the one nor the other, should this fail half way
        transaction.put(self._space, b"y" + ordered(young.next), data)
        grown = _Young(
            young.first, young.next + 1, young.count + len(keys), max(young.until, until), bucket, os.urandom(8)
        )
        transaction.put(self._space, b"n", encode(grown))
        there.update(data[i : i + 16] for i in range(0, len(data), 16))
        self._young = grown.mark, there

    def _write_run(self, transaction: WriteTransaction, ascending: Keys, until: int, bucket: int) -> _Run:
        name = os.urandom(8)
        filter_ = empty_filter(len(ascending))
        fill(filter_, ascending)
        pages = np.ascontiguousarray(ascending[::_PAGE, 0])
        data = ascending.tobytes()
        for page, at in enumerate(range(0, len(data), 16 * _PAGE)):
            transaction.put(self._space, _page(name, page), data[at : at + 16 * _PAGE])
        transaction.put(self._space, b"f" + name, filter_.tobytes())
        transaction.put(self._space, b"i" + name, pages.tobytes())
        self._guides[name] = _Guide(filter_, pages)
        return _Run(name, len(ascending), until, bucket)

    def _merge(self, transaction: WriteTransaction, runs: list[_Run], bucket: int) -> list[_Run]:
        """Merge one group of runs: of the present bucket where many have one size, of an older one all small ones."""
        groups: dict[tuple[int, int], list[_Run]] = {}
        for run in runs:
            if run.count < LARGEST // 2:
                level = max(run.count // YOUNG, 1).bit_length() // 2 if run.bucket == bucket else -1
                groups.setdefault((run.bucket, level), []).append(run)
        for (age, level), group in groups.items():
            size, chosen = 0, list[_Run]()
            for run in group:
                if size + run.count <= LARGEST:
                    size, chosen = size + run.count, [*chosen, run]
            if len(chosen) >= (2 if level < 0 else FAN):
                keys = merged([self._read(transaction, run, range(_pages(run))) for run in chosen])
                written = self._write_run(transaction, keys, max(run.until for run in chosen), age)
                for run in chosen:
                    self._drop_run(transaction, run)
                return [run for run in runs if run not in chosen] + [written]
        return runs

    def _drop_run(self, transaction: WriteTransaction, run: _Run) -> None:
        for page in range(_pages(run)):
            transaction.delete(self._space, _page(run.name, page))
        for kind in (b"f", b"i"):
            transaction.delete(self._space, kind + run.name)

    def _note_dropped(self, transaction: WriteTransaction, lsns: npt.NDArray[np.int64], until: int) -> None:
        for block in np.unique(lsns >> _BLOCK).tolist():
            found = transaction.get(self._dropped, ordered(block))
            bits = np.frombuffer(bytearray(1 << _BLOCK - 3) if found is None else bytearray(found[8:]), np.uint8)
            within = (lsns[lsns >> _BLOCK == block] & ((1 << _BLOCK) - 1)).astype(np.int64)
            np.bitwise_or.at(bits, within >> 3, np.left_shift(1, within & 7).astype(np.uint8))
            transaction.put(self._dropped, ordered(block), struct.pack("<q", until) + bits.tobytes())

    def _forget(self, transaction: WriteTransaction, runs: list[_Run], *, now: int, horizon: int) -> list[_Run]:
        if now - self._swept < _SWEEP_EVERY:
            return runs
        self._swept = now
        oldest = now - horizon - GRACE
        for run in runs:
            if run.until < oldest:
                self._drop_run(transaction, run)
        expired = []
        for block, data in transaction.items(self._dropped):
            if struct.unpack_from("<q", data)[0] >= oldest:
                break
            expired.append(block)
        for block in expired:
            transaction.delete(self._dropped, block)
        return [run for run in runs if run.until >= oldest]


def first_of_keys(keys: pl.Series) -> Mask:
    """Which of these keys were not there before among the same."""
    words = as_words(keys)
    again: Mask = np.zeros(len(words), np.bool_)
    repeated(words, *ascending_order(words), again)
    return ~again


def as_words(keys: pl.Series) -> Keys:
    """Keys of 16 bytes as two words each."""
    if len(keys) < _FEW:
        return _joined(keys.to_list())
    found: Keys = keys.bin.reinterpret(dtype=pl.Array(pl.UInt64, 2), endianness="little").to_numpy()
    return found


def _joined(parts: Sequence[bytes]) -> Keys:
    return np.frombuffer(b"".join(parts), np.uint64).reshape(-1, 2)


def _sorted(keys: Keys) -> Keys:
    return _taken(keys, ascending_order(keys)[0])


def _taken(keys: Keys, order: npt.NDArray[np.intp]) -> Keys:
    ascending: Keys = np.empty((len(order), 2), np.uint64)
    taken(keys, order, ascending)
    return ascending


def _pages(run: _Run) -> int:
    return -(-run.count // _PAGE)


def _page(run: bytes, page: int) -> bytes:
    return b"p" + run + struct.pack(">I", page)
