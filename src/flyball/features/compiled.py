"""How the kernel's functions are compiled: to machine code without the interpreter lock, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

from flyball.kernel.caches import drop_stale

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
_HERE = Path(__file__).parent


def compiled(function: _Function) -> _Function:
    """Compile `function` at its first call, or load what an earlier process compiled."""
    dispatcher = njit(cache=True, nogil=True)(function)
    drop_stale(Path(str(dispatcher.stats.cache_path)), _HERE, _MODULES)
    return cast(_Function, dispatcher)


def inlined(function: _Function) -> _Function:
    """`compiled`, into each caller: for the few lines that run for every tile."""
    dispatcher = njit(cache=True, nogil=True, forceinline=True)(function)
    drop_stale(Path(str(dispatcher.stats.cache_path)), _HERE, _MODULES)
    return cast(_Function, dispatcher)
