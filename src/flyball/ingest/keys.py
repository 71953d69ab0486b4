"""The identity of an event: 128 bits of SipHash-2-4 over the canonical spelling of its key, or of its row.

The spelling is a sequence of 64-bit words, and injective: a text is a mark with its length in bytes, then its bytes,
padded with zeros; a number is a mark and a word (a float its bits, -0.0 as 0.0); a null is a mark of its own. Where a
source has no key, all declared columns and the event time count, each after its name, nulls left out: so a nullable
column added later does not change the identity of the events before it, nor does the order of the declaration.

The key of the hash is fixed (`SIP_KEY`): the same event has the same identity on every machine and in every version,
live and in a file. Among n events that differ, two have one identity, and one of them is lost as a duplicate, with a
probability of about n²/2^129: 10^-15 for 10^12 events. The hash is no defence against a sender who constructs
collisions: its key is known.

Source: Aumasson, Bernstein, "SipHash: a fast short-input PRF" (2012), with the output of 128 bits.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.arrow import text_chunks
from flyball.ingest.compiled import Flags, Words, absorb_prefix, absorb_texts, absorb_words, finish

KEY_BYTES = 16
SIP_KEY = b"flyball event id"
_NULL, _TEXT, _FLOAT, _INTEGER, _BOOLEAN, _NAME, _TIME = (np.uint64(mark) for mark in range(1, 8))
_NOTHING = np.uint64(0)


def event_keys(frame: pl.DataFrame, spec: SourceSpec) -> pl.Series:
    """`_key` (`Binary`, 16 bytes each) of the rows of a physical frame."""
    return as_series(event_words(frame, spec))


def key_words(keys: pl.Series) -> Words:
    """`_key` as two words a row (n × 2)."""
    words: Words = keys.bin.reinterpret(dtype=pl.Array(pl.UInt64, 2), endianness="little").to_numpy()
    return words


def as_series(words: Words) -> pl.Series:
    """Two words a row as `_key`."""
    octets = pl.Series("_key", np.ascontiguousarray(words).view(np.uint8).reshape(len(words), KEY_BYTES))
    return octets.cast(pl.List(pl.UInt8)).cast(pl.Binary)


def event_words(frame: pl.DataFrame, spec: SourceSpec) -> Words:
    """`event_keys` as two words a row (n × 2)."""
    hash = _Hash(frame.height)
    if spec.key:
        for name in spec.key:
            hash.add(frame[_physical_name(spec, name)], null=_NULL)
    else:
        for name in sorted(column.name for column in spec.columns):
            hash.add(frame[name], null=_NOTHING, prefix=_name_words(name))
        hash.numbers(frame["_event_time"].cast(pl.Int64).to_numpy().view(np.uint64), hash.all, _TIME, _NOTHING)
    return hash.result()


def _physical_name(spec: SourceSpec, name: str) -> str:
    """A key may name the event time column, which a physical frame carries as `_event_time`."""
    declared = any(column.name == name for column in spec.columns)
    return "_event_time" if not declared and name == spec.event_time else name


def _name_words(name: str) -> Words:
    data = name.encode()
    padded = data + bytes(-len(data) % 8)
    return np.concatenate([np.array([int(_NAME) | len(data) << 8], np.uint64), np.frombuffer(padded, "<u8")])


class _Hash:
    """SipHash states of n rows, fed a column at a time."""

    def __init__(self, height: int) -> None:
        k0, k1 = np.frombuffer(SIP_KEY, "<u8")
        start = [
            k0 ^ np.uint64(0x736F6D6570736575),
            k1 ^ np.uint64(0x646F72616E646F6D) ^ np.uint64(0xEE),
            k0 ^ np.uint64(0x6C7967656E657261),
            k1 ^ np.uint64(0x7465646279746573),
        ]
        self._states: Words = np.tile(np.array(start, np.uint64), (height, 1))
        self._lengths: Words = np.zeros(height, np.uint64)
        self.all: Flags = np.ones(height, np.bool_)

    def add(self, series: pl.Series, *, null: np.uint64, prefix: Words | None = None) -> None:
        """One physical column; `prefix` before each value that is not null."""
        valid = series.is_not_null().to_numpy() if series.null_count() else self.all
        if prefix is not None:
            absorb_prefix(self._states, self._lengths, valid, prefix)
        if series.dtype == pl.String:
            self._texts(series, valid, null)
        elif series.dtype == pl.Float64:
            values = series.fill_null(0.0).to_numpy() + 0.0  # -0.0 is 0.0
            self.numbers(values.view(np.uint64), valid, _FLOAT, null)
        else:
            mark = _BOOLEAN if series.dtype == pl.Boolean else _INTEGER
            integers = series.cast(pl.Int64).fill_null(0).to_numpy()
            self.numbers(integers.view(np.uint64), valid, mark, null)

    def numbers(self, values: Words, valid: Flags, mark: np.uint64, null: np.uint64) -> None:
        absorb_words(self._states, self._lengths, valid, mark, null, values)

    def _texts(self, series: pl.Series, valid: Flags, null: np.uint64) -> None:
        first = 0
        with text_chunks(series) as chunks:
            for chunk in chunks:
                absorb_texts(
                    self._states, self._lengths, valid, _TEXT, null, first, chunk.count, np.uint64(chunk.views),
                    chunk.buffers,
                )  # fmt: skip
                first += chunk.count

    def result(self) -> Words:
        out: Words = np.empty((len(self._lengths), 2), np.uint64)
        finish(self._states, self._lengths, out)
        return out
