"""Prediction records as they are written: a batch of one version in one block, column by column.

A reader gets the records row by row, as if each had been written alone. What is the same for all rows stands once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from flyball.kernel.errors import InvalidError
from flyball.serving.records import LARGE, Privacy, error_data, tensor_data
from flyball.serving.request import Job
from flyball.serving.router import propensity
from flyball.serving.scoring import Result
from flyball.serving.tensor_batch import Joined

Block = dict[str, Any]
BLOCK = "block"  # the key that tells a block from a record
VERSION = 1
_FLOATS = np.dtype("<f8")


def block_of(
    rows: Sequence[int],
    owners: Sequence[Job],
    result: Result,
    *,
    now: float,
    wall: int,
    pii_key: bytes,
) -> Block:
    """The block of a batch.

    Args:
        rows: the rows of the result that are predictions, in order; those that their senders got wrong are none.
        owners: the jobs of these rows.
        now, wall: the moment of the answer, in monotonic seconds and in microseconds since 1970.
    """
    first = owners[0]
    served = first.served
    whole = len(rows) == len(result)
    block: Block = {
        BLOCK: VERSION,
        "n": len(rows),
        "service": first.service.name,
        "version": first.route.version,
        "id": [job.ids[row - job.start] for row, job in zip(rows, owners, strict=True)],
        "wall": wall,
        "latency_us": [int((now - job.arrived) * 1e6) for job in owners],
        "batch": len(result),
        "output": result.answers if whole else [result.answers[row] for row in rows],
        "feature_state": result.states if isinstance(result.states, str) else [result.states[row] for row in rows],
    }
    if len(owners) == 1 or all(job.route is first.route for job in owners):
        block["arm"], block["propensity"] = first.route.arm, propensity(first.route)
    else:
        block["arm"] = [job.route.arm for job in owners]
        block["propensity"] = [propensity(job.route) for job in owners]
    moments = [job.at for job in owners]
    block["at"] = first.at if moments.count(first.at) == len(moments) else moments
    if first.service.plan.key:
        keys = [None if job.keys is None else job.keys[row - job.start] for row, job in zip(rows, owners, strict=True)]
        block["key"] = [None if key is None else served.privacy.hide(key, pii_key) for key in keys]
    if result.errors:
        block["error"] = {at: error_data(result.errors[row]) for at, row in enumerate(rows) if row in result.errors}
    if result.errors or result.rungs:
        kept = [at for at, row in enumerate(rows) if row in result.rungs or row in result.errors]
        block["rung"] = {at: _rung(result, rows[at]) for at in kept}
    if result.by:
        block["by"] = {at: result.by[row].ref for at, row in enumerate(rows) if row in result.by}
    if first.tensors is not None:
        _add_tensors(block, owners, rows, result)
    else:
        block["inputs"] = _inputs(result, rows, served.privacy, pii_key)
        _add_features(block, rows, result, served.feature_names, served.privacy, pii_key)
    return block


def expand(block: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The records of a block. What is no block is a record, and comes back as it is."""
    if BLOCK not in block:
        yield dict(block)
        return
    n = int(block["n"])
    if block[BLOCK] > VERSION:
        raise InvalidError(f"a block of version {block[BLOCK]} is newer than this Flyball", code="newer_format")
    names = block.get("names") or []
    matrix = np.frombuffer(block["matrix"], _FLOATS).reshape(n, len(names)).tolist() if names else [[]] * n
    hidden, without = block.get("hidden") or {}, set(block.get("without") or ())
    tensors, outputs = block.get("tensors"), block.get("outputs")
    if "joined" in block:
        tensors, outputs = (_split(part, block["rows"]) for part in block["joined"])
    for i in range(n):
        features = {name: value if math.isfinite(value) else None for name, value in zip(names, matrix[i], strict=True)}
        features |= {name: values[i] for name, values in hidden.items()}
        error = (block.get("error") or {}).get(i)
        record: dict[str, Any] = {
            "id": block["id"][i],
            "service": block["service"],
            "version": block["version"],
            "arm": _of(block["arm"], i),
            "propensity": _of(block["propensity"], i),
            "at": _of(block["at"], i),
            "wall": block["wall"],
            "latency_us": block["latency_us"][i],
            "batch": block["batch"],
            "key": _of(block.get("key"), i),
            "inputs": block["inputs"][i] if tensors is None else _tensor_values(tensors[i]),
            "features": {} if i in without else features,
            "lsn": {} if i in without else block.get("lsn") or {},
            "known_through": {} if i in without else block.get("known_through") or {},
            "output": block["output"][i],
            "rung": (block.get("rung") or {}).get(i, "model"),
            "feature_state": _of(block["feature_state"], i),
            "error": error,
            "usage": {"rows": _of(block.get("rows", 1), i)},
            "cost": None,
        }
        if tensors is not None and record["output"] is not None:
            record["output"] = {"prediction": _tensor_values((outputs or [])[i])}
        if i in (block.get("by") or {}):
            record["usage"]["answered_by"] = block["by"][i]
        yield record


