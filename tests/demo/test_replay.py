import itertools
from typing import Any

import numpy as np
import pytest

from flyball.client import Client
from flyball.demo.replay import PAUSE, ROWS, SPAN, Replay, slices
from flyball.demo.scores import Scores
from flyball.demo.simulate import Payments, Scenario, simulate
from flyball.kernel.settings import ClientSettings
from flyball.kernel.times import parse_time

SMALL = Scenario(history_days=5, live_days=2, shift_day=6, cards=120, merchants=30, payments_per_day=150)


class FakePlatform(Client):
    """Answers like a platform that keeps all it is told, with the checks that the story depends on."""

    def __init__(self, kept: dict[str, Any]) -> None:
        super().__init__(ClientSettings(token="t"))
        self.kept = kept

    def advance_clock(self, at: int | str) -> int:
        assert parse_time(at) >= self.kept["clock"]
        self.kept["clock"] = parse_time(at)
        return parse_time(at)

    def predict(
        self, service: Any, rows: Any = None, *, at: int | str | None = None, **fields: Any
    ) -> list[dict[str, Any]]:
        assert at is not None
        assert parse_time(at) <= self.kept["clock"]
        ids = [row["id"] for row in rows]
        assert not set(ids) & set(self.kept["Payments"]), "asked about a payment that was pushed already"
        self.kept["asked"] += ids
        return [{"version": "fraud/1", "score": 0.5, "prediction_id": f"p_{one}"} for one in ids]

    def push(self, source: Any, rows: Any, *, idempotency_key: str = "") -> dict[str, Any]:
        assert all(parse_time(row["time"]) <= self.kept["clock"] for row in rows)
        if idempotency_key not in self.kept["keys"]:
            self.kept["keys"].add(idempotency_key)
            self.kept[source] += [row.get("id") or row["payment"] for row in rows]
        return {"accepted": len(rows)}


@pytest.fixture(scope="module")
def payments() -> Payments:
    return simulate(SMALL)


def empty() -> dict[str, Any]:
    return {"clock": SMALL.live_from, "asked": [], "Payments": [], "Chargebacks": [], "keys": set()}


def first_live(payments: Payments) -> int:
    return int(np.searchsorted(payments.time, SMALL.live_from))


def test_slices_cover_the_payments_in_order_and_hold_no_card_twice(payments: Payments) -> None:
    found = list(slices(payments, 10, len(payments)))
    assert found[0].start == 10
    assert found[-1].stop == len(payments)
    assert all(a.stop == b.start for a, b in itertools.pairwise(found))
    for one in found:
        cards = payments.card[one.start : one.stop]
        times = payments.time[one.start : one.stop]
        assert len(set(cards.tolist())) == len(cards) <= ROWS
        assert times[-1] - times[0] <= SPAN
        assert times[0] // PAUSE == times[-1] // PAUSE


def test_a_replay_asks_about_each_payment_before_it_pushes_it_and_pushes_chargebacks_when_they_arrive(
    payments: Payments, tmp_path: Any
) -> None:
    kept = empty()
    scores = Scores(tmp_path / "scores.csv")
    looks: list[int] = []
    with Replay(lambda: FakePlatform(kept), payments, SMALL, scores) as replay:
        replay.run(first_live(payments), SMALL.live_from, looks.append)
    live = len(payments) - first_live(payments)
    assert len(kept["asked"]) == len(kept["Payments"]) == len(scores) == live
    arrived = (payments.charged_back >= SMALL.live_from) & (payments.charged_back <= SMALL.ends_at)
    assert len(kept["Chargebacks"]) == arrived.sum()
    assert kept["clock"] == SMALL.ends_at
    assert looks == sorted(looks)
    assert len(looks) >= SMALL.live_days * 4
    assert replay.traffic.answered == live
    assert replay.traffic.percentile(99) >= replay.traffic.percentile(50) > 0


def test_a_replay_that_was_cut_off_goes_on_from_what_the_platform_has(payments: Payments, tmp_path: Any) -> None:
    class Cut(Exception):
        pass

    def cut(done: int) -> None:
        if done > first_live(payments) + 100:
            raise Cut

    kept = empty()
    with (
        pytest.raises(Cut),
        Replay(lambda: FakePlatform(kept), payments, SMALL, Scores(tmp_path / "scores.csv")) as replay,
    ):
        replay.run(first_live(payments), SMALL.live_from, cut)
    begun = len(kept["Payments"])
    assert 0 < begun < len(payments) - first_live(payments)
    again = Scores(tmp_path / "scores.csv")
    with Replay(lambda: FakePlatform(kept), payments, SMALL, again) as replay:
        replay.run(first_live(payments) + begun, kept["clock"], lambda done: None)
    assert len(set(kept["Payments"])) == len(kept["Payments"]) == len(again) == len(payments) - first_live(payments)
    arrived = (payments.charged_back >= SMALL.live_from) & (payments.charged_back <= SMALL.ends_at)
    assert len(set(kept["Chargebacks"])) == arrived.sum()


def test_slices_depend_on_nothing_before_them(payments: Payments) -> None:
    found = list(slices(payments, 0, len(payments)))
    middle = found[len(found) // 2].start
    assert list(slices(payments, middle, len(payments))) == [one for one in found if one.start >= middle]
