"""A request on its way, and the rows of it that one version answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
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


@dataclass(kw_only=True, slots=True)
class Ask:
    """One request: rows of fields for a service, or tensors of the model's own.

    Args:
        tensors: None for rows.
        at: domain time, None for now.
        version: None to be routed.
        arrived: monotonic seconds, None for now.
        timeout_us: of the request; it can only shorten the service's deadline.
        priority: 1 before 2 before 3, as the queue of a busy version is emptied.
        answer: called once, on the event loop, when `error` is set or all `jobs` are done; after it, the jobs are let
            go. None: they are read from the request itself.
        sender: tells whether somebody waits for the answer; None: somebody does.
        on: the service as it was when the request was read; None: as it is when it is taken.
    """

    service: str
    rows: Sequence[Any] = ()
    tensors: Tensors | None = None
    at: int | None = None
    version: str | None = None
    arrived: float | None = None
    timeout_us: int | None = None
    priority: int = 2
    answer: Callable[[Ask], None] | None = None
    sender: Sender | None = None
    on: Service | None = None
    error: FlyballError | None = None
    jobs: list[Job] = field(default_factory=list)
    pending: int = 0

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

    __slots__ = (
        "accepted",
        "arrived",
        "ask",
        "at",
        "count",
        "deadline",
        "done",
        "error",
        "given",
        "ids",
        "indexes",
        "keys",
        "result",
        "route",
        "served",
        "service",
        "start",
        "started",
        "tensors",
    )

    def __init__(
        self,
        ask: Ask,
        service: Service,
        served: Served,
        route: Route,
        *,
        ids: list[str],
        given: Sequence[Any],
        keys: list[Key | None] | None,
        at: int,
        arrived: float,
        deadline: float,
        indexes: list[int] | None = None,
        tensors: Tensors | None = None,
        count: int = 1,
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
        self.indexes = indexes
        self.tensors = tensors
        self.count = count
        self.started = 0.0
        self.start = 0
        self.accepted = False
        self.done = False
        self.result: Result | None = None
        self.error: FlyballError | None = None
