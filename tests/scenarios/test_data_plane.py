"""Promise 5: the data plane stands alone. Control is killed and stays away, while the other processes start again.

The supervisor of these tests does not watch, so that nothing starts again by itself.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from flyball.client import Client
from flyball.client.project import apply, pack
from flyball.kernel.errors import UnavailableError
from flyball.kernel.settings import ClientSettings, Settings
from flyball.kernel.times import MINUTE
from flyball.platform.supervisor import Supervisor
from flyball.serving.log import PredictionReader
from flyball.storage.lake import DeltaLake
from tests.scenarios.live import eventually
from tests.scenarios.test_nothing_is_lost import PROJECT, order, sent_history

pytestmark = pytest.mark.slow
Orders = list[dict[str, Any]]


class DataPlane:
    """A platform whose control was killed, and what it acknowledged since."""

    def __init__(self, supervisor: Supervisor, client: Client) -> None:
        self.supervisor = supervisor
        self.client = client
        self.number = 0
        self.acknowledged: list[str] = []
        self.answered: list[str] = []

    def restart(self, name: str) -> None:
        """SIGKILL to a process and to its group, and a start with control still away."""
        child = self.supervisor.children[name]
        assert child.process is not None
        os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        child.start(time.monotonic())

    def push(self, customer: str, count: int) -> None:
        now = time.time_ns() // 1_000
        rows = []
        for _ in range(count):
            self.number += 1
            rows.append({**order(100_000 + self.number, random.Random(self.number), now), "customer": customer})
        receipt = eventually(lambda: self.client.push("Orders", rows, idempotency_key=f"k{self.number}"), "a push")
        assert receipt["accepted"] == count
        self.acknowledged += [row["id"] for row in rows]

    def ask(self, customer: str) -> dict[str, Any]:
        (reply,) = self.client.predict("returns", customer=customer, amount="12.50")
        self.answered.append(reply["prediction_id"])
        return reply

    def orders_of(self, customer: str) -> float:
        """What the newest answer's features say of the customer's orders in the last hour, by the prediction log."""
        reply = self.ask(customer)
        assert (reply["rung"], reply["version"]) == ("model", "returns/1")
        return float(self.logged()[reply["prediction_id"]]["features"]["Customer.orders_1h"])

    def has(self, customer: str, orders: int) -> bool:
        return self.orders_of(customer) == orders

    def logged(self) -> dict[str, dict[str, Any]]:
        reader = PredictionReader(self.supervisor.layout.predictions)
        return {record["id"]: record for record in records(reader)}


def records(reader: PredictionReader) -> Iterator[dict[str, Any]]:
    for slot in reader.slots():
        for segment in reader.segments(slot):
            yield from reader.read(slot, segment, 0).records


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DataPlane]:
    state = tmp_path_factory.mktemp("alone") / "state"
    with Supervisor(Settings(state=state, port=0)) as supervisor, Client(supervisor.client_settings) as first:
        apply(first, pack(PROJECT))
        start = time.time_ns() // 1_000
        history = [order(-n, random.Random(n), start - n * MINUTE) for n in range(1, 401)]
        eventually(lambda: first.push("Orders", history, idempotency_key="history"), "the push of history")
        first.train("returns")
        eventually(lambda: first.service("returns")["version"] == "returns/1", "a released version")
        control = supervisor.children["control"]
        assert control.process is not None
        os.killpg(control.process.pid, signal.SIGKILL)
        control.process.wait()
        urls = {name: supervisor.url(name) for name in ("control", "ingest", "inference")}
        with Client(ClientSettings(url=urls["control"], token=supervisor.client_settings.token)) as client:
            client.known_endpoints(urls)
            with pytest.raises(UnavailableError):
                client.status()
            yield DataPlane(supervisor, client)


def test_events_are_taken_features_stay_fresh_and_predictions_are_served_and_logged(alone: DataPlane) -> None:
    assert alone.orders_of("new-customer") == 0
    for total in (3, 6):
        alone.push("new-customer", 3)
        eventually(partial(alone.has, "new-customer", total), "the events' way into the features")
    assert set(alone.answered) <= alone.logged().keys()


def test_ingest_that_starts_without_control_goes_on_from_the_last_plan(alone: DataPlane) -> None:
    alone.push("restart-customer", 2)
    alone.restart("ingest")
    alone.push("restart-customer", 2)
    eventually(lambda: alone.orders_of("restart-customer") == 4, "features from before and after the restart")
    horizon = alone.client.flush(["Orders"])["Orders"]
    assert horizon["rows"] == len(sent_history()) + len(alone.acknowledged), "the lake grows without control too"


def test_workers_that_start_without_control_serve_the_last_plan(alone: DataPlane) -> None:
    before = alone.orders_of("restart-customer")
    answered = len(alone.answered)
    alone.restart("inference")
    eventually(lambda: alone.ask("restart-customer"), "an answer of the new workers")
    assert alone.orders_of("restart-customer") == before
    assert len(alone.answered) >= answered + 2
    assert set(alone.answered) <= alone.logged().keys(), "what was answered before the kill is logged too"


def test_control_that_comes_back_collects_all_that_was_answered_meanwhile(alone: DataPlane) -> None:
    alone.supervisor.children["control"].start(time.monotonic())
    for prediction in (alone.answered[0], alone.answered[-1]):
        receipt = eventually(partial(alone.client.prediction, prediction), "the prediction's collection")
        assert receipt["version"]["version"] == "returns/1"
    lake = DeltaLake(alone.supervisor.layout.lake)
    eventually(lambda: set(alone.answered) <= set(ids(lake, "predictions")), "the collection of all")
    assert len(ids(lake, "predictions")) == len(set(ids(lake, "predictions")))
    alone.client.flush(["Orders"])
    assert sorted(ids(lake, "Orders")) == sorted(sent_history() + alone.acknowledged)


def ids(lake: DeltaLake, table: str) -> list[str]:
    return list(lake.read(table, ["id"])["id"].to_list())
