"""Records in blocks: what a reader gets is what would have been written row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flyball.kernel.errors import InvalidError
from flyball.serving.blocks import expand
from tests.serving.onnx_models import affine
from tests.serving.support import Bench, payment, plan, tree_version, write_version


def test_a_record_that_is_no_block_comes_back_as_it_is() -> None:
    record = {"id": "p_1", "features": {"a": 1.0}}
    assert list(expand(record)) == [record]


def test_a_block_of_a_newer_kind_is_refused() -> None:
    with pytest.raises(InvalidError, match="newer"):
        list(expand({"block": 99, "n": 1}))


def test_rows_that_failed_stand_beside_those_that_did_not(bench: Bench, tmp_path: Path) -> None:
    bench.worker.load_plan(plan({"fraud/1": tree_version(tmp_path)}, key=["payment"]))
    rows = [payment(10.0, payment="a"), {"amount": 1}, payment(90.0, payment="b"), payment(20.0)]
    replies = bench.worker.predict("fraud", rows)
    records = bench.records()
    assert [record["id"] for record in records] == [r["prediction_id"] for r in replies if "prediction_id" in r]
    assert [record["key"] for record in records] == [{"payment": "a"}, {"payment": "b"}, None]
    assert [record["features"]["amount"] for record in records] == [10.0, 90.0, 20.0]
    assert [record["output"]["score"] for record in records] == [r["score"] for r in replies if "score" in r]
    assert {record["batch"] for record in records} == {4}
    assert {record["rung"] for record in records} == {"model"}
    assert all(record["usage"] == {"rows": 1} for record in records)


def test_tensors_of_requests_that_were_run_together_are_each_requests_own(bench: Bench, tmp_path: Path) -> None:
    from flyball.serving.oip_request import InferRequest

    signature = {
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 2]}],
    }
    version = write_version(
        tmp_path,
        {"m.onnx": affine()},
        model="m",
        runtime={"kind": "onnx", "file": "m.onnx", "tensors": signature},
        signature=signature,
    )
    bench.worker.load_plan(plan({"m/1": version}, name="m"))
    service = bench.worker.state.service("m")
    given = [np.arange(2 * n, dtype=np.float32).reshape(n, 2) + n for n in (1, 3, 2)]
    asks = [bench.worker.ask_of(service, service.main, InferRequest({"x": x})) for x in given]
    bench.worker.answer(asks)
    records = bench.records()
    assert [record["inputs"]["x"] for record in records] == [x.tolist() for x in given]
    assert [record["output"]["prediction"]["y"] for record in records] == [(2 * x + 1).tolist() for x in given]
    assert [record["usage"]["rows"] for record in records] == [1, 3, 2]
    assert {record["batch"] for record in records} == {3}
