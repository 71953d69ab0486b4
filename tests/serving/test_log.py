"""The prediction log: nothing written is lost, and nothing torn is read."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.kernel.errors import ConflictError, ExhaustedError, InvalidError
from flyball.serving.log import HEADER, PredictionReader, PredictionWriter, cut_torn_tail


def record(i: int) -> dict[str, Any]:
    return {"id": f"p_{i}", "at": i, "output": {"score": i / 7}, "inputs": {"a": None, "b": "é"}}


def everything(root: Path) -> list[dict[str, Any]]:
    reader = PredictionReader(root)
    return [r for slot in reader.slots() for s in reader.segments(slot) for r in reader.read(slot, s, 0).records]


def test_what_was_written_is_read_in_order_and_from_an_offset(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path / "0")
    writer.write([record(0), record(1)])
    reader = PredictionReader(tmp_path)
    (segment,) = reader.segments("0")
    first = reader.read("0", segment, 0)
    assert list(first.records) == [record(0), record(1)]
    assert not first.torn
    writer.write([record(2)])
    rest = reader.read("0", segment, first.end)
    assert list(rest.records) == [record(2)]
    assert list(reader.read("0", segment, 0, end=first.end).records) == [record(0), record(1)]
    assert reader.read("0", segment, rest.end).records == ()
    writer.close()


def test_segments_turn_by_size_and_by_age(tmp_path: Path) -> None:
    now = [0.0]
    writer = PredictionWriter(tmp_path / "0", segment_bytes=200, segment_seconds=10, monotonic=lambda: now[0])
    for i in range(8):
        writer.write([record(i)])
    names = PredictionReader(tmp_path).segments("0")
    assert len(names) > 1
    now[0] = 11.0
    writer.write([record(8)])
    assert len(PredictionReader(tmp_path).segments("0")) == len(names) + 1
    assert everything(tmp_path) == [record(i) for i in range(9)]
    writer.close()


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 400), flip=st.integers(0, 400))
def test_a_torn_tail_is_never_read_and_is_cut_on_reopening(
    tmp_path_factory: pytest.TempPathFactory, cut: int, flip: int
) -> None:
    root = tmp_path_factory.mktemp("log")
    writer = PredictionWriter(root / "0")
    writer.write([record(i) for i in range(4)])
    writer.close()
    path = root / "0" / "00000001.log"
    data = bytearray(path.read_bytes())
    keep = min(len(data), HEADER.size + cut)
    data = data[:keep]
    if HEADER.size + flip < len(data):
        data[HEADER.size + flip] ^= 0xFF
    path.write_bytes(data)
    before = everything(root)
    assert before == [record(i) for i in range(len(before))]
    again = PredictionWriter(root / "0")
    again.write([record(99)])
    again.close()
    assert everything(root) == [*before, record(99)]
    assert not PredictionReader(root).read("0", "00000001.log", 0).torn


def test_sigkill_loses_nothing_that_was_written(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from flyball.serving.log import PredictionWriter\n"
        "writer = PredictionWriter(Path(sys.argv[1]) / '0', segment_bytes=2000)\n"
        "i = 0\n"
        "while True:\n"
        "    writer.write([{'id': i}]); print(i, flush=True); i += 1\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 500:
                break
        process.send_signal(signal.SIGKILL)
        last = int((line + process.stdout.read()).split(b"\n")[-2])
    written = [r["id"] for r in everything(tmp_path)]
    assert written == list(range(len(written)))
    assert len(written) in (last + 1, last + 2)  # at most one was written and not yet answered


def test_a_full_disk_keeps_no_half_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = PredictionWriter(tmp_path / "0")
    writer.write([record(0)])
    real = os.write

    def half(fd: int, data: Any) -> int:
        if len(data) > 20:
            return real(fd, data[:20])
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(ExhaustedError) as caught:
        writer.write([record(1), record(2)])
    assert caught.value.code == "disk_full"
    monkeypatch.undo()
    writer.write([record(3)])
    writer.close()
    assert everything(tmp_path) == [record(0), record(3)]


def test_a_disk_that_is_full_when_a_segment_turns_costs_no_later_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    writer = PredictionWriter(tmp_path / "w0", segment_seconds=1.0, monotonic=lambda: now[0])
    writer.write([record(0)])
    now[0] = 5.0

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("flyball.serving.log.os.write", full)
        for _ in range(2):
            with pytest.raises(ExhaustedError):
                writer.write([record(1)])
    writer.write([record(2)])
    writer.close()
    assert everything(tmp_path) == [record(0), record(2)]


def test_threads_write_whole_batches(tmp_path: Path) -> None:
    writer = PredictionWriter(tmp_path / "0", segment_bytes=4000)

    def write(base: int) -> None:
        for i in range(50):
            writer.write([record(base + 2 * i), record(base + 2 * i + 1)], durable=i % 25 == 0)

    threads = [threading.Thread(target=write, args=(1000 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    ids = [r["at"] for r in everything(tmp_path)]
    assert len(ids) == len(set(ids)) == 400
    assert all(ids[i] + 1 == ids[i + 1] for i in range(0, 400, 2))


def test_a_slot_has_one_writer_and_a_reader_can_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyball.serving.log.LOCK_SECONDS", 0.02)
    reader = PredictionReader(tmp_path)
    assert not reader.live("0")
    writer = PredictionWriter(tmp_path / "0")
    assert reader.live("0")
    with pytest.raises(ConflictError, match="'0'"):
        PredictionWriter(tmp_path / "0")
    writer.close()
    assert not reader.live("0")
    PredictionWriter(tmp_path / "0").close()


def test_foreign_and_newer_segments_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "00000001.log").write_bytes(b"hello, I am no log")
    with pytest.raises(InvalidError):
        PredictionReader(tmp_path).read("0", "00000001.log", 0)
    newer = tmp_path / "0" / "00000002.log"
    newer.write_bytes(HEADER.pack(b"FBPL", 9, 0))
    with pytest.raises(ConflictError, match="version 9"):
        cut_torn_tail(newer)


def test_a_removed_segment_is_gone_and_its_name_is_not_used_again_while_the_last_stays(tmp_path: Path) -> None:
    PredictionWriter(tmp_path / "0").close()
    PredictionWriter(tmp_path / "0").close()
    reader = PredictionReader(tmp_path)
    reader.remove("0", "00000001.log")
    reader.remove("0", "00000001.log")
    PredictionWriter(tmp_path / "0").close()
    assert reader.segments("0") == ["00000002.log", "00000003.log"]
