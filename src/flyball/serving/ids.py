"""Prediction ids, made fast: of the same form and order as `kernel.ids.new_id`."""

from __future__ import annotations

import os
import time

PREFIX = "p_"
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = tuple(a + b for a in _ALPHABET for b in _ALPHABET)  # ten bits each
_ROOM = 512  # ids whose randomness is drawn at once
_LETTERS = bytes(_ALPHABET.encode()[value & 31] for value in range(256))  # five of a random byte's bits


class PredictionIds:
    """`p_`, ten characters of milliseconds, sixteen of randomness. To be made after a fork, or workers draw alike."""

    def __init__(self) -> None:
        self._random = ""
        self._at = 0
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
        at = self._at
        if at == len(self._random):
            self._random = os.urandom(16 * _ROOM).translate(_LETTERS).decode()
            at = 0
        self._at = at + 16
        return self._prefix + self._random[at : at + 16]
