"""How the kernel's functions are compiled: to machine code without the interpreter lock, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from numba import njit

from flyball.kernel.caches import drop_stale

_Function = TypeVar("_Function", bound=Callable[..., Any])
_MODULES = ("lanes", "sections", "coding", "scanning", "walking", "adding", "kernel")


def compiled(function: _Function) -> _Function:
    """Compile `function` at its first call, or load what an earlier process compiled.

    Divisions are NumPy's: by zero gives infinity, and no function has a path for errors.
    """
    dispatcher = njit(cache=True, nogil=True, error_model="numpy")(function)
    drop_stale(Path(str(dispatcher.stats.cache_path)), Path(__file__).parent, _MODULES)
    return cast(_Function, dispatcher)
