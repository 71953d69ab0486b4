"""An inference request of the Open Inference Protocol (v2), read once: JSON, JSON with bytes after it, or bytes alone.

    request = read_request(body, header_length)
    request.tensors["x"], request.outputs

`header_length` is the header `Inference-Header-Content-Length`: how much of the body is JSON, None for all of it. With
0 the body is the one input's values and nothing else (Triton's raw binary request): the model must say what it takes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.serving.manifest import TensorSpec
from flyball.serving.oip_values import bad_tensor, from_bytes, from_list
from flyball.serving.ports import Tensors
from flyball.serving.tensors import DTYPES

MAX_TIMEOUT_US = 1 << 53  # what JSON's numbers carry exactly; 285 years


class InferRequest(msgspec.Struct, gc=False):
    """One request.

    Args:
        tensors: its inputs by name, in its order; they may be read-only.
        outputs: the outputs that it asks for, in its order, each with whether it is to come as bytes; none: all.
        binary: whether outputs that are not named come as bytes.
        id: to be echoed; None: there is none.
        parameters: as they were sent.
        timeout_us: what the client will wait, in microseconds; None: it does not say.
        priority: 1 is the highest; None: it does not say.
    """

    tensors: Tensors
    outputs: dict[str, bool] = {}
    binary: bool = False
    id: str | None = None
    parameters: Mapping[str, Any] = {}
    timeout_us: int | None = None
    priority: int | None = None

    def check_outputs(self, known: Iterable[str]) -> None:
        """Refuse an output that the model does not have (`bad_output`), before it is asked anything."""
        names = tuple(known)
        for name in self.outputs:
            if name not in names:
                raise InvalidError(
                    f"the model has no output {name!r}: {did_you_mean(name, names)}",
                    code="bad_output",
                    hint="GET /v2/models/MODEL lists its outputs; without `outputs` all of them come",
                )

    def select(self, outputs: Tensors) -> Tensors:
        """The outputs that are asked for, in the order in which they are."""
        if not self.outputs:
            return outputs
        self.check_outputs(outputs)
        return {name: outputs[name] for name in self.outputs}


class _Binary(msgspec.Struct, gc=False):
    binary_data_size: int | None = None


class _Input(msgspec.Struct, gc=False):
    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: _Binary | None = None


class _Asked(msgspec.Struct, gc=False):
    binary_data: bool | None = None


class _Output(msgspec.Struct, gc=False):
    name: str
    parameters: _Asked | None = None


class _Request(msgspec.Struct, gc=False):
    inputs: list[_Input]
    id: str | None = None
    parameters: dict[str, Any] | None = None
    outputs: list[_Output] | None = None


_DECODER = msgspec.json.Decoder(_Request)


def read_request(
    body: bytes, header_length: int | None = None, specs: Sequence[TensorSpec] | None = None
) -> InferRequest:
    """Read a request's body.

    Args:
        header_length: bytes of JSON at its beginning; None: all of it is JSON; 0: none is.
        specs: the model's inputs; needed for a body without JSON only.

    Raises:
        InvalidError: `bad_json`, `bad_request`, or `bad_tensor` where one of its tensors is wrong.
    """
    if header_length == 0:
        return _read_raw(body, specs)
    head = body if header_length is None else _head(body, header_length)
    try:
        asked = _DECODER.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _refusal(error, whole=header_length is None) from None
    if not asked.inputs:
        raise InvalidError("`inputs` is empty; a request brings at least one tensor", code="bad_request")
    tensors = _tensors(asked.inputs, body, len(head), may_hold_booleans=b"true" in head or b"false" in head)
    request = InferRequest(tensors, id=asked.id)
    if asked.parameters:
        _take_parameters(request, asked.parameters)
    if asked.outputs:
        request.outputs = _outputs(asked.outputs, default=request.binary)
    return request


def read_header_length(value: str) -> int:
    """The header `Inference-Header-Content-Length` as a number."""
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise InvalidError(
            f"Inference-Header-Content-Length is {value[:40]!r}; it must be the number of bytes of JSON in the body",
            code="bad_request",
        )
    return int(value)


def _head(body: bytes, length: int) -> bytes:
    if length < 0 or length > len(body):
        raise InvalidError(
            f"Inference-Header-Content-Length says that {length} bytes are JSON; the body has {len(body)}",
            code="bad_request",
        )
    return body[:length]


def _refusal(error: Exception, *, whole: bool) -> InvalidError:
    if not isinstance(error, msgspec.ValidationError):
        hint = "where bytes follow the JSON, Inference-Header-Content-Length gives its length" if whole else ""
        return InvalidError(f"the request is not JSON: {error}", code="bad_json", hint=hint)
    text = str(error)
    code = "bad_tensor" if "`$.inputs[" in text else "bad_request"
    return InvalidError(f"the request is not one of the Open Inference Protocol: {text}", code=code)


def _tensors(inputs: list[_Input], body: bytes, at: int, *, may_hold_booleans: bool) -> Tensors:
    """The inputs by name. Those that are bytes follow one another in `body` from `at`, and use all of it."""
    tensors: Tensors = {}
    end = len(body)
    for given in inputs:
        name, parameters, data = given.name, given.parameters, given.data
        if name in tensors:
            raise bad_tensor(name, "is there twice")
        size = parameters.binary_data_size if parameters is not None else None
        if size is None:
            if data is None:
                raise bad_tensor(name, "has neither data nor the parameter binary_data_size")
            tensors[name] = from_list(name, given.datatype, given.shape, data, may_hold_booleans=may_hold_booleans)
            continue
        if data is not None:
            raise bad_tensor(name, "has both data and the parameter binary_data_size; send one of them")
        if size < 0 or size > end - at:
            raise bad_tensor(name, f"names {size} bytes of binary data; {end - at} follow the JSON for it")
        tensors[name] = from_bytes(name, given.datatype, given.shape, body, at, size)
        at += size
    if at != end:
        raise InvalidError(f"{end - at} bytes after the JSON belong to no input", code="bad_tensor")
    return tensors


def _outputs(asked: list[_Output], *, default: bool) -> dict[str, bool]:
    outputs: dict[str, bool] = {}
    for output in asked:
        if output.name in outputs:
            raise InvalidError(f"the output {output.name!r} is asked for twice", code="bad_output")
        own = output.parameters.binary_data if output.parameters is not None else None
        outputs[output.name] = default if own is None else own
    return outputs


def _take_parameters(request: InferRequest, parameters: dict[str, Any]) -> None:
    """Those parameters that mean something here; others are the model's business, and are kept."""
    request.parameters = parameters
    binary = parameters.get("binary_data_output", False)
    if not isinstance(binary, bool):
        raise InvalidError("the parameter binary_data_output must be true or false", code="bad_request")
    request.binary = binary
    request.timeout_us = _whole(parameters, "timeout", "microseconds")
    request.priority = _whole(parameters, "priority", "1 for the highest")


