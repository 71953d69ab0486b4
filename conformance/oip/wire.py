"""Requests and replies of the protocol as bytes, written and read without any help of the server under test.

Arrays are numpy's; the elements of a BYTES tensor are `bytes` in an array of objects.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import httpx
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

HEADER = "Inference-Header-Content-Length"
DTYPES: dict[str, Any] = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BYTES": np.object_,
}
_NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class Body:
    """A request's body; `header_length`: bytes of JSON at its beginning where others follow, else None."""

    data: bytes
    header_length: int | None = None

    @property
    def headers(self) -> dict[str, str]:
        if self.header_length is None:
            return {"Content-Type": "application/json"}
        return {"Content-Type": "application/octet-stream", HEADER: str(self.header_length)}


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply to an inference request: its JSON, and its outputs by name in their order."""

    document: dict[str, Any]
    outputs: dict[str, Array]
    binary: frozenset[str]  # the outputs that came as bytes


def datatype_of(array: Array) -> str:
    return _NAMES[array.dtype]


def texts(*values: str | bytes) -> Array:
    """A one-dimensional BYTES tensor."""
    array = np.empty(len(values), dtype=object)
    array[:] = [value.encode() if isinstance(value, str) else value for value in values]
    return array


def tensor(name: str, array: Array, **changes: Any) -> dict[str, Any]:
    """An input as JSON, its data flat."""
    described = {"name": name, "datatype": datatype_of(array), "shape": list(array.shape), "data": flat(array)}
    return described | changes


def flat(array: Array) -> list[Any]:
    return [value.decode() if isinstance(value, bytes) else value for value in array.ravel().tolist()]


def nested(array: Array) -> Any:
    """An array's values as lists in lists."""
    if array.ndim <= 1:
        return flat(array)
    return [nested(part) for part in array]


def pack(array: Array) -> bytes:
    """An array's values as the binary tensor data extension has them."""
    if array.dtype == object:
        return b"".join(len(value).to_bytes(4, "little") + value for value in array.ravel().tolist())
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def unpack(raw: bytes, datatype: str, shape: Sequence[int]) -> Array:
    if datatype != "BYTES":
        return (
            np.frombuffer(raw, dtype=np.dtype(DTYPES[datatype]).newbyteorder("<"))
            .astype(DTYPES[datatype])
            .reshape(shape)
        )
    values: list[bytes] = []
    at = 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        values.append(raw[at + 4 : at + 4 + length])
        at += 4 + length
    assert at == len(raw), f"a BYTES tensor ends {at - len(raw)} bytes after its binary data"
    return texts(*values).reshape(shape)


def json_body(document: Any) -> Body:
    return Body(json.dumps(document, ensure_ascii=False).encode())


def request(inputs: Mapping[str, Array], *, binary: Collection[str] = (), **more: Any) -> Body:
    """A request with these inputs, those in `binary` as bytes; `more` are other members of its JSON."""
    described: list[dict[str, Any]] = []
    parts: list[bytes] = []
    for name, array in inputs.items():
        found = tensor(name, array)
        if name in binary:
            del found["data"]
            parts.append(pack(array))
            found["parameters"] = {"binary_data_size": len(parts[-1])}
        described.append(found)
    return with_bytes({"inputs": described, **more}, b"".join(parts), plain=not binary)


def with_bytes(document: Any, raw: bytes, *, plain: bool = False) -> Body:
    """JSON with bytes after it; `plain`: without the header, which is right where there are none."""
    head = json.dumps(document, ensure_ascii=False).encode()
    return Body(head + raw, None if plain else len(head))


def strict_json(text: bytes | str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"the reply holds {constant}, which is not JSON")

    return json.loads(text, parse_constant=refuse)


def read(reply: httpx.Response) -> Answer:
    """Read a reply to an inference request, and hold it to what the protocol says of its form."""
    assert reply.status_code == 200, f"the server answers {reply.status_code}: {reply.text[:300]}"
    body, length = reply.content, reply.headers.get(HEADER)
    if length is None:
        head, raw = body, b""
    else:
        assert length.isdigit(), f"{HEADER} is {length!r}"
        assert int(length) <= len(body), f"{HEADER} is {length}, the body has {len(body)} bytes"
        head, raw = body[: int(length)], body[int(length) :]
    document = strict_json(head)
    assert isinstance(document, dict), "the reply is no JSON object"
    outputs: dict[str, Array] = {}
    binary: set[str] = set()
    for described in document["outputs"]:
        name, shape, datatype = described["name"], described["shape"], described["datatype"]
        assert datatype in DTYPES, f"the output {name!r} has the datatype {datatype!r}"
        assert all(isinstance(size, int) and size >= 0 for size in shape), f"the output {name!r} has the shape {shape}"
        size = (described.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[name] = from_json(name, described["data"], datatype, shape)
        else:
            assert "data" not in described, f"the output {name!r} has both data and binary data"
            assert size <= len(raw), f"the output {name!r} names {size} bytes of binary data; {len(raw)} are left"
            outputs[name], raw = unpack(raw[:size], datatype, shape), raw[size:]
            binary.add(name)
    assert not raw, f"{len(raw)} bytes after the last output belong to none"
    return Answer(document, outputs, frozenset(binary))


def from_json(name: str, data: Any, datatype: str, shape: Sequence[int]) -> Array:
    values = _flatten(data)
    assert len(values) == math.prod(shape), f"the output {name!r} has {len(values)} values in the shape {list(shape)}"
    if datatype == "BYTES":
        assert all(isinstance(value, str) for value in values), f"the output {name!r} has values that are no strings"
        return texts(*values).reshape(shape)
    allowed: dict[str, tuple[type, ...]] = {"B": (bool,), "I": (int,), "U": (int,), "F": (int, float, type(None))}
    wrong = [value for value in values if type(value) not in allowed[datatype[0]]]
    assert not wrong, f"the output {name!r} has {wrong[0]!r} among its values of {datatype}"
    return np.array([math.nan if value is None else value for value in values], dtype=DTYPES[datatype]).reshape(shape)


def same(found: Array, expected: Array) -> None:
    """Equal in type, shape and every value, NaN with NaN."""
    assert found.dtype == expected.dtype, f"{found.dtype} in place of {expected.dtype}"
    assert found.shape == expected.shape, f"the shape {found.shape} in place of {expected.shape}"
    if expected.dtype == object:
        assert found.ravel().tolist() == expected.ravel().tolist()
    else:
        np.testing.assert_array_equal(found, expected)


def _flatten(data: Any) -> list[Any]:
    if not isinstance(data, list):
        return [data]
    if not any(isinstance(value, list) for value in data):
        return data
    return [value for part in data for value in _flatten(part)]
