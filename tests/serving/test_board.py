"""The board: what workers write is read by others, whatever becomes of the writer."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.serving.board import Board, WorkerState


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def test_a_worker_writes_and_others_read() -> None:
    board = Board(2)

    def work() -> None:
        board.slots[1].ready(5_000)
        board.slots[1].in_flight = 4
        board.slots[1].busy_ns += 3
        board.slots[1].epoch = 12

    board.slots[1].forked(2_000)
    assert os.waitpid(forked(work), 0)[1] == 0
    slot = board.slots[1]
    assert (slot.in_flight, slot.busy_ns, slot.epoch, slot.load_ns) == (4, 3, 12, 3_000)
    assert [(number, found.state) for number, found in board.live()] == [(1, WorkerState.READY)]
    assert board.slots[0].state is WorkerState.EMPTY


def test_a_worker_that_is_killed_leaves_a_readable_board_and_its_counts_go_on() -> None:
    board = Board(1)
    slot = board.slots[0]
    busy = 0
    for _ in range(3):
        slot.forked(1)

        def work() -> None:
            slot.ready(2)
            while True:
                slot.in_flight += 1
                slot.busy_ns += 1

        pid = forked(work)
        try:
            while slot.busy_ns < busy + 1_000 and os.waitpid(pid, os.WNOHANG) == (0, 0):
                pass
        finally:
            os.kill(pid, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1])
        assert slot.in_flight > 0
        assert slot.state is WorkerState.READY
        assert slot.busy_ns >= busy + 1_000
        busy = slot.busy_ns
        slot.vacate()
        assert (slot.in_flight, slot.state, slot.busy_ns) == (0, WorkerState.EMPTY, busy)


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 100)), max_size=50))
def test_slots_do_not_touch_each_other(steps: list[tuple[int, int]]) -> None:
    board = Board(4)
    expected = [0] * 4
    for number, rows in steps:
        board.slots[number].in_flight += rows
        expected[number] += rows
        board.desk.demand = rows
    assert [slot.in_flight for slot in board.slots] == expected


def test_only_the_first_readiness_after_a_fork_says_how_long_it_took() -> None:
    board = Board(1)
    board.slots[0].forked(100)
    board.slots[0].ready(150)
    board.slots[0].ready(900)
    assert board.slots[0].load_ns == 50
    board.slots[0].state = WorkerState.DRAINING
    board.slots[0].ready(1_000)
    assert board.slots[0].state is WorkerState.DRAINING


@pytest.mark.parametrize(
    ("connections", "may"), [([3, 3, 0], True), ([4, 3, 0], True), ([5, 3, 0], False), ([2, 3, 9], True)]
)
def test_a_worker_leaves_a_connection_to_a_ready_one_that_has_two_fewer(connections: list[int], may: bool) -> None:
    board = Board(3)
    for number in (0, 1):  # the third is not ready
        board.slots[number].state = WorkerState.READY
    for slot, open_now in zip(board.slots, connections, strict=True):
        slot.connections = open_now
    assert board.may_take(0, connections[0]) is may
    assert board.slots[0].connections == connections[0]
