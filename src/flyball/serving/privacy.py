"""Values of pii columns as keyed digests: equal values stay equal, and nobody without the key can tell them."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any

from flyball.kernel.ids import canonical

KEY_FILE = "pii.key"
PREFIX = "pii:"


def pii_key(predictions: Path) -> bytes:
    """The key of a state directory, in its `predictions/pii.key`; made once, by whichever process asks first."""
    path = predictions / KEY_FILE
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    predictions.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{KEY_FILE}.{os.getpid()}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(os.urandom(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(beside, path)  # fails where another process was first: its key stands
    except FileExistsError:
        pass
    finally:
        beside.unlink()
    return path.read_bytes()


def pii_digest(key: bytes, value: Any) -> Any:
    """`pii:` and 32 hex digits of HMAC-SHA-256 of the value; null stays null.

    >>> pii_digest(b"k", "4111") == pii_digest(b"k", "4111") != pii_digest(b"k", "4112")
    True
    """
    if value is None:
        return None
    return PREFIX + hmac.new(key, canonical(value), hashlib.sha256).hexdigest()[:32]
