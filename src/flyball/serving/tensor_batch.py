"""Requests with a model's own tensors, joined along their first axis, run once, and cut apart again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flyball.kernel.errors import FlyballError, InvalidError
from flyball.serving.batcher import model_error
from flyball.serving.ports import Runtime, Tensors

Found = Tensors | FlyballError


@dataclass(slots=True)
class Joined:
    """Requests that were run as one: their tensors along one first axis, and how many rows each has of them."""

    inputs: Tensors
    outputs: Tensors
    sizes: list[int]


def infer_together(
    runtime: Runtime, requests: Sequence[Tensors], *, batchable: bool
) -> tuple[list[Found], Joined | None]:
    """Outputs, or an error, for each request, in order; and, where all were run as one, that one.

    Requests are joined where the model allows it and all but their first sizes are equal. A request that fails does so
    alone: what failed together is halved.
    """
    found: list[Found] = [InvalidError("not asked")] * len(requests)
    if len(requests) == 1 or not batchable:
        for i, tensors in enumerate(requests):
            found[i] = _alone(runtime, tensors)
        return found, None
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, tensors in enumerate(requests):
        kind = tuple([(name, array.shape[1:], array.dtype) for name, array in tensors.items()])
        groups.setdefault(kind, []).append(i)
    joined: Joined | None = None
    for group in groups.values():
        joined = _joined(runtime, requests, group, found)
    return found, joined if len(groups) == 1 else None


def _joined(runtime: Runtime, requests: Sequence[Tensors], group: list[int], found: list[Found]) -> Joined | None:
    if len(group) == 1:
        found[group[0]] = _alone(runtime, requests[group[0]])
        return None
    names = list(requests[group[0]])
    inputs = {name: np.concatenate([requests[i][name] for i in group]) for name in names}
    sizes = [len(requests[i][names[0]]) for i in group]
    try:
        outputs = runtime.infer(inputs)
    except Exception:  # one of them may be at fault: each half shows on its own
        middle = len(group) // 2
        _joined(runtime, requests, group[:middle], found)
        _joined(runtime, requests, group[middle:], found)
        return None
    total = sum(sizes)
    if any(array.ndim == 0 or len(array) != total for array in outputs.values()):
        for i in group:  # its outputs are not one a row, whatever its signature says
            found[i] = _alone(runtime, requests[i])
        return None
    start = 0
    for i, size in zip(group, sizes, strict=True):
        found[i] = {name: array[start : start + size] for name, array in outputs.items()}
        start += size
    return Joined(inputs, outputs, sizes)


def _alone(runtime: Runtime, tensors: Tensors) -> Found:
    try:
        return runtime.infer(tensors)
    except InvalidError as error:
        return error
    except Exception as error:
        return model_error(error)
