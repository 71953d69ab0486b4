"""The tree kernel beside ONNX Runtime and LightGBM: in one process, on one thread, in turns; medians of rounds.

The model is a binary one of LightGBM's, 100 trees of 31 leaves on 30 features of 100,000 rows. Each call scores rows
that no call of its round scored before: a row that is repeated flatters whoever branches on it. Every engine is given
its rows as it wants them (ours float64, ONNX Runtime float32), and is called as a server would call it. Time is that of
the thread on its processor.

Prints rows a second by engine and rows a call, and how many times the others' rate ours is, as a line of JSON.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import subprocess
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.harness import CACHE, ROOT, conditions, environment, say

TREES, LEAVES, FEATURES, ROWS = 100, 31, 30, 100_000
SIZES = (1, 64, 1000, 10_000)

Rows = npt.NDArray[Any]
Score = Callable[[Rows], Any]


def data() -> tuple[Rows, Rows]:
    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, FEATURES))
    signal = x @ random.normal(size=FEATURES) + 2 * np.sin(3 * x[:, 0]) * x[:, 1]
    return x, (signal + random.normal(size=ROWS) > 0).astype(np.float64)


def booster(x: Rows, y: Rows) -> Any:
    import lightgbm

    settings = {"objective": "binary", "num_leaves": LEAVES, "verbosity": -1, "num_threads": 1, "deterministic": True}
    return lightgbm.train(settings, lightgbm.Dataset(x, y), TREES)


def onnx_session(model: Any) -> Any:
    import onnxruntime

    folder = CACHE / "serving"
    folder.mkdir(parents=True, exist_ok=True)
    text, graph = folder / "trees.txt", folder / "trees.onnx"
    model.save_model(str(text))
    export = ROOT / "benchmarks" / "serving" / "export_trees.py"
    subprocess.run([environment("trees"), export, text, graph], check=True, stdout=subprocess.DEVNULL)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def lightgbm_c(model: Any) -> Score:
    """LightGBM's C interface, without what its Python package does around it."""
    from lightgbm import basic

    library: Any = basic._LIB  # type: ignore[attr-defined]
    length, out = ctypes.c_int64(), np.empty(max(SIZES))
    where = out.ctypes.data_as(ctypes.POINTER(ctypes.c_double))
    handle, parameters = model._handle, ctypes.c_char_p(b"num_threads=1")

    def score(rows: Rows) -> Rows:
        status = library.LGBM_BoosterPredictForMat(
            handle,
            ctypes.c_void_p(rows.ctypes.data),
            ctypes.c_int(1),  # float64
            ctypes.c_int32(len(rows)),
            ctypes.c_int32(rows.shape[1]),
            ctypes.c_int(1),  # row after row
            ctypes.c_int(0),  # predictions
            ctypes.c_int(0),
            ctypes.c_int(-1),
            parameters,
            ctypes.byref(length),
            where,
        )
        if status:
            raise SystemExit("LightGBM's C interface failed")
        return out[: len(rows)]

    return score


def engines(model: Any) -> dict[str, Score]:
    from flyball.serving import trees

    ours = trees.parse(model.model_to_string())
    session = onnx_session(model)
    return {
        "flyball": ours.predict,
        "onnxruntime": lambda rows: session.run(["probabilities"], {"input": rows})[0][:, 1],
        "lightgbm_c": lightgbm_c(model),
        "lightgbm": lambda rows: model.predict(rows, num_threads=1),
    }


def measure(score: Score, rows: Rows, size: int, calls: int, start: int) -> float:
    """Seconds a row of the thread's own time (whoever shares the machine does not count), over rows that follow."""
    room = len(rows) - size
    chunks = [rows[at : at + size] for at in ((start + call * size) % room for call in range(calls))]
    begun = time.thread_time()
    for chunk in chunks:
        score(chunk)
    return (time.thread_time() - begun) / calls / size


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    x, y = data()
    model = booster(x, y)
    named = engines(model)
    narrow = x.astype(np.float32)
    given = {name: narrow if name == "onnxruntime" else x for name in named}
    expected = model.predict(narrow[:5000].astype(np.float64))
    result: dict[str, Any] = {}
    for name, score in named.items():
        rows = narrow[:5000] if name == "onnxruntime" else narrow[:5000].astype(np.float64)
        result[f"{name}_difference"] = float(np.abs(np.array(score(rows)) - expected).max())
    for size in SIZES:
        calls = max(1, min(1000, 20_000 // size))
        seconds: dict[str, list[float]] = {name: [] for name in named}
        for turn in range(rounds):
            for name, score in named.items():
                seconds[name].append(measure(score, given[name], size, calls, turn * 1237))
        rates = {name: 1.0 / median(found) for name, found in seconds.items()}
        result |= {f"{name}_{size}": rate for name, rate in rates.items()}
        result |= {f"times_{name}_{size}": rates["flyball"] / rate for name, rate in rates.items() if name != "flyball"}
        told = "  ".join(
            f"{name} {size / rate * 1e6:.1f} us" if size == 1 else f"{name} {rate:,.0f}/s"
            for name, rate in rates.items()
        )
        say(f"{size:6} rows a call  {told}")
    say(f"{conditions()}; one thread, {rounds} rounds in turns, medians")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
