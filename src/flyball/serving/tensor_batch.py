"""Requests with a model's own tensors, joined along their first axis, run once, and cut apart again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from flyball.kernel.errors import FlyballError, InvalidError
from flyball.serving.batcher import model_error
from flyball.serving.oip_values import to_list
from flyball.serving.ports import Runtime, Tensors
from flyball.serving.tensors import Array, datatype_of

Found = Tensors | FlyballError


class Joined:
    """Requests that were run as one: their tensors along one first axis, and how many rows each has of them."""

    __slots__ = ("_columns", "_starts", "inputs", "outputs", "sizes")

    def __init__(self, inputs: Tensors, outputs: Tensors, sizes: list[int]) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.sizes = sizes
        self._columns: list[Column] | None = None
        self._starts: list[int] = []

    def outputs_of(self, request: int) -> Tensors:
        """One request's own outputs."""
        start, size = self._start(request), self.sizes[request]
        return {name: array[start : start + size] for name, array in self.outputs.items()}

    def lists_of(self, request: int) -> list[tuple[str, str, tuple[int, ...], list[Any]]]:
        """One request's own outputs for JSON: name, datatype, shape, and values row by row."""
        if self._columns is None:
            self._columns = [_column(name, array) for name, array in self.outputs.items()]
        start, size = self._start(request), self.sizes[request]
        return [
            (name, datatype, (size, *trailing), values[start * width : (start + size) * width])
            for name, datatype, trailing, width, values in self._columns
        ]

    def _start(self, request: int) -> int:
        if not self._starts:
            self._starts = [0, *accumulate(self.sizes)]
        return self._starts[request]


Column = tuple[str, str, tuple[int, ...], int, list[Any]]


def _column(name: str, array: Array) -> Column:
    trailing = array.shape[1:]
    return name, datatype_of(array), trailing, math.prod(trailing), to_list(array)


def infer_together(runtime: Runtime, requests: Sequence[Tensors], *, batchable: bool) -> list[Found] | Joined:
    """Outputs, or an error, for each request, in order; or all of them as one, where they were run as one.

    Requests are joined where the model allows it and all but their first sizes are equal. A request that fails does so
    alone: what failed together is halved.
    """
    found: list[Found] = [InvalidError("not asked")] * len(requests)
    if not batchable:
        for i, tensors in enumerate(requests):
            found[i] = _alone(runtime, tensors)
        return found
    if len(requests) == 1:
        return _joined(runtime, requests, [0], found) or found
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, tensors in enumerate(requests):
        kind = tuple([(name, array.shape[1:], array.dtype) for name, array in tensors.items()])
        groups.setdefault(kind, []).append(i)
    for group in groups.values():
        joined = _joined(runtime, requests, group, found)
        if joined is not None:
            if len(groups) == 1:
                return joined
            for place, i in enumerate(group):
                found[i] = joined.outputs_of(place)
    return found


def _joined(runtime: Runtime, requests: Sequence[Tensors], group: list[int], found: list[Found]) -> Joined | None:
    """The requests of a group as one; None where that did not work, and each has what it got alone."""
    first = requests[group[0]]
    if len(group) == 1:
        inputs = first
    else:
        inputs = {name: np.concatenate([requests[i][name] for i in group]) for name in first}
    name = next(iter(first))
    sizes = [len(requests[i][name]) for i in group]
    try:
        outputs = runtime.infer(inputs)
    except Exception as error:  # one of them may be at fault: each half shows on its own
        if len(group) == 1:
            found[group[0]] = error if isinstance(error, InvalidError) else model_error(error)
            return None
        middle = len(group) // 2
        for half in (group[:middle], group[middle:]):
            joined = _joined(runtime, requests, half, found)
            if joined is not None:
                for place, i in enumerate(half):
                    found[i] = joined.outputs_of(place)
        return None
    total = sum(sizes)
    if all(array.ndim and len(array) == total for array in outputs.values()):
        return Joined(inputs, outputs, sizes)
    if len(group) == 1:
        found[group[0]] = outputs
    else:
        for i in group:  # its outputs are not one a row, whatever its signature says
            found[i] = _alone(runtime, requests[i])
    return None


def _alone(runtime: Runtime, tensors: Tensors) -> Found:
    try:
        return runtime.infer(tensors)
    except InvalidError as error:
        return error
    except Exception as error:
        return model_error(error)
