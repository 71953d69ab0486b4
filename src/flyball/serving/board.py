"""What each worker is doing, in anonymous shared memory: written by the worker, read by the zygote and by every worker.

The zygote makes the board before it forks. A slot is a page of 8-byte words, each written by one thread with plain
aligned stores: no lock, no system call, and whatever a killed worker left is readable. `busy_ns` goes on when a slot's
worker is started again; what a dead worker had in flight is cleared by the zygote.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from enum import IntEnum

PAGE = 4096
WORD = 8


class WorkerState(IntEnum):
    """Of a slot. `EMPTY`: no worker runs there."""

    EMPTY = 0
    STARTING = 1
    READY = 2
    DRAINING = 3


class _Word:
    """One word of a page, as an attribute."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __get__(self, page: Page, owner: type[Page]) -> int:
        return page.words[self._at]

    def __set__(self, page: Page, value: int) -> None:
        page.words[self._at] = value


class Page:
    __slots__ = ("words",)

    def __init__(self, words: memoryview) -> None:
        self.words = words


class Slot(Page):
    """One worker's page. Times are nanoseconds.

    Attributes:
        in_flight: requests that were received and not answered yet.
        connections: open ones.
        busy_ns: processor time, in all.
        epoch: of the serving plan that it runs.
        load_ns: from the fork to the first moment that it was ready, of its last start.
        forked_ns: when it was forked (monotonic); 0: never.
        restarts: how many times its worker died and was forked again.
    """

    __slots__ = ()

    in_flight = _Word(0)
    connections = _Word(1)
    busy_ns = _Word(2)
    state_word = _Word(3)
    epoch = _Word(4)
    load_ns = _Word(5)
    forked_ns = _Word(6)
    restarts = _Word(7)

    @property
    def state(self) -> WorkerState:
        return WorkerState(self.state_word)

    @state.setter
    def state(self, value: WorkerState) -> None:
        self.state_word = int(value)

    def forked(self, now_ns: int) -> None:
        self.vacate()
        self.forked_ns = now_ns
        self.state = WorkerState.STARTING

    def ready(self, now_ns: int) -> None:
        """The worker serves a plan; the first time since its fork tells how long a start takes."""
        if self.state is WorkerState.STARTING:
            self.load_ns = now_ns - self.forked_ns
            self.state = WorkerState.READY

    def vacate(self) -> None:
        """Clear what is of a worker that ended; its counts stay."""
        self.state = WorkerState.EMPTY
        self.in_flight = self.connections = self.epoch = 0


class Desk(Page):
    """The zygote's page: how many workers it wants, how many the load would need (unclipped), and whether all end."""

    __slots__ = ()

    wanted = _Word(0)
    demand = _Word(1)
    minimum = _Word(2)
    maximum = _Word(3)
    draining = _Word(4)


class Board:
    """A page for the zygote, and one for each of `slots` workers. Made before the fork."""

    def __init__(self, slots: int) -> None:
        self._memory = memoryview(mmap.mmap(-1, PAGE * (slots + 1)))
        self.desk = Desk(self._page(0))
        self.slots = tuple(Slot(self._page(number + 1)) for number in range(slots))

    def _page(self, number: int) -> memoryview:
        return self._memory[number * PAGE : (number + 1) * PAGE].cast("q")

    def in_state(self, *states: WorkerState) -> Iterator[tuple[int, Slot]]:
        for number, slot in enumerate(self.slots):
            if slot.state in states:
                yield number, slot

    def live(self) -> Iterator[tuple[int, Slot]]:
        return self.in_state(WorkerState.STARTING, WorkerState.READY, WorkerState.DRAINING)

    def may_take(self, own: int, connections: int) -> bool:
        """Note how many connections a worker has; whether no ready worker has two fewer, so that it may take another.

        One fewer does not count: workers would wait for each other at every connection that comes and goes.
        """
        self.slots[own].connections = connections
        ready = int(WorkerState.READY)
        return all(slot.connections >= connections - 1 for slot in self.slots if slot.state_word == ready)
