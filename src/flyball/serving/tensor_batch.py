"""Requests with a model's own tensors, joined along their first axis, run once, and cut apart again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flyball.kernel.errors import FlyballError, InvalidError
from flyball.serving.batcher import model_error
from flyball.serving.manifest import Signature
from flyball.serving.ports import Runtime, Tensors

Found = Tensors | FlyballError


def batchable(signature: Signature) -> bool:
    """Whether rows of several requests may stand in one: every tensor's first size is free."""
    tensors = (*signature.inputs, *signature.outputs)
    return bool(signature.inputs) and all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors)


def rows_of(signature: Signature, tensors: Tensors) -> int:
    """How many rows a request has; 1 where the model does not take batches."""
    if not batchable(signature):
        return 1
    sizes = {array.shape[0] if array.ndim else 1 for array in tensors.values()}
    if len(sizes) > 1:
        raise InvalidError(
            f"the inputs have different numbers of rows: {', '.join(map(str, sorted(sizes)))}", code="bad_tensor"
        )
    return max(sizes, default=1)


def infer_together(runtime: Runtime, signature: Signature, requests: Sequence[Tensors]) -> list[Found]:
    """Outputs, or an error, for each request, in order.

    Requests are joined where the signature allows it and all but their first sizes are equal. A request that fails does
    so alone: what failed together is halved.
    """
    found: list[Found] = [InvalidError("not asked")] * len(requests)
    if len(requests) == 1 or not batchable(signature):
        for i, tensors in enumerate(requests):
            found[i] = _alone(runtime, tensors)
        return found
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, tensors in enumerate(requests):
        groups.setdefault(tuple((n, a.shape[1:], a.dtype) for n, a in sorted(tensors.items())), []).append(i)
    for group in groups.values():
        _joined(runtime, requests, group, found)
    return found


def _joined(runtime: Runtime, requests: Sequence[Tensors], group: list[int], found: list[Found]) -> None:
    if len(group) == 1:
        found[group[0]] = _alone(runtime, requests[group[0]])
        return
    names = list(requests[group[0]])
    sizes = [len(requests[i][names[0]]) for i in group]
    try:
        outputs = runtime.infer({name: np.concatenate([requests[i][name] for i in group]) for name in names})
    except Exception:  # one of them may be at fault: each half shows on its own
        middle = len(group) // 2
        _joined(runtime, requests, group[:middle], found)
        _joined(runtime, requests, group[middle:], found)
        return
    total = sum(sizes)
    if any(array.ndim == 0 or len(array) != total for array in outputs.values()):
        for i in group:  # its outputs are not one a row, whatever its signature says
            found[i] = _alone(runtime, requests[i])
        return
    start = 0
    for i, size in zip(group, sizes, strict=True):
        found[i] = {name: array[start : start + size] for name, array in outputs.items()}
        start += size


def _alone(runtime: Runtime, tensors: Tensors) -> Found:
    try:
        return runtime.infer(tensors)
    except InvalidError as error:
        return error
    except Exception as error:
        return model_error(error)
