"""A request on its way, and the rows of it that one version answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from flyball.kernel.errors import FlyballError
from flyball.serving.plan import Route
from flyball.serving.ports import Tensors

if TYPE_CHECKING:
    from flyball.serving.scoring import Result
    from flyball.serving.state import Served, Service

Key = dict[str, Any]


class Sender(Protocol):
    @property
    def gone(self) -> bool: ...


class Ask:
    """One request: rows of fields for a service, or tensors of the model's own.

    Args:
        rows: empty for tensors.
        tensors: None for rows.
        at: domain time, None for now.
        version: None to be routed.
        arrived: monotonic seconds, None for now.
        answer: called once, on the event loop, when `error` is set or all `jobs` are done; after it, the jobs are let
            go. None: they are read from the request itself.
        sender: tells whether somebody waits for the answer; None: somebody does.
        on: the service as it was when the request was read; None: as it is when it is taken.
    """

    timeout_us: int | None = None  # of the request; it can only shorten the service's deadline
    priority = 2  # 1 before 2 before 3, as the queue of a busy version is emptied
    error: FlyballError | None = None
    pending = 0

    def __init__(
        self,
        service: str,
        rows: Sequence[Any] = (),
        *,
        tensors: Tensors | None = None,
        at: int | None = None,
        version: str | None = None,
        arrived: float | None = None,
        answer: Callable[[Ask], None] | None = None,
        sender: Sender | None = None,
        on: Service | None = None,
    ) -> None:
        self.service = service
        self.rows = rows
        self.tensors = tensors
        self.at = at
        self.version = version
        self.arrived = arrived
        self.answer = answer
        self.sender = sender
        self.on = on
        self.jobs: list[Job] = []

    @property
    def left(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self.sender is not None and self.sender.gone

    def conclude(self) -> None:
        """Give the answer, and let go of what refers back to the request, so that no cycle is left to be collected."""
        if self.answer is not None:
            try:
                self.answer(self)
            finally:
                self.jobs.clear()


def place(jobs: Sequence[Job], started: float) -> int:
    """Say where each job's rows stand in the batch that begins; gives how many rows it is charged with."""
    at = rows = 0
    for job in jobs:
        job.start = at
        job.started = started
        at += len(job.ids)
        rows += job.count
    return rows


class Job:
    """The rows of a request that one version answers together: usually all of it.

    `indexes` are the rows' places in the request, None where they are all of it. `accepted`: it waits or waited for its
    version, so it is owed an answer. When it is done, `result` holds its rows from `start` on, and `error` what failed
    as a whole.
    """

    indexes: list[int] | None = None
    accepted = False
    done = False
    start = 0
    started = 0.0
    result: Result | None = None
    error: FlyballError | None = None

    def __init__(
        self,
        ask: Ask,
        service: Service,
        served: Served,
        route: Route,
        ids: list[str],
        given: Sequence[Any],
        keys: list[Key | None] | None,
        at: int,
        arrived: float,
        deadline: float,
        tensors: Tensors | None,
        count: int,
    ) -> None:
        self.ask = ask
        self.service = service
        self.served = served
        self.route = route
        self.ids = ids
        self.given = given
        self.keys = keys
        self.at = at
        self.arrived = arrived
        self.deadline = deadline
        self.tensors = tensors
        self.count = count
