"""`make bench NAME=serving`: the table of the data plane's speed, each line beside its peers or its limit.

The server has one core, the load generator the other. Our server runs as a platform runs it: a token, routing, metrics,
and every prediction in the log. `benchmarks/serving/peers` says how each peer is set up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

from benchmarks.harness import Bar, Work, in_turns, run_parts, say
from benchmarks.serving.data import bodies_path
from benchmarks.serving.overload import FACTORS
from benchmarks.serving.states import TENSORS_ON
from benchmarks.serving.targets import PEERS

Figures = dict[str, Any]

SINGLE = ("1:3", "64:4")  # the other way round, servers that adapt would still be adapted to many
MANY = ("4:4",)
TIMES = {"pytriton": 6.0, "mlserver": 16.0, "litserve": 30.0, "mlflow": 30.0, "bentoml": 40.0, "ray": 150.0}


def measure(*, only: Sequence[str], times: int) -> Iterator[Bar]:
    """Run all parts, or those named, and give their bars as they come."""
    parts: dict[str, Callable[[int], list[Bar]]] = {
        "single": single,
        "lookup": lookup,
        "latency": latency,
        "kernel": kernel,
        "rows": rows,
        "workers": workers,
        "overload": overload,
        "curve": curve,
        "neighbours": neighbours,
        "coalesce": coalesce,
        "rollouts": rollouts,
        "memory": memory,
        "start": start,
    }
    yield from run_parts(parts, only=only, times=times, before=_prepare)


def _prepare() -> None:
    """Make the data before anything is timed."""
    for kind in ("oip", "plain", "fields", "oip_many", "binary_many"):
        bodies_path(kind)
    say(f"the model of its own tensors runs on {TENSORS_ON}")


def _closed(name: str, target: str, *plan: str) -> Work:
    return Work(name=name, script="serving/closed.py", arguments=[target, *plan])


def _script(name: str, script: str, *arguments: str) -> Work:
    return Work(name=name, script=f"serving/{script}.py", arguments=list(arguments))


def _once(work: Work, times: int) -> Figures:
    (found,) = in_turns([work], times=times)
    return found


@cache
def _side_by_side(times: int) -> dict[str, Figures]:
    """Every server in turns, with one connection and then with 64; `ours` and the other two ways to ask us."""
    targets = {"ours": "tensors", "fields": "fields", "field_tensors": "field_tensors"}
    targets |= {name: name for name in PEERS if not name.endswith("_many")}
    works = [_closed(name, target, *SINGLE) for name, target in targets.items()]
    return dict(zip(targets, in_turns(works, times=times), strict=True))


def single(times: int) -> list[Bar]:
    """One row of JSON a request, 64 connections: ours, all peers, and nginx answering a constant."""
    found = _side_by_side(times)
    ours = found["ours"]["c64_rate"]
    bars = [
        Bar(name="single_per_second", figure=ours, bar=None, goal=60_000),
        Bar(name="single_vs_nginx", figure=ours / found["nginx"]["c64_rate"], bar=None, goal=0.3),
        Bar(name="single_p99_ms", figure=found["ours"]["c64_p99_ms"], bar=None, at_most=True),
        Bar(name="single_by_fields_per_second", figure=found["fields"]["c64_rate"], bar=None),
        Bar(name="single_by_field_tensors_per_second", figure=found["field_tensors"]["c64_rate"], bar=None),
        Bar(name="single_vs_fastapi", figure=ours / found["fastapi"]["c64_rate"], bar=None),
    ]
    for peer, bar in TIMES.items():
        bars.append(Bar(name=f"single_vs_{peer}", figure=ours / found[peer]["c64_rate"], bar=bar))
    return bars


def latency(times: int) -> list[Bar]:
    """One connection, one request at a time: ours and all peers."""
    found = _side_by_side(times)
    ours = found["ours"]["c1_p50_ms"]
    fastest = min(found[peer]["c1_p50_ms"] for peer in (*TIMES, "fastapi"))
    return [
        Bar(name="latency_p50_ms", figure=ours, bar=0.25, goal=0.13, at_most=True),
        Bar(name="latency_p99_ms", figure=found["ours"]["c1_p99_ms"], bar=None, at_most=True),
        Bar(name="latency_p50_vs_fastest_peer", figure=ours / fastest, bar=1.0, at_most=True),
        Bar(name="latency_nginx_p50_ms", figure=found["nginx"]["c1_p50_ms"], bar=None, at_most=True),
    ]


def lookup(times: int) -> list[Bar]:
    """An entity and 8 fields, without and with 22 window features looked up; by `:predict`, and as tensors."""
    works = [
        _closed("8 fields", "narrow", "64:4"),
        _closed("8 fields and 22 features looked up", "lookup", "64:4"),
        _closed("8 fields, as tensors", "narrow_tensors", "64:4"),
        _closed("8 fields and 22 features, as tensors", "lookup_tensors", "64:4"),
    ]
    bars = []
    plain, looked_up, plain_tensors, looked_up_tensors = in_turns(works, times=times)
    for name, before, after in (("", plain, looked_up), ("_tensors", plain_tensors, looked_up_tensors)):
        added = after["c64_cpu_us"] - before["c64_cpu_us"]
        limits: tuple[int | None, int | None, int | None] = (15, 6, 20_000) if not name else (None, None, None)
        bars += [
            Bar(name=f"lookup{name}_added_cpu_us", figure=added, bar=limits[0], goal=limits[1], at_most=True),
            Bar(name=f"lookup{name}_per_second", figure=after["c64_rate"], bar=limits[2]),
        ]
    return bars


def kernel(times: int) -> list[Bar]:
    """Trees in process, 1,000 rows a call, one thread: ours, ONNX Runtime and LightGBM."""
    found = _once(_script("tree kernel", "kernel"), times)
    ours = found["flyball_1000"]
    lightgbm = max(found["lightgbm_1000"], found["lightgbm_c_1000"])
    return [
        Bar(name="kernel_vs_onnx", figure=ours / found["onnxruntime_1000"], bar=10, goal=20),
        Bar(name="kernel_vs_lightgbm", figure=ours / lightgbm, bar=15),
        Bar(name="kernel_rows_per_second", figure=ours, bar=None),
    ]


def rows(times: int) -> list[Bar]:
    """1,000 rows a request, 4 connections: binary, PyTriton beside it; and JSON, FastAPI with orjson beside it."""
    works = [
        _closed("flyball, binary", "tensors_binary", *MANY),
        _closed("PyTriton, binary", "pytriton_many", *MANY),
        _closed("flyball, JSON", "tensors_many", *MANY),
        _closed("FastAPI with orjson, JSON", "fastapi_many", *MANY),
    ]
    binary, triton, json, fastapi = (found["c4_rows"] for found in in_turns(works, times=times))
    return [
        Bar(name="rows_binary_per_second_and_core", figure=binary, bar=1_000_000, goal=2_000_000),
        Bar(name="rows_binary_vs_pytriton", figure=binary / triton, bar=None),
        Bar(name="rows_json_vs_fastapi", figure=json / fastapi, bar=2.5),
        Bar(name="rows_json_per_second", figure=json, bar=None, goal=450_000),
    ]


def workers(times: int) -> list[Bar]:
    """One worker and two on both cores, the generator beside them."""
    found = _once(_script("workers", "working", "workers"), times)
    return [
        Bar(name="workers_1_per_second", figure=found["rate_1"], bar=None),
        Bar(name="workers_2_per_second", figure=found["rate_2"], bar=None),
        Bar(name="workers_efficiency", figure=found["efficiency"], bar=None),
    ]


def overload(times: int) -> list[Bar]:
    """A model of 500 µs a row, at most 8 rows a batch, at 3 × its capacity, with 50 ms for each request."""
    found = _once(_script("overload, padded model", "overload", "padded"), times)
    lost = found["unanswered"] + found["broken"] + found["other"]
    return [
        Bar(name="overload_goodput_share", figure=found["goodput_share"], bar=0.9, goal=0.97),
        Bar(name="overload_refused_p99_ms", figure=found["refused_p99_ms"], bar=5, at_most=True),
        Bar(name="overload_lost", figure=lost, bar=0, at_most=True),
        Bar(name="overload_capacity", figure=found["capacity"], bar=None),
    ]


def curve(times: int) -> list[Bar]:
    """The tree model's goodput, as a share of its capacity, at 0.5 to 3 × of it, with 50 ms for each request."""
    found = _once(_script("overload, tree model", "overload", "curve"), times)
    bars = [Bar(name=f"curve_{factor:g}x", figure=found[f"x{factor:g}"], bar=None) for factor in FACTORS]
    sent = Bar(name="curve_3x_sent_share", figure=found["x3_sent_share"], bar=None)
    return [*bars, sent, Bar(name="curve_capacity", figure=found["capacity"], bar=None)]


