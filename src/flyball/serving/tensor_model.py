"""A model that takes its own tensors: what a request must bring, and rows answered together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flyball.kernel.errors import FlyballError, InvalidError
from flyball.serving.batcher import model_error
from flyball.serving.manifest import Signature, TensorSpec
from flyball.serving.ports import Runtime, Tensors
from flyball.serving.tensors import DTYPES, datatype_of, stack_rows

Answer = dict[str, Any]


def own_fields(specs: Sequence[TensorSpec], given: Mapping[str, Any]) -> dict[str, Any]:
    """A row's fields, which must be the model's tensors by name."""
    names = [spec.name for spec in specs]
    missing = [name for name in names if name not in given]
    unknown = [name for name in given if name not in names]
    if missing or unknown:
        what = f"lacks {', '.join(missing)}" if missing else f"has unknown fields {', '.join(unknown)}"
        raise InvalidError(
            f"the row {what}; the model takes {', '.join(names)}",
            code="missing_field" if missing else "unknown_field",
        )
    return dict(given)


def infer_rows(
    runtime: Runtime, specs: Sequence[TensorSpec], rows: Sequence[Mapping[str, Any]]
) -> tuple[dict[int, Answer], dict[int, FlyballError]]:
    """Answers and errors by position: together where the rows' shapes allow it, else, or where that fails, alone."""
    try:
        given = stack_rows(rows, specs)
    except (TypeError, ValueError, OverflowError):
        return _alone(runtime, specs, rows, InvalidError("the row is not of the model's types", code="bad_tensor"))
    try:
        outputs = runtime.infer(given)
    except Exception as error:
        return _alone(runtime, specs, rows, model_error(error))
    if any(len(array) != len(rows) for array in outputs.values()):  # the model does not take batches
        alone = InvalidError("the model's outputs are not one a row", code="bad_tensor")
        return _alone(runtime, specs, rows, alone)
    found = [{name: array[i].tolist() for name, array in outputs.items()} for i in range(len(rows))]
    return {i: {"prediction": answer} for i, answer in enumerate(found)}, {}


class TensorCheck:
    """The check of the tensors of one version's requests, made once: names, types and shapes.

    `batchable`: rows of several requests may stand in one tensor, since every tensor's first size is free.
    """

    __slots__ = ("_expected", "_specs", "batchable")

    def __init__(self, signature: Signature) -> None:
        self._specs = signature.inputs
        self._expected = [
            (spec.name, np.dtype(DTYPES.get(spec.datatype, np.object_)), len(spec.shape), tuple(spec.shape[1:]))
            for spec in signature.inputs
        ]
        self.batchable = batchable(signature)

    def __call__(self, given: Tensors) -> int:
        """How many rows the tensors have: 1 where the model does not take batches. Raises `bad_tensor`."""
        rows = -1
        if self.batchable and len(given) == len(self._expected):
            for name, dtype, dimensions, trailing in self._expected:
                array = given.get(name)
                if array is None or array.dtype != dtype or array.ndim != dimensions or array.shape[1:] != trailing:
                    break
                if rows not in (-1, array.shape[0]):
                    break
                rows = array.shape[0]
            else:
                return rows
        _check(self._specs, given)
        return self._rows(given)

    def _rows(self, tensors: Tensors) -> int:
        if not self.batchable:
            return 1
        sizes = {array.shape[0] if array.ndim else 1 for array in tensors.values()}
        if len(sizes) > 1:
            raise InvalidError(
                f"the inputs have different numbers of rows: {', '.join(map(str, sorted(sizes)))}", code="bad_tensor"
            )
        return max(sizes, default=1)


def batchable(signature: Signature) -> bool:
    """Whether rows of several requests may stand in one: every tensor's first size is free."""
    tensors = (*signature.inputs, *signature.outputs)
    return bool(signature.inputs) and all(tensor.shape and tensor.shape[0] == -1 for tensor in tensors)


def _check(specs: Sequence[TensorSpec], given: Tensors) -> None:
    """Refuse tensors that are not the model's by name, type and shape: `bad_tensor`."""
    expected = {spec.name: spec for spec in specs}
    if expected.keys() != given.keys():
        raise InvalidError(
            f"the model takes {', '.join(expected)}; the request brings {', '.join(given)}", code="bad_tensor"
        )
    for name, array in given.items():
        spec = expected[name]
        sizes = zip(spec.shape, array.shape, strict=False)
        if spec.shape and (len(spec.shape) != array.ndim or any(s not in (-1, d) for s, d in sizes)):
            raise InvalidError(
                f"the input {name!r} has the shape {list(array.shape)}; the model takes {list(spec.shape)}",
                code="bad_tensor",
            )
        if datatype_of(array) != spec.datatype:
            raise InvalidError(
                f"the input {name!r} has the datatype {datatype_of(array)}; the model takes {spec.datatype}",
                code="bad_tensor",
            )


def _alone(
    runtime: Runtime, specs: Sequence[TensorSpec], rows: Sequence[Mapping[str, Any]], error: FlyballError
) -> tuple[dict[int, Answer], dict[int, FlyballError]]:
    if len(rows) == 1:
        return {}, {0: error}
    answered: dict[int, Answer] = {}
    errors: dict[int, FlyballError] = {}
    for i, row in enumerate(rows):
        one, failed = infer_rows(runtime, specs, [row])
        if failed:
            errors[i] = failed[0]
        else:
            answered[i] = one[0]
    return answered, errors
