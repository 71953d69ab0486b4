"""Values of a tensor as the Open Inference Protocol (v2) sends them: lists in JSON, or bytes in row-major order.

What is read is an array of exactly the shape and type that were declared, or an `InvalidError` that says what is wrong
and where; messages name positions and types, never values, which may be somebody's. Arrays may be read-only: those of
bytes lie in the request's body. https://github.com/open-inference/open-inference-protocol, and Triton's binary tensor
data extension.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from flyball.kernel.errors import InvalidError
from flyball.serving.tensors import DTYPES, Array, datatype_of

MAX_DIMENSIONS = 32
MAX_VALUES = 1 << 40  # in a shape, with 1 for each 0 in it: numpy multiplies in 64 bits
FEW = (
    256  # numbers for which struct's "=f", which refuses what is too large, is faster than "f" and a look at the array
)
_CODES = {  # of the struct module, which checks the range of every number while it packs them
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
_LITTLE = {name: np.dtype(dtype).newbyteorder("<") for name, dtype in DTYPES.items()}
_WANTED = {bool: "true or false", str: "a text", float: "a number", int: "a whole number"}
_FOUND = {bool: "a boolean", str: "a text", float: "a fraction", int: "a whole number", list: "a list"}


def check_shape(name: str, datatype: str, shape: Sequence[int]) -> int:
    """The number of values of a declared tensor; refuses a type that is unknown and a shape that nobody can mean."""
    if datatype not in DTYPES:
        if datatype == "BF16":
            raise bad_tensor(name, "has the datatype BF16, which is not served; send FP32, or FP16 where it is enough")
        raise bad_tensor(name, f"has the datatype {datatype!r}; known are {', '.join(DTYPES)}")
    if len(shape) > MAX_DIMENSIONS:
        raise bad_tensor(name, f"has a shape of {len(shape)} dimensions; at most {MAX_DIMENSIONS} are taken")
    count = 1
    for size in shape:
        if size < 0:
            raise bad_tensor(
                name, f"has the size {size} in its shape; sizes are 0 or more, also where the model has -1"
            )
        count *= size
    if count > MAX_VALUES or (not count and math.prod(size or 1 for size in shape) > MAX_VALUES):
        raise bad_tensor(name, f"has the shape {list(shape)}, which is larger than any tensor that is taken")
    return count


def from_list(name: str, datatype: str, shape: Sequence[int], data: list[Any], *, may_hold_booleans: bool) -> Array:
    """A tensor of a JSON list, flat or nested as its shape says; null is NaN where values are floats.

    Args:
        may_hold_booleans: whether `true` or `false` stands anywhere in the request: where it does not, numbers need no
            look at their types.
    """
    count = check_shape(name, datatype, shape)
    if data and type(data[0]) is list:
        data = _flatten(name, shape, data)
    if len(data) != count:
        raise bad_tensor(name, f"has {len(data)} values; its shape {list(shape)} holds {count}")
    code = _CODES.get(datatype)
    if code is None:
        wanted = bool if datatype == "BOOL" else str
        if data and set(map(type, data)) != {wanted}:
            raise _wrong(name, datatype, data, {wanted})
        return np.array(data, dtype=DTYPES[datatype]).reshape(shape)
    if may_hold_booleans and bool in set(map(type, data)):
        raise _wrong(name, datatype, data, {int} if code in "BHIQbhiq" else {int, float})
    form = f"={count}{code}" if count <= FEW else f"{count}{code}"
    try:
        packed = struct.pack(form, *data)
    except (struct.error, OverflowError):
        data = _numbers(name, datatype, data)
        packed = struct.pack(form, *data)
    array = np.frombuffer(packed, dtype=DTYPES[datatype])
    if count > FEW and code == "f" and np.isinf(array).any():  # JSON has no infinity: too large a number became one
        _numbers(name, datatype, data)
    return array.reshape(shape)


def from_bytes(name: str, datatype: str, shape: Sequence[int], body: bytes, start: int, size: int) -> Array:
    """A tensor of `size` bytes of `body` from `start`: in place where they are aligned, else copied."""
    count = check_shape(name, datatype, shape)
    if datatype == "BYTES":
        return _texts(name, shape, count, body, start, size)
    dtype = _LITTLE[datatype]
    if size != count * dtype.itemsize:
        raise bad_tensor(
            name,
            f"has {size} bytes of binary data; its shape {list(shape)} of {datatype} holds {count * dtype.itemsize}",
        )
    array = np.frombuffer(body, dtype=dtype, count=count, offset=start)
    if datatype == "BOOL" and count and array.view(np.uint8).max() > 1:
        raise bad_tensor(name, "has a byte that is neither 0 nor 1; a BOOL is one byte, 1 for true")
    if not array.flags.aligned:
        array = array.copy()
    return array.reshape(shape)


def to_list(array: Array) -> list[Any]:
    """An array's values for JSON, row by row; the encoder writes null for what is not finite."""
    data: list[Any] = array.ravel().tolist()
    if array.dtype.kind in "OS":
        return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in data]
    return data


