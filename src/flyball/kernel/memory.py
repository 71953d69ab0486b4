"""How a process that goes through much memory keeps it: what is given back to the system at once comes back as fresh
pages, and clearing those cost a fifth of the time in which a file was loaded.

Read by the C library when a process starts (mallopt(3)), and by the allocator within Polars (jemalloc(3)), which gives
back after 10 s.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping

KEEPING = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),  # bytes that are kept, at most, when a load is over
    "_RJEM_MALLOC_CONF": "dirty_decay_ms:10000,muzzy_decay_ms:10000",
}


def keeping(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment for such a process; what is set in it already stays."""
    return KEEPING | dict(environment)


def settle() -> None:
    """What there is now is there for good: the collector need not walk through it again and again."""
    gc.collect()
    gc.freeze()
