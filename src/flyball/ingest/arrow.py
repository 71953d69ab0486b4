"""The memory of a text column, by Arrow's C stream interface, so that compiled code reads it without a copy.

https://arrow.apache.org/docs/format/CStreamInterface.html; texts come as views of 16 bytes: the length, then up to 12
bytes of text, or four of them, the number of a buffer and the place in it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from flyball.kernel.errors import InternalError

INLINE = 12  # bytes of a text that stand in its view


class _Schema(ctypes.Structure):
    _fields_ = [
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_void_p),
        ("flags", ctypes.c_int64),
        ("n_children", ctypes.c_int64),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("private", ctypes.c_void_p),
    ]


class _Array(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("length", "null_count", "offset", "n_buffers", "n_children")),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("children", ctypes.c_void_p),
        ("dictionary", ctypes.c_void_p),
        ("release", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
        ("private", ctypes.c_void_p),
    ]


_CALL = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


class _Stream(ctypes.Structure):
    _fields_ = [
        ("get_schema", _CALL),
        ("get_next", _CALL),
        ("get_last_error", ctypes.c_void_p),
        ("release", ctypes.c_void_p),
        ("private", ctypes.c_void_p),
    ]


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype = ctypes.c_void_p
_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]


@dataclass(frozen=True, kw_only=True, slots=True)
class TextChunk:
    """Consecutive texts: the address of their views, and the addresses of the buffers that the long ones lie in."""

    count: int
    views: int
    buffers: np.ndarray[Any, np.dtype[np.uint64]]


@contextmanager
def text_chunks(series: pl.Series) -> Iterator[Iterator[TextChunk]]:
    """The chunks of a `String` series; their memory is there until each next one is asked for."""
    capsule = series.__arrow_c_stream__(None)
    at = _pointer(capsule, b"arrow_array_stream")
    stream = _Stream.from_address(at)
    schema = _Schema()
    code = stream.get_schema(at, ctypes.byref(schema))
    form = schema.format if code == 0 else b"nothing"
    if schema.release:
        schema.release(ctypes.addressof(schema))
    if form != b"vu":
        raise InternalError(f"a text column came as {form!r} and not as views", code="unknown_arrow_format")
    yield _chunks(stream, at)
    del capsule  # it owns the stream


def _chunks(stream: _Stream, at: int) -> Iterator[TextChunk]:
    while True:
        array = _Array()
        if stream.get_next(at, ctypes.byref(array)) != 0:
            raise InternalError("a text column could not be read", code="unknown_arrow_format")
        if not array.release:
            return
        try:
            texts = [array.buffers[i] or 0 for i in range(2, array.n_buffers - 1)]  # the last has their lengths
            yield TextChunk(
                count=array.length,
                views=(array.buffers[1] or 0) + 16 * array.offset,
                buffers=np.array(texts or [0], dtype=np.uint64),
            )
        finally:
            array.release(ctypes.addressof(array))
