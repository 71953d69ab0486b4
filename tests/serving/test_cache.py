"""The cache of a version's answers, against a plain dictionary; and through the worker, with features that change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.engines.runtimes import open_runtime
from flyball.serving.cache import Cache, CacheConfig, digest_of
from flyball.serving.manifest import Manifest
from flyball.serving.ports import Runtime
from flyball.serving.replies import outcomes
from flyball.serving.request import Ask
from flyball.serving.scoring import tensor_key
from tests.serving.onnx_models import affine
from tests.serving.support import Bench, FailingRuntime, payment, plan, tree_version, write_version


@given(steps=st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=80), entries=st.integers(1, 6))
def test_the_least_recently_used_answers_go_first(steps: list[tuple[bool, int]], entries: int) -> None:
    cache = Cache(CacheConfig(entries=entries))
    model: dict[int, int] = {}
    for put, number in steps:
        key = digest_of(number.to_bytes(4, "little"))
        if put:
            model.pop(number, None)
            model[number] = number * 10
            cache.put(key, number * 10)
            while len(model) > entries:
                del model[next(iter(model))]
        else:
            expected = model.pop(number, None)
            if expected is not None:
                model[number] = expected
            assert cache.get(key) == expected
    assert len(cache) == len(model) <= entries


def test_a_cache_that_costs_more_than_it_saves_rests_and_is_judged_again() -> None:
    cache = Cache(CacheConfig(window=10, rest=30))
    cache.put(b"k", 1)
    cache.judge(looks=10, hits=1, look_seconds=1e-3, model_seconds=1e-4)
    assert not cache.awake(20)
    assert len(cache) == 0
    assert not cache.awake(10)
    assert cache.awake(1)
    cache.judge(looks=10, hits=9, look_seconds=1e-3, model_seconds=1e-3)
    assert cache.awake(1)


def failing_bench(tmp_path: Path) -> tuple[Bench, list[FailingRuntime]]:
    runtimes: list[FailingRuntime] = []

    def opened(kind: str, folder: Path, manifest: Manifest) -> Runtime:
        runtimes.append(FailingRuntime(open_runtime(kind, folder, manifest)))
        return runtimes[-1]

    return Bench(tmp_path, runtime=opened), runtimes


def rungs(bench: Bench, rows: Sequence[Any]) -> list[str]:
    return [reply["rung"] for reply in bench.worker.predict("fraud", rows)]


def test_a_question_is_asked_once_and_its_answer_kept_and_labelled(tmp_path: Path) -> None:
    bench, runtimes = failing_bench(tmp_path)
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}, cache=True))
    before = runtimes[0].calls
    asks = [Ask("fraud", [payment(20.0)]) for _ in range(100)]
    bench.worker.answer(asks)
    assert runtimes[0].calls == before + 1
    found = [outcomes(ask)[0] for ask in asks]
    assert [reply["rung"] for reply in found if isinstance(reply, dict)] == ["model"] + ["coalesced"] * 99
    assert len({reply["prediction_id"] for reply in found if isinstance(reply, dict)}) == 100
    assert rungs(bench, [payment(20.0), payment(21.0)]) == ["cache", "model"]
    assert [record["rung"] for record in bench.records()].count("coalesced") == 99
    bench.log.close()


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    bench, runtimes = failing_bench(tmp_path)
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}, cache=True))
    runtimes[0].always = True
    replies = bench.worker.predict("fraud", [payment(20.0)] * 2)
    assert [reply["error"]["code"] for reply in replies] == ["model_failed"] * 2
    runtimes[0].always = False
    assert rungs(bench, [payment(20.0)]) == ["model"]
    bench.log.close()


def test_another_version_does_not_answer_from_the_first_ones_cache(bench: Bench, tmp_path: Path) -> None:
    versions = {"fraud/1": tree_version(tmp_path), "fraud/2": tree_version(tmp_path, 1)}
    bench.worker.load_plan(plan(versions, cache=True))
    first = bench.worker.predict("fraud", [payment(20.0)])[0]
    bench.worker.load_plan(plan(versions, weights={"fraud/2": 10_000}, cache=True, epoch=2))
    second = bench.worker.predict("fraud", [payment(20.0)])[0]
    assert (second["rung"], second["version"]) == ("model", "fraud/2")
    assert first["score"] != second["score"]


def test_tensors_are_cached_by_all_that_they_are(bench: Bench, tmp_path: Path) -> None:
    array = np.arange(6, dtype=np.float32)
    keys = {
        tensor_key({"x": array.reshape(2, 3)}),
        tensor_key({"x": array.reshape(3, 2)}),
        tensor_key({"x": array.reshape(2, 3).astype(np.float64)}),
        tensor_key({"y": array.reshape(2, 3)}),
        tensor_key({"x": np.array(["ab", "c"], dtype=object)}),
        tensor_key({"x": np.array(["a", "bc"], dtype=object)}),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("cache", [True, False])
def test_equal_requests_with_tensors_share_a_run(tmp_path: Path, cache: bool) -> None:
    bench, _ = failing_bench(tmp_path)
    signature = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    runtime = {"kind": "onnx", "file": "m.onnx", "tensors": signature}
    version = write_version(tmp_path, {"m.onnx": affine()}, model="m", runtime=runtime, signature=signature)
    bench.worker.load_plan(plan({"m/1": version}, name="m", cache=cache))
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]}
    first, second = bench.worker.infer("m", request), bench.worker.infer("m", request)
    assert first["outputs"] == second["outputs"]
    assert second["parameters"]["rung"] == ("cache" if cache else "model")
    assert [record["rung"] for record in bench.records()] == ["model", "cache" if cache else "model"]
    bench.log.close()
