"""What the serving benchmark reads and writes: bodies, replies, metrics, processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from benchmarks.serving.client import read_oip, read_plain, read_predict
from benchmarks.serving.data import oip_binary, oip_body, read_bodies, rows, write_bodies
from benchmarks.serving.files import FEATURES
from benchmarks.serving.processes import cpu_seconds, descendants, pss_mb
from benchmarks.serving.working import counted


def test_bodies_come_back_as_they_were_written(tmp_path: Path) -> None:
    bodies = [b"", b"{}", bytes(range(256)) * 300]
    write_bodies(tmp_path / "bodies.bin", bodies)
    assert read_bodies(tmp_path / "bodies.bin") == bodies


def test_rows_have_three_decimals_and_are_the_same_each_time() -> None:
    found = rows(100, 3)
    assert found.shape == (100, FEATURES)
    assert (np.round(found, 3) == found).all()
    assert (rows(100, 3) == found).all()


def test_a_tensor_is_the_same_in_json_and_in_binary() -> None:
    matrix = rows(5, 1)
    (tensor,) = json.loads(oip_body(matrix))["inputs"]
    body, head = oip_binary(matrix)
    (described,) = json.loads(body[:head])["inputs"]
    assert described["shape"] == tensor["shape"] == [5, FEATURES]
    assert np.frombuffer(body[head:], "<f4").tolist() == np.float32(tensor["data"]).tolist()


def test_scores_are_read_from_replies_of_every_kind() -> None:
    one = {"name": "score", "shape": [2, 1], "datatype": "FP32", "data": [0.25, 0.5]}
    two = {"name": "probabilities", "shape": [2, 2], "datatype": "FP32", "data": [0.75, 0.25, 0.5, 0.5]}
    named = {"name": "prediction_id", "shape": [2], "datatype": "BYTES", "data": ["a", "b"]}
    assert read_oip({}, json.dumps({"outputs": [named, one]}).encode()) == [0.25, 0.5]
    assert read_oip({}, json.dumps({"outputs": [two]}).encode()) == [0.25, 0.5]
    assert read_predict({}, b'{"score": 0.25}') == [0.25]
    assert read_plain({}, b'{"predictions": [0.25, 0.5]}') == read_plain({}, b"[0.25, 0.5]") == [0.25, 0.5]


def test_a_binary_reply_is_read_past_outputs_that_are_not_wanted() -> None:
    outputs = [
        {"name": "ids", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 3}},
        {"name": "score", "shape": [2], "datatype": "FP64", "parameters": {"binary_data_size": 16}},
    ]
    head = json.dumps({"outputs": outputs}).encode()
    body = head + b"abc" + np.array([0.25, 0.5]).tobytes()
    assert read_oip({"inference-header-content-length": str(len(head))}, body) == [0.25, 0.5]


def test_a_metric_is_summed_over_workers_and_versions_of_its_service() -> None:
    text = """# TYPE flyball_batch_rows histogram
flyball_batch_rows_sum{worker="0",service="padded",version="padded/1"} 3
flyball_batch_rows_sum{worker="1",service="padded",version="padded/1"} 4.0
flyball_batch_rows_sum{worker="0",service="scores",version="model/1"} 50
flyball_batch_rows_count{worker="0",service="padded",version="padded/1"} 1
flyball_services 2
"""
    assert counted(text, "flyball_batch_rows_sum", "padded") == 7


def test_a_tree_of_processes_is_found_and_measured() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE) as process:
        while len(found := descendants(process.pid)) < 2:
            os.sched_yield()
        assert found[0] == process.pid
        assert all(pss_mb(pid) > 0 for pid in found)
        assert cpu_seconds(process.pid) >= 0
        process.communicate(b"\n")
    assert cpu_seconds(process.pid) == 0.0
