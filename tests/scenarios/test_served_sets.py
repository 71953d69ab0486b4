"""Training on what was served, after the project that served it was declared anew."""

from __future__ import annotations

from typing import Any

import pytest

import flyball as fb
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import MINUTE, parse_time, show_time
from flyball.testing import platform
from flyball.testing.platform import functions_of

NOW = parse_time("2026-01-01T12:00:00Z")
SEEN: dict[str, Any] = {}


def declared(window: str, kinds: tuple[str, ...]) -> fb.Project:
    class Payments(fb.Source, event_time="time", key="id", known=fb.delay("0s")):
        id = fb.String(max_length=32)
        user = fb.String()
        fraud = fb.Boolean()
        kind = fb.Category(*kinds)
        time = fb.Timestamp()

    class Users(fb.WindowView, source=Payments, entity=Payments.user):
        n = fb.count(window)

    @fb.model(
        task=fb.Binary(),
        rows=Payments,
        label=fb.Label(Payments.fraud, matures="0s"),
        features=[Users, Payments.kind],
        split=fb.by_time(test=0.3),
    )
    def fraud(data: Any, run: fb.Run) -> Any:
        import lightgbm

        SEEN.update(kinds=data.train.frame["kind"].to_list(), X=data.train.X.tolist(), left_out=data.left_out)
        rows = lightgbm.Dataset(data.train.X, data.train.y)
        return run.package(lightgbm.train({"objective": "binary", "verbose": -1, "num_leaves": 3}, rows, 2))

    return fb.Project("x", services=[fb.Service("fraud", model=fraud, default=0.5)])


def test_what_was_served_is_read_as_the_version_that_answered_meant_it() -> None:
    before = declared("1h", ("chip", "online"))
    with platform(before, at=NOW) as running:
        history = [
            {"id": str(i), "user": "u", "fraud": i % 2 == 0, "kind": "chip", "time": show_time(NOW - 5 * MINUTE * i)}
            for i in range(1, 401)
        ]
        running.load("Payments", history)
        running.train("fraud")
        for i in range(6):
            asked = {"id": f"live{i}", "user": "u", "kind": "chip"}
            running.predict("fraud", [asked])
            running.push("Payments", [asked | {"fraud": i % 2 == 0, "time": show_time(running.clock.now())}])
            running.advance("10m")
        more_kinds = declared("1h", ("app", "chip", "online"))
        running.apply(more_kinds)
        running._engine._functions = functions_of(more_kinds)
        running.train("fraud", asof="served")
        assert SEEN["kinds"] == ["chip"] * 4
        assert [row[1] for row in SEEN["X"]] == [1.0] * 4  # as `app`, `chip` and `online` are counted now
        assert SEEN["left_out"]["not_served"] == 400
        longer = declared("6h", ("app", "chip", "online"))
        running.apply(longer)
        running._engine._functions = functions_of(longer)
        with pytest.raises(InvalidError, match="400 were not served, 6 were served only by versions that define"):
            running.train("fraud", asof="served")
