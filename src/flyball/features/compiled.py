"""How the kernel's functions are compiled: to machine code without the interpreter lock, kept on disk.

Numba knows that a cached function is stale when its own file changed, not when a file changed whose functions were
compiled into it. So the cache carries a digest of all of the kernel's files and is dropped when they differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

_Function = TypeVar("_Function", bound=Callable[..., Any])
_MODULES = (
    "accumulator",
    "kernel",
    "reading",
    "batch",
    "visibility",
    "running",
    "trees",
    "moments",
    "ranges",
    "entities",
    "keys",
    "versions",
)
_checked: set[str] = set()


def compiled(function: _Function) -> _Function:
    """Compile `function` at its first call, or load what an earlier process compiled."""
    dispatcher = njit(cache=True, nogil=True)(function)
    _drop_stale(str(dispatcher.stats.cache_path))
    return cast(_Function, dispatcher)


def inlined(function: _Function) -> _Function:
    """`compiled`, into each caller: for the few lines that run for every tile."""
    dispatcher = njit(cache=True, nogil=True, forceinline=True)(function)
    _drop_stale(str(dispatcher.stats.cache_path))
    return cast(_Function, dispatcher)


def _drop_stale(folder: str) -> None:
    if folder in _checked:
        return
    _checked.add(folder)
    here = Path(__file__).parent
    digest = hashlib.sha256(b"".join((here / f"{name}.py").read_bytes() for name in _MODULES)).hexdigest()
    stamp = Path(folder) / "flyball-kernel.sha256"
    with suppress(OSError):  # a cache that cannot be written is not ours to clean
        if stamp.exists() and stamp.read_text() == digest:
            return
        for name in _MODULES:
            for index in Path(folder).glob(f"{name}.*.nbi"):
                index.unlink(missing_ok=True)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)
