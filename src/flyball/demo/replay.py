"""The live stream, replayed: each payment is asked about when it is made, then pushed; chargebacks when they arrive."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np

from flyball.client import Client
from flyball.demo.scores import Scored, Scores
from flyball.demo.simulate import Payments, Scenario, payment_id
from flyball.kernel.errors import ExhaustedError, InternalError, LateError, from_data
from flyball.kernel.times import DAY, HOUR, MINUTE

SPAN = 30 * MINUTE  # the longest slice, in domain time
ROWS = 64  # the largest slice
PAUSE = 6 * HOUR  # of domain time between two looks at the platform
CONNECTIONS = 4
ATTEMPTS = 6
PAUSE_SECONDS = 0.05  # before the second attempt, doubled for each further one
SERVICE = "fraud"


@dataclass(frozen=True, slots=True)
class Slice:
    """Payments `start` to `stop` (exclusive) that are asked about at once: no card twice, so none waits for another."""

    start: int
    stop: int


def slices(payments: Payments, start: int, stop: int) -> Iterator[Slice]:
    """Cut payments into slices: a function of the payments and of where it begins, so a resumed replay goes on."""
    first = start
    cards: set[int] = set()
    for index in range(start, stop):
        card, at = int(payments.card[index]), int(payments.time[index])
        begun = int(payments.time[first])
        if card in cards or at - begun > SPAN or index - first >= ROWS or at // PAUSE != begun // PAUSE:
            yield Slice(first, index)
            first, cards = index, set()
        cards.add(card)
    if first < stop:
        yield Slice(first, stop)


class Traffic:
    """What was asked so far in this run: answers, seconds spent asking, and each request's milliseconds."""

    def __init__(self) -> None:
        self.answered = 0
        self.seconds = 0.0
        self._latency: list[float] = []

    def add(self, latencies: list[float], seconds: float) -> None:
        self.answered += len(latencies)
        self.seconds += seconds
        self._latency += latencies

    @property
    def rate(self) -> float:
        """Answers per second of real time, pushes and the clock included."""
        return self.answered / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """Milliseconds, as the caller waits for them."""
        return float(np.percentile(self._latency, share)) if self._latency else 0.0


Look = Callable[[int], None]
"""Called every six hours of domain time, with the clock standing still, with the next payment's index."""


class Replay:
    """Drives the platform through the live stream. A context manager; it holds connections of its own."""

    def __init__(self, connect: Callable[[], Client], payments: Payments, scenario: Scenario, scores: Scores) -> None:
        self._connect = connect
        self._payments = payments
        self._scenario = scenario
        self._scores = scores
        self._pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="card-terminal")
        self._local = threading.local()
        self._clients: list[Client] = []
        self._client = self._opened()
        late = np.flatnonzero(payments.charged_back >= scenario.live_from)
        self._chargebacks = late[np.argsort(payments.charged_back[late], kind="stable")]
        self.traffic = Traffic()

    def __enter__(self) -> Replay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        for client in self._clients:
            client.close()

    def run(self, start: int, clock: int, look: Look) -> None:
        """Go on with payment `start` at domain time `clock`, to the end of the scenario."""
        stop = len(self._payments)
        arrived = self._arrived(clock - DAY)  # Ctrl-C may have come before a push: those of the last day again
        looked = clock // PAUSE
        for one in slices(self._payments, start, stop):
            began = time.monotonic()
            at = int(self._payments.time[one.stop - 1])
            clock = self._client.advance_clock(max(clock, at))
            latencies = self._ask(one)
            rows = [self._payments.row(index) for index in range(one.start, one.stop)]
            self._client.push("Payments", rows, idempotency_key=f"payments-{one.start}-{one.stop}")
            arrived = self._push_until(clock, arrived)
            self.traffic.add(latencies, time.monotonic() - began)
            if clock // PAUSE != looked:
                looked = clock // PAUSE
                look(one.stop)
        self._client.advance_clock(max(clock, self._scenario.ends_at))
        self._push_until(self._scenario.ends_at, arrived)
        look(stop)

    def _ask(self, one: Slice) -> list[float]:
        """Ask about the payments of a slice, several at a time, each at its own time."""
        answers = list(self._pool.map(self._predict, range(one.start, one.stop)))
        self._scores.add(scored for scored, _ in answers)
        return [latency for _, latency in answers]

    def _predict(self, index: int) -> tuple[Scored, float]:
        if not hasattr(self._local, "client"):
            self._local.client = self._opened()
        client: Client = self._local.client
        row, at = self._payments.row(index), int(self._payments.time[index])
        for attempt in range(ATTEMPTS):
            began = time.monotonic()
            try:
                reply = client.predict(SERVICE, [row], at=at)[0]
            except (LateError, ExhaustedError):  # refused at arrival, since it would be late: a terminal asks again
                if attempt == ATTEMPTS - 1:
                    raise
                time.sleep(PAUSE_SECONDS * 2**attempt)
            else:
                return _scored(index, reply), (time.monotonic() - began) * 1_000
        raise AssertionError("unreachable")

    def _opened(self) -> Client:
        client = self._connect()
        self._clients.append(client)
        return client

    def _push_until(self, clock: int, arrived: int) -> int:
        upto = self._arrived(clock)
        self._push_chargebacks(arrived, upto)
        return upto

    def _arrived(self, clock: int) -> int:
        """How many chargebacks of the live stream had arrived by then."""
        return int(np.searchsorted(self._payments.charged_back[self._chargebacks], clock, side="right"))

    def _push_chargebacks(self, start: int, stop: int) -> None:
        if start < stop:
            rows = [self._payments.chargeback(int(index)) for index in self._chargebacks[start:stop]]
            self._client.push("Chargebacks", rows, idempotency_key=f"chargebacks-{start}-{stop}")


def _scored(index: int, reply: dict[str, Any]) -> Scored:
    if "error" in reply:
        raise from_data(reply["error"])
    if "score" not in reply:
        raise InternalError(f"the reply for {payment_id(index)} has no score: {sorted(reply)}", code="bad_reply")
    return Scored(index, str(reply["version"]), float(reply["score"]))
