"""Promise 2: nothing acknowledged is lost, and nothing is doubled, however often the platform is killed."""

from __future__ import annotations

import collections
import random
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from flyball.client import Client
from flyball.client.project import apply, pack
from flyball.define.spec import ProjectSpec
from flyball.features.frames import vectors
from flyball.features.keys import encode_keys
from flyball.features.offline import sweep
from flyball.features.online import OnlineReader
from flyball.features.views import CompiledView
from flyball.kernel.errors import FlyballError
from flyball.kernel.times import SECOND
from flyball.storage.lake import DeltaLake
from flyball.storage.online import LmdbStore
from tests.scenarios.live import LivePlatform, eventually

PROJECT = Path(__file__).parent / "shop" / "project.py"
KILLS = 20
CUSTOMERS = [f"customer-{n}" for n in range(12)]


def order(number: int, seed: random.Random, at: int) -> dict[str, Any]:
    customer = seed.choice(CUSTOMERS)
    amount = round(seed.uniform(1, 200), 2)
    return {
        "id": f"order-{number}",
        "customer": customer,
        "amount": f"{amount:.2f}",
        "returned": customer.endswith(("1", "2")) or amount > 150,
        "time": at,
    }


class Traffic:
    """Pushes orders and asks for predictions until told to stop; remembers what was acknowledged and answered."""

    def __init__(self, platform: LivePlatform) -> None:
        self.platform = platform
        self.acknowledged: list[str] = []
        self.answered: list[str] = []
        self.unacknowledged: collections.deque[tuple[str, list[dict[str, Any]]]] = collections.deque()
        self._number = 0
        self._seed = random.Random(7)
        self._next_lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._stop.clear()
        self._threads = [threading.Thread(target=work) for work in (self._push, self._push, self._ask, self._ask)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _next(self) -> tuple[str, list[dict[str, Any]]]:
        if self.unacknowledged:
            return self.unacknowledged.popleft()
        now = time.time_ns() // 1_000
        first, self._number = self._number, self._number + 5
        return f"push-{first}", [order(number, self._seed, now) for number in range(first, first + 5)]

    def _push(self) -> None:
        with self.platform.client() as client:
            while not self._stop.is_set():
                with self._next_lock:
                    key, orders = self._next()
                try:
                    client.push("Orders", orders, idempotency_key=key)
                    self.acknowledged += [row["id"] for row in orders]
                except FlyballError:
                    self.unacknowledged.append((key, orders))
                    self._stop.wait(0.05)

    def _ask(self) -> None:
        seed = random.Random(threading.get_ident())
        with self.platform.client() as client:
            while not self._stop.is_set():
                try:
                    asked = {"customer": seed.choice(CUSTOMERS), "amount": "12.50"}
                    self.answered += [reply["prediction_id"] for reply in client.predict("returns", [asked])]
                except FlyballError:
                    self._stop.wait(0.05)

    def finish(self, client: Client) -> None:
        """Send what was never acknowledged, as any client would after a failure."""
        while self.unacknowledged:
            key, orders = self.unacknowledged[0]
            eventually(
                partial(client.push, "Orders", orders, idempotency_key=key), "a push"
            )  # ingest may not be up yet
            self.acknowledged += [row["id"] for row in orders]
            self.unacknowledged.popleft()


def prepare(client: Client) -> ProjectSpec:
    """Apply the project, load history, train, and wait until the service answers."""
    packed = pack(PROJECT)
    apply(client, packed)
    seed, now = random.Random(3), time.time_ns() // 1_000
    history = [order(-n, seed, now - n * 60 * SECOND) for n in range(1, 401)]
    receipt = eventually(lambda: client.push("Orders", history, idempotency_key="history"), "the push of history")
    assert receipt["accepted"] == len(history), receipt
    client.train("returns")
    eventually(lambda: client.predict("returns", customer="customer-1", amount="5.00"), "a served version")
    return packed.spec


def sent_history() -> list[str]:
    return [f"order-{-n}" for n in range(1, 401)]


@pytest.mark.slow
def test_twenty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    moments = random.Random(11)
    with LivePlatform(tmp_path / "state") as platform:
        platform.start()
        with platform.client() as client:
            spec = prepare(client)
        traffic = Traffic(platform)
        for _ in range(KILLS):
            traffic.start()
            threading.Event().wait(moments.uniform(0.05, 1.5))  # a random moment, not a wait for something
            platform.kill()
            traffic.stop()
            platform.start()
        with platform.client() as client:
            eventually(lambda: client.predict("returns", customer="customer-1", amount="5.00"), "an answer")
            traffic.finish(client)
            client.flush(["Orders"])
            lake = DeltaLake(platform.layout.lake)
            answered = set(traffic.answered)
            eventually(lambda: answered <= set(predictions(lake)), "the collection of every answered prediction")
        platform.stop()

    assert len(traffic.answered) > KILLS, "predictions were answered between the kills"
    assert len(traffic.acknowledged) > KILLS * 5, "events were acknowledged between the kills"
    stored = collections.Counter(lake.read("Orders", ["id"])["id"].to_list())
    assert set(stored.values()) == {1}
    assert set(stored) == set(traffic.acknowledged) | set(sent_history())
    logged = collections.Counter(predictions(lake))
    assert all(logged[prediction] == 1 for prediction in answered)
    assert set(logged.values()) == {1}
    assert_online_equals_lake(platform, spec, lake)


def predictions(lake: DeltaLake) -> list[str]:
    return list(lake.read("predictions", ["id"])["id"].to_list()) if lake.count("predictions") else []


def assert_online_equals_lake(platform: LivePlatform, spec: ProjectSpec, lake: DeltaLake) -> None:
    """What a request would be given is what is computed anew from the lake, for every customer."""
    source = spec.source("Orders")
    view = CompiledView(spec.views[0], source)
    asked = pl.DataFrame({"customer": CUSTOMERS})
    columns = [source.column(name) for name in view.spec.entity]
    keys = encode_keys([vectors(asked, ["customer"])["customer"]], columns, len(CUSTOMERS))
    at = time.time_ns() // 1_000 + SECOND
    online = OnlineReader(LmdbStore(platform.layout.online, readonly=True)).read(view, keys, at)
    offline = sweep(view, lake.read("Orders"), keys, np.full(len(CUSTOMERS), at))
    assert online.exact.all()
    np.testing.assert_array_equal(online.valid, offline.valid)
    exact = [view.spec.features.index(name) for name in ("orders_1h", "amount_1d")]
    np.testing.assert_array_equal(online.values[:, exact], offline.values[:, exact])
    np.testing.assert_allclose(online.values, offline.values, rtol=1e-12)
