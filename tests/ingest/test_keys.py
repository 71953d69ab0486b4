"""Identities are the standard hash of an injective spelling, the same for live events and files."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.define.spec import ColumnSpec, ColumnType, SourceSpec
from flyball.ingest.keys import SIP_KEY, as_series, event_keys, key_words
from flyball.ingest.seen import Seen, first_of

_MASK = 2**64 - 1


def siphash_128(key: bytes, message: bytes) -> bytes:
    """SipHash-2-4 with 128 bits, from the paper, byte by byte."""
    k0, k1 = struct.unpack("<QQ", key)
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D ^ 0xEE, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def rotate(x: int, by: int) -> int:
        return (x << by | x >> (64 - by)) & _MASK

    def rounds(count: int) -> None:
        for _ in range(count):
            v[0] = (v[0] + v[1]) & _MASK
            v[2] = (v[2] + v[3]) & _MASK
            v[1], v[3] = rotate(v[1], 13) ^ v[0], rotate(v[3], 16) ^ v[2]
            v[0] = rotate(v[0], 32)
            v[2] = (v[2] + v[1]) & _MASK
            v[0] = (v[0] + v[3]) & _MASK
            v[1], v[3] = rotate(v[1], 17) ^ v[2], rotate(v[3], 21) ^ v[0]
            v[2] = rotate(v[2], 32)

    end = len(message) % 8
    padded = message + bytes(7 - end) + bytes([len(message) & 0xFF])
    for (word,) in struct.iter_unpack("<Q", padded):
        v[3] ^= word
        rounds(2)
        v[0] ^= word
    v[2] ^= 0xEE
    rounds(4)
    first = v[0] ^ v[1] ^ v[2] ^ v[3]
    v[1] ^= 0xDD
    rounds(4)
    return struct.pack("<QQ", first, v[0] ^ v[1] ^ v[2] ^ v[3])


def spec(*columns: tuple[str, ColumnType], key: tuple[str, ...] = ()) -> SourceSpec:
    return SourceSpec(
        name="S",
        columns=tuple(ColumnSpec(name=n, type=t, nullable=True) for n, t in columns),
        event_time="at",
        key=key,
    )


def text(mark: int, value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", mark | len(data) << 8) + data + bytes(-len(data) % 8)


def test_the_reference_gives_the_published_vector() -> None:
    message = bytes(range(15))
    assert siphash_128(bytes(range(16)), message).hex() == "5493e99933b0a8117e08ec0f97cfc3d9"


def test_an_identity_is_the_hash_of_the_documented_spelling() -> None:
    source = spec(("s", "string"), ("i", "integer"), ("f", "float"), ("b", "boolean"), key=("s", "i", "f", "b"))
    long = "a text of more than twelve bytes, é"
    frame = pl.DataFrame({"s": ["", long, None], "i": [1, -1, None], "f": [0.5, -0.0, None], "b": [True, False, None]})
    spelled = [
        text(2, "") + struct.pack("<QqQdQQ", 4, 1, 3, 0.5, 5, 1),
        text(2, long) + struct.pack("<QqQdQQ", 4, -1, 3, 0.0, 5, 0),
        struct.pack("<QQQQ", 1, 1, 1, 1),
    ]
    assert event_keys(frame, source).to_list() == [siphash_128(SIP_KEY, message) for message in spelled]


def test_identities_stay_the_same_in_every_version() -> None:
    keyed = spec(("id", "string"), key=("id",))
    assert (
        event_keys(pl.DataFrame({"id": ["p1", "ev0000000000"]}), keyed)[0].hex() == "aa71e6bd35e85f60f065ad8f51542d66"
    )
    whole = spec(("b", "string"), ("a", "integer"))
    frame = pl.DataFrame({"b": ["x"], "a": [7], "_event_time": [1_700_000_000_000_000]})
    assert event_keys(frame, whole)[0].hex() == "eaf2e2b0330b2e3cb983686dffb9f8f9"
    spelled = text(6, "a") + struct.pack("<Qq", 4, 7) + text(6, "b") + text(2, "x")
    spelled += struct.pack("<Qq", 7, 1_700_000_000_000_000)
    assert event_keys(frame, whole)[0] == siphash_128(SIP_KEY, spelled)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.none() | st.text(max_size=30), st.none() | st.text(max_size=3)), max_size=20), st.data())
def test_any_text_is_read_where_it_lies(rows: list[tuple[Any, Any]], data: st.DataObject) -> None:
    source = spec(("a", "string"), ("b", "string"), key=("a", "b"))
    frame = pl.DataFrame(rows, schema={"a": pl.String, "b": pl.String}, orient="row")
    cut = data.draw(st.integers(0, len(rows)))
    chunked = pl.concat([frame[:cut], frame[cut:]], rechunk=False)  # more than one chunk, and slices
    expected = [
        siphash_128(SIP_KEY, b"".join(struct.pack("<Q", 1) if v is None else text(2, v) for v in row)) for row in rows
    ]
    assert event_keys(chunked, source).to_list() == expected
    assert event_keys(frame[cut:], source).to_list() == expected[cut:]


def test_keys_are_words_and_back() -> None:
    words = np.array([[1, 2**63], [0, 0]], np.uint64)
    assert key_words(as_series(words)).tolist() == words.tolist()
    assert as_series(words).to_list() == [struct.pack("<QQ", *row) for row in words.tolist()]
    assert len(as_series(words[:0])) == 0


@pytest.mark.parametrize("distinct", [60_000, 20_000, 50, 1])
def test_the_first_of_each_key_is_found_in_a_large_batch(distinct: int) -> None:
    random = np.random.default_rng(distinct)
    pool = random.integers(0, 2**63, (distinct, 2), dtype=np.uint64)
    keys = pool[random.integers(0, distinct, 40_000)]
    first = np.zeros(len(keys), np.bool_)
    first[np.unique(keys, axis=0, return_index=True)[1]] = True
    assert first_of(keys).tolist() == first.tolist()
    assert first_of(pool).all()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=60), st.integers(1, 8))
def test_the_first_of_each_key_is_found_and_a_load_remembers_the_newest(rows: list[tuple[int, int]], size: int) -> None:
    keys = np.array(rows, np.uint64).reshape(-1, 2) + np.array([0, 9], np.uint64)
    seen: set[tuple[int, ...]] = set()
    expected = [not (row in seen or seen.add(row)) for row in map(tuple, keys.tolist())]  # type: ignore[func-returns-value]
    assert first_of(keys).tolist() == expected
    whole, bounded = Seen(1_000), Seen(size)
    before: list[tuple[int, ...]] = []
    for start in range(0, len(keys), size):
        part = keys[start : start + size]
        recent = set(before[-size:])
        taken = zip(part.tolist(), whole.take(part).tolist(), bounded.take(part).tolist(), strict=True)
        for row, known, recalled in taken:
            assert known == (tuple(row) in before)
            assert recalled or tuple(row) not in recent
            assert known or not recalled
            before.append(tuple(row))