def _whole(parameters: Mapping[str, Any], name: str, meaning: str) -> int | None:
    """A whole number; None where it is not given, or 0, which says so too (Triton's scheduling policy extension)."""
    value = parameters.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_TIMEOUT_US:
        raise InvalidError(
            f"the parameter {name} must be a whole number from 0: {meaning}, 0 for the server's own", code="bad_request"
        )
    return value or None


def _read_raw(body: bytes, specs: Sequence[TensorSpec] | None) -> InferRequest:
    """A body of one input's values: its name, type and shape are the model's, and outputs come as bytes, too."""
    if specs is None or len(specs) != 1:
        names = ", ".join(spec.name for spec in specs or ())
        raise InvalidError(
            "a request without JSON (Inference-Header-Content-Length: 0) is for models of one input; this one takes "
            + (names or "several"),
            code="bad_request",
        )
    spec = specs[0]
    if spec.datatype == "BYTES":
        shape = [max(size, 1) for size in spec.shape]
        body = len(body).to_bytes(4, "little") + body
    else:
        shape = _raw_shape(spec, len(body))
    tensor = from_bytes(spec.name, spec.datatype, shape, body, 0, len(body))
    return InferRequest({spec.name: tensor}, binary=True)


def _raw_shape(spec: TensorSpec, size: int) -> list[int]:
    """The model's shape with its one open size such that the bytes fill it; of several, the first is a batch of one."""
    shape = list(spec.shape)
    unknown = [position for position, length in enumerate(shape) if length < 0]
    if len(unknown) > 1:
        shape[unknown.pop(0)] = 1
    if len(unknown) > 1:
        raise bad_tensor(spec.name, f"has several open sizes in its shape {list(spec.shape)}; say them in JSON")
    if unknown:
        shape[unknown[0]] = 1
        one = math.prod(shape) * np.dtype(DTYPES.get(spec.datatype)).itemsize
        shape[unknown[0]] = size // one if one else 0
    return shape