def _rung(result: Result, row: int) -> str:
    return result.rungs.get(row) or "error"


def _of(value: Any, row: int) -> Any:
    """A column, or what is the same for all rows."""
    return value[row] if isinstance(value, list) else value


def _inputs(result: Result, rows: Sequence[int], privacy: Privacy, key: bytes) -> list[Any]:
    if not privacy.fields:
        return [result.fields[row] for row in rows]
    return [privacy.hide(result.fields[row] or {}, key) for row in rows]


def _add_features(
    block: Block, rows: Sequence[int], result: Result, names: Sequence[str], privacy: Privacy, key: bytes
) -> None:
    batch = result.batch
    if batch is None:
        return
    places = [result.places[row] for row in rows]
    without = [at for at, place in enumerate(places) if place is None]
    if without:
        block["without"] = without
    matrix = batch.matrix
    if len(places) != len(matrix) or without:
        matrix = matrix[[0 if place is None else place for place in places]] if len(matrix) else matrix
    block["lsn"], block["known_through"] = dict(batch.lsn), dict(batch.known_through)
    if not len(matrix):
        return
    if privacy.features:
        shown = [k for k, name in enumerate(names) if name not in privacy.features]
        secret = [k for k, name in enumerate(names) if name in privacy.features]
        block["hidden"] = {
            names[k]: [
                None if i in without else privacy.digest(value, key) for i, value in enumerate(matrix[:, k].tolist())
            ]
            for k in secret
        }
        names, matrix = [names[k] for k in shown], matrix[:, shown]
    block["names"] = list(names)
    block["matrix"] = np.ascontiguousarray(matrix, _FLOATS).tobytes()


def _add_tensors(block: Block, owners: Sequence[Job], rows: Sequence[int], result: Result) -> None:
    block["rows"] = [job.count for job in owners]
    joined = result.joined
    if joined is not None and len(owners) == len(joined.sizes) and _is_small(joined):
        block["joined"] = [_tensors(joined.inputs, limit=None), _tensors(joined.outputs, limit=None)]
        return
    block["tensors"] = [_tensors(job.tensors or {}) for job in owners]
    block["outputs"] = [_tensors(result.outputs_of(row) or {}) for row in rows]


def _is_small(joined: Joined) -> bool:
    """Whether every request's tensors are such as are kept, by their values' number and type."""
    most, total = max(joined.sizes), sum(joined.sizes)
    return all(
        array.dtype.kind in "biuf" and array.size * most <= LARGE * total
        for tensors in (joined.inputs, joined.outputs)
        for array in tensors.values()
    )


def _split(joined: Mapping[str, Any], sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Tensors that were kept as one, as each request's own."""
    parts: list[dict[str, Any]] = [{} for _ in sizes]
    for name, values in _tensor_values(joined).items():
        at = 0
        for part, size in zip(parts, sizes, strict=True):
            part[name] = values[at : at + size]
            at += size
    return parts


def _tensors(tensors: Mapping[str, Any], *, limit: int | None = LARGE) -> dict[str, Any]:
    """Tensors of numbers as their bytes; of those with more values than the limit, what they are."""
    kept: dict[str, Any] = {}
    for name, array in tensors.items():
        if (limit is None or array.size <= limit) and array.dtype.kind in "biuf":
            kept[name] = [array.dtype.str, array.shape, array.tobytes()]
        else:
            kept[name] = tensor_data(array)
    return kept


def _tensor_values(kept: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in kept.items():
        if isinstance(value, list) and len(value) == 3 and isinstance(value[2], bytes):
            values[name] = np.frombuffer(value[2], np.dtype(value[0])).reshape(value[1]).tolist()
        else:
            values[name] = value
    return values