def neighbours(times: int) -> list[Bar]:
    """Two services on one worker, 5 and 200 ms; the slow one at 3 × its capacity, the fast one alone and beside it."""
    found = _once(_script("neighbours", "overload", "neighbours"), times)
    return [
        Bar(name="neighbours_p99_ratio", figure=found["ratio"], bar=1.5, goal=1.2, at_most=True),
        Bar(name="neighbours_fast_good_share", figure=found["beside_good_share"], bar=None),
        Bar(name="neighbours_slow_goodput_share", figure=found["slow_goodput_share"], bar=None),
    ]


def coalesce(times: int) -> list[Bar]:
    """100 connections ask the same new thing at once."""
    found = _once(_script("100 equal misses", "working", "coalesce"), times)
    return [Bar(name="coalesce_model_calls", figure=found["computed"], bar=1, at_most=True)]


def rollouts(times: int) -> list[Bar]:
    """20 plans, each with another version than before, under full load."""
    found = _once(_script("20 rollouts", "working", "rollouts"), times)
    return [
        Bar(name="rollouts_failed_requests", figure=found["failed"], bar=0, at_most=True),
        Bar(name="rollouts_p99_ms", figure=found["p99_ms"], bar=None, at_most=True),
    ]


def memory(times: int) -> list[Bar]:
    """The proportional set size of the larger of two workers, after load; the model, below 1 MB, is not taken off."""
    found = _once(_script("two workers", "working", "memory"), times)
    return [
        Bar(name="memory_worker_mb", figure=found["worker_mb"], bar=60, goal=35, at_most=True),
        Bar(name="memory_zygote_mb", figure=found["zygote_mb"], bar=None, at_most=True),
    ]


def start(times: int) -> list[Bar]:
    """From a worker's death to its successor's first answer, and from the zygote's start to the first."""
    found = _once(_script("starts", "working", "start"), times)
    return [
        Bar(name="start_fork_seconds", figure=found["fork_seconds"], bar=0.3, goal=0.1, at_most=True),
        Bar(name="start_cold_seconds", figure=found["cold_seconds"], bar=2.0, goal=1.0, at_most=True),
    ]
