"""What this benchmark serves and sends: a LightGBM model, its ONNX export, and bodies, made once below `.bench/data`.

Rows have three decimals. LightGBM puts a threshold between two values that it saw, so a value in float32 falls on the
same side of each as in float64, and every server must give LightGBM's answer whichever it reads.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import lightgbm
import numpy as np
import numpy.typing as npt

from benchmarks.harness import Work, run
from benchmarks.serving.files import (
    DATA,
    DISTINCT,
    DISTINCT_MANY,
    FEATURES,
    INPUT,
    MANY,
    MODEL,
    NARROW,
    ONNX,
    OTHER,
)

SEED = 20_261_125
TRAINING = 100_000
TREES, LEAVES = 100, 31
NARROW_FEATURES = 8

Floats = npt.NDArray[np.float64]


def rows(n: int, seed: int) -> Floats:
    """`n` rows of three decimals."""
    return np.round(np.random.default_rng([SEED, seed]).normal(size=(n, FEATURES)), 3)


def single_rows() -> Floats:
    return rows(DISTINCT, 1)


def many_rows() -> list[Floats]:
    return [rows(MANY, 2 + i) for i in range(DISTINCT_MANY)]


def names(n: int = FEATURES) -> list[str]:
    return [f"f{i}" for i in range(n)]


def prepare() -> None:
    """Make what is not there yet."""
    DATA.mkdir(parents=True, exist_ok=True)
    for path, seed, features in ((MODEL, 0, FEATURES), (OTHER, 1, FEATURES), (NARROW, 0, NARROW_FEATURES)):
        if not path.exists():
            path.with_suffix(".making").write_text(_train(seed, features))
            path.with_suffix(".making").rename(path)
    if not ONNX.exists():
        run(Work(name="the model in ONNX", script="serving/export.py", peer="onnx_export"))


def booster(path: Path = MODEL) -> lightgbm.Booster:
    return lightgbm.Booster(model_file=path)


def expected(given: Floats, path: Path = MODEL) -> Floats:
    """LightGBM's own answers."""
    return np.asarray(booster(path).predict(given, num_threads=1), np.float64)


def _train(seed: int, features: int) -> str:
    """100 trees of 31 leaves for a target that is true of a tenth of the rows. Rows are drawn anew for each tree, so
    that no tree runs out of gain and stays small."""
    rng = np.random.default_rng([SEED, 100 + seed])
    x = rows(TRAINING, 200 + seed)[:, :features]
    weights = rng.normal(size=features)
    score = x @ weights + 1.5 * x[:, 0] * x[:, 1] - np.abs(x[:, 2]) * x[:, 3] + np.where(x[:, 4] > 0.5, x[:, 5], 0.0)
    y = (score + rng.normal(size=TRAINING) > np.quantile(score, 0.9)).astype(np.float64)
    parameters = {
        "objective": "binary",
        "num_leaves": LEAVES,
        "learning_rate": 0.1,
        "bagging_fraction": 0.8,
        "bagging_freq": 1,
        "seed": seed,
        "deterministic": True,
        "num_threads": 1,
        "verbosity": -1,
    }
    found = lightgbm.train(parameters, lightgbm.Dataset(x, y), num_boost_round=TREES)
    sizes = [tree["num_leaves"] for tree in found.dump_model()["tree_info"]]
    if sizes != [LEAVES] * TREES:
        raise SystemExit(f"the trees have {min(sizes)} to {max(sizes)} leaves, not {LEAVES}")
    text: str = found.model_to_string()
    return text


def oip_body(matrix: Floats, name: str = INPUT, datatype: str = "FP32") -> bytes:
    """The Open Inference Protocol's JSON with one tensor."""
    tensor = {"name": name, "shape": list(matrix.shape), "datatype": datatype, "data": matrix.ravel().tolist()}
    return _json({"inputs": [tensor]})


def oip_binary(matrix: Floats, name: str = INPUT, datatype: str = "FP32") -> tuple[bytes, int]:
    """The same with raw values after the JSON, and a reply asked for likewise; and the JSON's length."""
    raw = matrix.astype({"FP32": "<f4", "FP64": "<f8"}[datatype]).tobytes()
    tensor = {
        "name": name,
        "shape": list(matrix.shape),
        "datatype": datatype,
        "parameters": {"binary_data_size": len(raw)},
    }
    head = _json({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return head + raw, len(head)


def field_tensors(matrix: Floats) -> bytes:
    """One tensor a field, as the protocol brings the fields of a model of features."""
    columns = zip(names(matrix.shape[1]), matrix.T.tolist(), strict=True)
    tensors = [{"name": n, "shape": [len(matrix)], "datatype": "FP64", "data": values} for n, values in columns]
    return _json({"inputs": tensors})


def fields(matrix: Floats) -> bytes:
    """A row's fields by name, as `:predict` takes them."""
    return _json({"inputs": dict(zip(names(matrix.shape[1]), matrix[0].tolist(), strict=True))})


def lookup_fields(user: int, row: Floats) -> bytes:
    """An entity and a row's fields by name."""
    return _json({"inputs": {"user": user, **dict(zip(names(len(row)), row.tolist(), strict=True))}})


def lookup_tensors(user: int, row: Floats) -> bytes:
    """The same, one tensor a field."""
    tensors: list[dict[str, object]] = [{"name": "user", "shape": [1], "datatype": "INT64", "data": [user]}]
    for name, value in zip(names(len(row)), row.tolist(), strict=True):
        tensors.append({"name": name, "shape": [1], "datatype": "FP64", "data": [value]})
    return _json({"inputs": tensors})


def plain_inputs(matrix: Floats) -> bytes:
    """`{"inputs": [[…]]}`: what MLflow takes, and the peers that let their code choose."""
    return _json({"inputs": matrix.tolist()})


def bodies_path(kind: str) -> Path:
    """The bodies of a kind, in one file for the load generators: each preceded by its length in four bytes."""
    prepare()
    path = DATA / f"bodies_{kind}.bin"
    if not path.exists():
        write_bodies(path, KINDS[kind]())
    return path


def write_bodies(path: Path, bodies: Sequence[bytes]) -> None:
    made = path.with_suffix(".making")
    made.write_bytes(b"".join(struct.pack("<I", len(body)) + body for body in bodies))
    made.rename(path)


def read_bodies(path: Path) -> list[bytes]:
    data, at, bodies = path.read_bytes(), 0, []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        bodies.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return bodies


def binary_head() -> int:
    """The length of the JSON part of the binary bodies, which is the same in all."""
    (length,) = {oip_binary(matrix)[1] for matrix in many_rows()}
    return length


def _json(data: object) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _each(make: Callable[[Floats], bytes]) -> list[bytes]:
    return [make(row[None, :]) for row in single_rows()]


KINDS: dict[str, Callable[[], list[bytes]]] = {
    "oip": lambda: _each(oip_body),
    "plain": lambda: _each(plain_inputs),
    "fields": lambda: _each(fields),
    "field_tensors": lambda: _each(field_tensors),
    "oip_many": lambda: [oip_body(matrix) for matrix in many_rows()],
    "plain_many": lambda: [plain_inputs(matrix) for matrix in many_rows()],
    "binary_many": lambda: [oip_binary(matrix)[0] for matrix in many_rows()],
}
