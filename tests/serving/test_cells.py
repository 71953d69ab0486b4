"""Counts in a mapped file: what is written is read elsewhere, goes on after a restart, and survives a kill."""

from __future__ import annotations

import errno
import os
import random
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.kernel.errors import ConflictError, InvalidError
from flyball.serving.cells import HEADER, MAGIC, CellFile, Key, read_cells

KEYS = st.lists(st.text("abé/ \n", max_size=12), min_size=1, max_size=4).filter(any).map(tuple)


def test_cells_are_read_from_the_file_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics" / "worker-0.bin"
    file = CellFile(path)
    block = file.block(("requests", "tip"), 2)
    block.cells[0] += 3
    block.array[1] = 0.5
    assert read_cells(path) == {("requests", "tip"): [3.0, 0.5]}
    block.cells[0] += 1
    assert read_cells(path) == {("requests", "tip"): [4.0, 0.5]}


def test_a_file_that_is_not_there_or_has_no_header_yet_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.bin"
    assert read_cells(path) == {}
    path.touch()
    assert read_cells(path) == {}
    path.write_bytes(bytes(4096))
    assert read_cells(path) == {}
    CellFile(path).block(("a",), 1).cells[0] = 1
    assert read_cells(path) == {("a",): [1.0]}


@given(keys=st.lists(st.tuples(KEYS, st.integers(1, 20)), max_size=30), seed=st.integers(0, 1_000))
def test_a_file_goes_on_with_its_values(
    keys: list[tuple[Key, int]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cells") / "worker-0.bin"
    draw = random.Random(seed)
    expected: dict[Key, list[float]] = {}
    for _ in range(3):
        file = CellFile(path, start_bytes=256)
        for key, cells in keys:
            if draw.random() < 0.1:
                file.free(key)
                expected.pop(key, None)
            block = file.block(key, cells)
            before = expected.get(key)
            values = before if before is not None and len(before) == cells else [0.0] * cells
            at = draw.randrange(cells)
            block.cells[at] += 1.5
            expected[key] = [value + 1.5 * (position == at) for position, value in enumerate(values)]
        assert dict(file.values()) == expected == read_cells(path)
        file.close()


def test_blocks_that_were_handed_out_stay_valid_when_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.bin"
    file = CellFile(path, start_bytes=256)
    first = file.block(("first",), 1)
    for number in range(200):
        file.block(("more", str(number)), 16)
        first.cells[0] += 1
    assert read_cells(path)[("first",)] == [200.0]
    assert path.stat().st_size <= 256 * 256


def test_a_freed_block_is_used_again_and_begins_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.bin"
    file = CellFile(path, start_bytes=4096)
    for number in range(1_000):
        block = file.block(("predictions", "tip", f"tip/{number}"), 16)
        assert not block.array.any()
        block.array[:] += 1
        file.free(("predictions", "tip", f"tip/{number - 1}"))
    assert path.stat().st_size == 4096
    assert list(read_cells(path)) == [("predictions", "tip", "tip/999")]
    file.close()
    assert CellFile(path).keys == [("predictions", "tip", "tip/999")]


def damaged(data: bytes, how: str) -> bytes:
    if how == "foreign":
        return b"#!/bin/sh\n" + data
    if how == "cut":
        return data[:100]
    if how == "newer":
        return HEADER.pack(MAGIC, 99, 0, HEADER.size) + data[HEADER.size :]
    if how == "too much used":
        return HEADER.pack(MAGIC, 1, 0, len(data) + 8) + data[HEADER.size :]
    if how == "a page of zeros":
        return data[: HEADER.size] + bytes(len(data) - HEADER.size)
    at = data.index(b"requests")
    return data[:at] + b"r" * 8 + data[at + 8 :]


@pytest.mark.parametrize("how", ["foreign", "cut", "newer", "too much used", "a page of zeros", "another key"])
def test_a_torn_or_foreign_file_is_set_aside_and_named(
    how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "worker-0.bin"
    file = CellFile(path)
    file.block(("requests",), 1).cells[0] = 7
    file.close()
    data = damaged(path.read_bytes(), how)
    path.write_bytes(data)
    with pytest.raises((InvalidError, ConflictError), match="file"):
        read_cells(path)
    again = CellFile(path)
    assert again.keys == []
    assert (tmp_path / "worker-0.bad").read_bytes() == data
    assert "set aside" in caplog.text
    again.block(("requests",), 1).cells[0] = 1
    assert read_cells(path) == {("requests",): [1.0]}


@given(at=st.integers(0, 4095), value=st.integers(0, 255))
def test_any_damaged_byte_gives_values_or_a_named_error(
    at: int, value: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cells") / "worker-0.bin"
    file = CellFile(path, start_bytes=4096)
    for number in range(10):
        file.block((f"key-{number}", "x"), number + 1).array[:] = number
    data = bytearray(path.read_bytes())
    data[at] = value
    path.write_bytes(data)
    try:
        found = read_cells(path)
    except (InvalidError, ConflictError):
        return
    assert len(found) <= 10
    CellFile(path).block(("key-3", "x"), 4)


def test_a_full_disk_costs_only_the_sharing_of_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "worker-0.bin"
    file = CellFile(path, start_bytes=256)
    old = file.block(("old",), 1)

    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    new = file.block(("new",), 30)
    new.cells[0] += 1
    old.cells[0] += 1
    assert read_cells(path) == {("old",): [1.0]}
    assert "cannot grow" in caplog.text


def write_on(path: Path, begun: int) -> None:
    """Adds blocks, frees some, and fills them, until it is killed or has written far more than was asked for."""
    file = CellFile(path, start_bytes=256)
    for number in range(begun, begun + 20_000):
        file.block((f"k{number % 50}", str(number)), 1 + number % 7).array[:] = number
        if number % 3 == 0:
            file.free((f"k{(number - 2) % 50}", str(number - 2)))
    signal.pause()


def test_a_writer_that_is_killed_leaves_a_file_of_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.bin"
    for begun in range(0, 100_000, 20_000):
        pid = os.fork()
        if pid == 0:
            try:
                write_on(path, begun)
            finally:
                os._exit(1)
        try:
            before = len(read_cells(path))
            while len(read_cells(path)) < before + 20 and os.waitpid(pid, os.WNOHANG) == (0, 0):
                pass
        finally:
            os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        left = read_cells(path)
        assert len(left) >= before + 20
        assert all({*cells} <= {0.0, max(cells)} for cells in left.values())
        kept = CellFile(path)
        assert dict(kept.values()) == left
        kept.close()
    assert not (tmp_path / "worker-0.bad").exists()
