"""The key index against a dictionary: live and bulk, within one batch, over restarts, failures and forgetting."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import suppress

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.features import bloom
from flyball.features import index as module
from flyball.features.index import GRACE, KeyIndex, as_words
from flyball.kernel.times import DAY, HOUR
from flyball.storage.online import MemoryStore

HORIZON = DAY


@pytest.fixture(autouse=True)
def small_runs() -> Iterator[None]:
    """Sizes at which a few hundred keys fill all levels."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"YOUNG": 16, "LARGEST": 256, "FAN": 3, "_PAGE": 5}.items():
            patch.setattr(module, name, value)
        yield


def key(number: int) -> bytes:
    """Many have the same first word, so that the second counts too."""
    return (number % 23 * 2**56).to_bytes(8, "little") + (number * 2**40 + number).to_bytes(8, "little")


def frame(numbers: list[int], first_lsn: int, at: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "_key": pl.Series([key(n) for n in numbers], dtype=pl.Binary),
            "_lsn": pl.Series(range(first_lsn, first_lsn + len(numbers)), dtype=pl.Int64),
            "_event_time": pl.Series([at] * len(numbers), dtype=pl.Int64),
        }
    )


def fail(store: MemoryStore, index: KeyIndex, batch: pl.DataFrame) -> None:
    with suppress(ZeroDivisionError), store.write() as transaction:
        index.add(transaction, batch, now=0, horizon=HORIZON)
        raise ZeroDivisionError


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.sampled_from([30, 300, 3_000]))
def test_the_index_is_a_dictionary_of_first_lsns(seed: int, steps: int, domain: int) -> None:
    chance, store, index = random.Random(seed), MemoryStore(), KeyIndex("S")
    first: dict[int, int] = {}
    lsn = 1
    for _ in range(steps):
        numbers = [chance.randrange(domain) for _ in range(chance.choice([1, 3, 10, 60]))]
        batch = frame(numbers, lsn, 0)
        if chance.random() < 0.2:
            fail(store, index, batch)
        if chance.random() < 0.2:
            index = KeyIndex("S")  # a restart
        with store.write() as transaction:
            flags = index.add(transaction, batch, now=0, horizon=HORIZON)
        for place, number in enumerate(numbers):
            assert flags[place] == (number not in first)
            first.setdefault(number, lsn + place)
        with store.read() as look:
            assert index.is_first(look, batch["_lsn"].to_numpy()).tolist() == flags.tolist()
        lsn += len(numbers)
    with store.read() as look:
        asked = np.arange(1, lsn, dtype=np.int64)
        assert KeyIndex("S").is_first(look, asked).sum() == len(first)
        assert len(index._runs(look)) < 3 * 4 + steps // 8


def test_a_key_is_kept_for_lateness_and_a_week_and_then_forgotten() -> None:
    store, index = MemoryStore(), KeyIndex("S")

    def first(numbers: list[int], lsn: int, now: int, at: int = 0) -> list[bool]:
        with store.write() as transaction:
            return index.add(transaction, frame(numbers, lsn, at), now=now, horizon=HORIZON).tolist()  # type: ignore[no-any-return]

    assert first([1], 1, 0) == [True]
    assert first(list(range(100, 140)), 2, 0, at=HOUR) == [True] * 40
    assert first([1], 50, 0) == [False]
    kept = HORIZON + GRACE
    assert first([1, 100], 51, kept) == [False, False], "both are as old as they may be"
    assert first([2], 53, kept + 1) == [True]
    assert first([100], 54, kept + HOUR) == [False], "its event time was an hour later"
    for lsn, now in ((60, 4 * kept), (70, 8 * kept), (5_000, 12 * kept)):
        assert first([1, 100], lsn, now) == [True, True]
        assert first([1, 100], lsn + 2, now) == [False, False]
    with store.read() as look:
        left = [name for name, _ in look.items("key/S") if name[:1] == b"p"]
        assert len(left) <= 1, "runs that are too old are gone"
        assert [len(bits) for _, bits in look.items("dropped/S")] == [8 + 512], "and what is noted of dropped events"


def test_words_are_read_as_they_lie() -> None:
    assert as_words(pl.Series([bytes(range(16))])).tolist() == [[0x0706050403020100, 0x0F0E0D0C0B0A0908]]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 299), max_size=40), st.booleans())
def test_keys_that_are_erased_are_as_if_they_had_never_come(seed: int, gone: list[int], restart: bool) -> None:
    chance, store, index = random.Random(seed), MemoryStore(), KeyIndex("S")
    came: list[int] = []
    for _ in range(12):
        numbers = [chance.randrange(300) for _ in range(chance.choice([1, 10, 60]))]
        with store.write() as transaction:
            index.add(transaction, frame(numbers, len(came) + 1, 0), now=0, horizon=HORIZON)
        came += numbers
    with store.write() as transaction:
        index.erase(transaction, sorted(key(number) for number in set(gone)))
    index = KeyIndex("S") if restart else index
    with store.write() as transaction:
        flags = index.add(transaction, frame(list(range(300)), len(came) + 1, 0), now=0, horizon=HORIZON)
    left = set(came) - set(gone)
    assert flags.tolist() == [number not in left for number in range(300)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0, 1, 2, 100, 5_000]), st.sampled_from([1, 2**20, 2**33, 2**64 - 1]))
def test_keys_are_put_in_the_order_of_their_first_words(seed: int, count: int, largest: int) -> None:
    chance = np.random.default_rng(seed)
    keys = chance.integers(0, largest, (count, 2), dtype=np.uint64, endpoint=True)
    order, firsts = bloom.ascending_order(keys)
    assert sorted(order.tolist()) == list(range(count))
    assert (np.diff(keys[order, 0].astype(object)) >= 0).all()
    assert firsts.tolist() == keys[order, 0].tolist()
    by_radix = np.empty(count, np.intp)
    if bloom.radix_order(keys, by_radix, firsts):  # also where there are too few for it to be asked
        assert firsts.tolist() == keys[by_radix, 0].tolist() == sorted(keys[:, 0].tolist())


@given(st.lists(st.lists(st.integers(0, 9), max_size=8), min_size=1, max_size=7))
def test_sorted_lists_of_keys_are_merged_into_one(numbers: list[list[int]]) -> None:
    runs = [
        np.array([[n, 100 * i + n] for n in sorted(run)], np.uint64).reshape(-1, 2) for i, run in enumerate(numbers)
    ]
    found = bloom.merged(runs)
    assert (np.diff(found[:, 0].astype(np.int64)) >= 0).all()
    assert sorted(found.tolist()) == sorted(key for run in runs for key in run.tolist())
