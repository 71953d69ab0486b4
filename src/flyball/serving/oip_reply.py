"""The reply to an inference request of the Open Inference Protocol (v2): JSON, with the bytes of tensors after it where
the request asks for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from flyball.serving.oip_request import InferRequest
from flyball.serving.oip_values import to_bytes, to_list
from flyball.serving.ports import Tensors
from flyball.serving.tensors import datatype_of


class _Size(msgspec.Struct, gc=False):
    binary_data_size: int


class _Output(msgspec.Struct, gc=False):
    name: str
    shape: tuple[int, ...]
    datatype: str
    data: list[Any] | UnsetType = UNSET
    parameters: _Size | UnsetType = UNSET


class _Reply(msgspec.Struct, gc=False):
    model_name: str
    model_version: str
    outputs: list[_Output]
    id: str | UnsetType = UNSET
    parameters: Mapping[str, Any] | UnsetType = UNSET


_ENCODER = msgspec.json.Encoder()
_FORMS = 4096  # shapes of outputs that a form remembers


class ReplyForm:
    """What is the same in a service's replies: made once, so that a reply is its numbers between known pieces."""

    __slots__ = ("_heads", "_outputs", "model")

    def __init__(self, model: str) -> None:
        self.model = model
        self._heads: dict[str, bytes] = {}
        self._outputs: dict[tuple[str, str, tuple[int, ...]], bytes] = {}

    def write(
        self,
        version: str,
        outputs: Iterable[tuple[str, str, tuple[int, ...], list[Any]]],
        labels: bytes,
        id: str | None,
    ) -> bytes:
        """A reply of JSON alone.

        Args:
            outputs: name, datatype, shape and values, row by row, of each.
            labels: the reply's parameters, as JSON.
        """
        head = self._heads.get(version)
        if head is None:
            names = _ENCODER.encode({"model_name": self.model, "model_version": version})
            head = self._heads[version] = names[:-1] + b',"outputs":['
        parts = [head]
        for name, datatype, shape, data in outputs:
            form = self._outputs.get((name, datatype, shape))
            if form is None:
                form = self._output(name, datatype, shape)
            parts += (form, _ENCODER.encode(data), b"},")
        parts[-1] = b"}]"
        if id is not None:
            parts += (b',"id":', _ENCODER.encode(id))
        parts += (b',"parameters":', labels, b"}")
        return b"".join(parts)

    def _output(self, name: str, datatype: str, shape: tuple[int, ...]) -> bytes:
        if len(self._outputs) >= _FORMS:
            self._outputs.clear()
        form = _ENCODER.encode({"name": name, "shape": shape, "datatype": datatype})[:-1] + b',"data":'
        self._outputs[name, datatype, shape] = form
        return form


def write_reply(
    request: InferRequest,
    name: str,
    version: str,
    outputs: Tensors,
    labels: Mapping[str, Any] | None = None,
) -> tuple[bytes, int | None]:
    """The body of a reply, and how much of it is JSON where bytes follow: Inference-Header-Content-Length.

    Args:
        outputs: what the model gave, at least what the request asks for.
        labels: the reply's parameters.

    Raises:
        InvalidError: `bad_output`, for an output that the model did not give.
    """
    chosen = request.select(outputs)
    described: list[_Output] = []
    parts: list[bytes | memoryview] = []
    for output, array in chosen.items():
        found = _Output(output, array.shape, datatype_of(array))
        if request.outputs.get(output, request.binary):
            part = to_bytes(array)
            parts.append(part)
            found.parameters = _Size(len(part))
        else:
            found.data = to_list(array)
        described.append(found)
    reply = _Reply(name, version, described)
    if request.id is not None:
        reply.id = request.id
    if labels:
        reply.parameters = labels
    head = _ENCODER.encode(reply)
    if not parts:
        return head, None
    return b"".join([head, *parts]), len(head)
