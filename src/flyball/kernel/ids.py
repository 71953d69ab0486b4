"""Identifiers and digests."""

from __future__ import annotations

import hashlib
import json
import os
import time
from typing import Any

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case: sorts as the number does


def new_id(prefix: str) -> str:
    """A unique id that sorts by creation time: prefix, 10 characters of milliseconds, 16 of randomness.

    >>> new_id("run").startswith("run_")
    True
    """
    number = (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big")
    text = ""
    for _ in range(26):
        text = _ALPHABET[number & 31] + text
        number >>= 5
    return f"{prefix}_{text}"


def canonical(data: Any) -> bytes:
    """The one JSON spelling of plain data: sorted keys, no spaces, UTF-8. NaN and infinity are refused."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(data: Any) -> str:
    """SHA-256 in hex of `canonical(data)`; bytes are hashed as they are."""
    return hashlib.sha256(data if isinstance(data, bytes) else canonical(data)).hexdigest()


def short(full: str) -> str:
    """The first 12 characters of a digest, for people."""
    return full[:12]