def to_bytes(array: Array) -> bytes | memoryview:
    """An array as the binary extension sends it: little-endian, row by row; a text has its length before it."""
    datatype = datatype_of(array)
    if datatype != "BYTES":
        packed = np.ascontiguousarray(array.ravel(), dtype=_LITTLE[datatype])
        return packed.view(np.uint8).data
    parts: list[bytes] = []
    for value in array.ravel().tolist():
        text = value if isinstance(value, bytes) else str(value).encode()
        parts.append(len(text).to_bytes(4, "little"))
        parts.append(text)
    return b"".join(parts)


def bad_tensor(name: str, what: str) -> InvalidError:
    return InvalidError(f"the input {name!r} {what}", code="bad_tensor")


def _flatten(name: str, shape: Sequence[int], data: list[Any]) -> list[Any]:
    """The values of nested lists, level by level: each level must be of its size."""
    if not shape or len(data) != shape[0]:
        raise bad_tensor(name, f"has nested data of {len(data)} lists; its shape is {list(shape)}")
    for depth, size in enumerate(shape[1:], start=1):
        if set(map(type, data)) - {list}:
            raise bad_tensor(name, f"has data that is nested in part; nest all of it like its shape {list(shape)}")
        if set(map(len, data)) - {size}:
            raise bad_tensor(
                name, f"has nested data that is not {size} long at depth {depth}; its shape is {list(shape)}"
            )
        data = list(chain.from_iterable(data))
    return data


def _numbers(name: str, datatype: str, data: list[Any]) -> list[Any]:
    """Numbers that did not pack as they are: with NaN for null where that is allowed, or an error that says why."""
    dtype = np.dtype(DTYPES[datatype])
    whole = dtype.kind in "iu"
    allowed: set[type] = {int} if whole else {int, float}
    found = [math.nan if value is None else value for value in data] if not whole else data
    if set(map(type, found)) - allowed:
        raise _wrong(name, datatype, found, allowed)
    low, high = (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)) if whole else (-_largest(dtype), _largest(dtype))
    for position, value in enumerate(found):
        if value < low or value > high:
            raise bad_tensor(
                name, f"has a value out of range at position {position}, not {datatype}: from {low} to {high}"
            )
    return found


def _largest(dtype: np.dtype[Any]) -> float:
    return float(np.finfo(dtype).max)


def _wrong(name: str, datatype: str, data: list[Any], allowed: set[type]) -> InvalidError:
    position = next(i for i, value in enumerate(data) if type(value) not in allowed)
    found = _FOUND.get(type(data[position]), "null" if data[position] is None else "an object")
    wanted = _WANTED[float if float in allowed else next(iter(allowed))]
    return bad_tensor(name, f"has data that is not {datatype}: {found} at position {position}, where {wanted} belongs")


def _texts(name: str, shape: Sequence[int], count: int, body: bytes, start: int, size: int) -> Array:
    """Texts with a length of 4 bytes before each."""
    end = start + size
    if count * 4 > size:
        raise bad_tensor(
            name, f"has {size} bytes of binary data; {count} texts with their lengths take {count * 4} or more"
        )
    texts: list[str] = []
    at = start
    try:
        for _ in range(count):
            first = at + 4
            at = first + int.from_bytes(body[at:first], "little")
            if first > end or at > end:
                raise bad_tensor(name, f"has a text, the one at {len(texts)}, whose length is beyond its {size} bytes")
            texts.append(body[first:at].decode())
    except UnicodeDecodeError:
        raise bad_tensor(name, f"has a text, the one at {len(texts)}, that is not UTF-8") from None
    if at != end:
        raise bad_tensor(name, f"has {end - at} bytes of binary data after its last text")
    array = np.empty(count, dtype=object)
    array[:] = texts
    return array.reshape(shape)
