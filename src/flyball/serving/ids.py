"""Prediction ids, made fast: of the same form and order as `kernel.ids.new_id`."""

from __future__ import annotations

import os
import time

PREFIX = "p_"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)  # ten bits each
_BLOCK = 4096


class PredictionIds:
    """`p_`, ten characters of milliseconds, sixteen of randomness. To be made after a fork, or workers draw alike."""

    def __init__(self) -> None:
        self._random = b""
        self._at = _BLOCK
        self._millisecond = -1
        self._prefix = ""

    def new(self) -> str:
        """A unique id that sorts by creation time.

        >>> len(PredictionIds().new())
        28
        """
        millisecond = time.time_ns() // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._prefix = PREFIX + "".join(_PAIRS[(millisecond >> shift) & 1023] for shift in (40, 30, 20, 10, 0))
        if self._at + 10 > len(self._random):
            self._random = os.urandom(_BLOCK)
            self._at = 0
        number = int.from_bytes(self._random[self._at : self._at + 10], "little")
        self._at += 10
        p = _PAIRS
        return (
            f"{self._prefix}{p[number & 1023]}{p[number >> 10 & 1023]}{p[number >> 20 & 1023]}{p[number >> 30 & 1023]}"
            f"{p[number >> 40 & 1023]}{p[number >> 50 & 1023]}{p[number >> 60 & 1023]}{p[number >> 70]}"
        )
