"""Origins: what is declared, what a wrong one says, and that no secret is shown."""

from __future__ import annotations

from typing import Any

import pytest

import flyball as fb
from flyball.define.check import check
from flyball.define.compile import compile_project
from flyball.define.plan import make_plan
from flyball.define.spec import OriginSpec
from flyball.kernel.errors import InvalidError

DSN = fb.secret("PG_DSN")


def source(origin: Any) -> type[fb.Source]:
    class Orders(fb.Source, event_time="at", key="id", origin=origin):
        id = fb.Integer()
        at = fb.Timestamp()

    return Orders


def test_an_origin_names_its_secret_and_keeps_its_query() -> None:
    orders = source(fb.Sql(DSN, " SELECT id, at, changed FROM orders ; ", cursor="changed", every="30s", lag="5s"))
    assert orders._spec.origin == OriginSpec(
        dsn="PG_DSN", query="SELECT id, at, changed FROM orders", cursor="changed", every=30_000_000, lag=5_000_000
    )


@pytest.mark.parametrize(
    ("arguments", "keywords", "message"),
    [
        (
            ("postgresql://u:hunter2@h/d", "SELECT 1"),
            {"cursor": "x"},
            "a reference to a secret, not the address itself",
        ),
        ((DSN, "DELETE FROM orders"), {"cursor": "x"}, "takes one SELECT"),
        ((DSN, ""), {"cursor": "x"}, "takes one SELECT"),
        ((DSN, "SELECT 1"), {"cursor": " "}, "name the column of the query"),
        ((DSN, "SELECT 1"), {"cursor": "x", "every": "10ms"}, "the shortest is one second"),
    ],
)
def test_a_wrong_origin_says_what_is_right(arguments: Any, keywords: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message) as caught:
        fb.Sql(*arguments, **keywords)
    assert "hunter2" not in str(caught.value)


def test_what_is_no_origin_is_not_repeated() -> None:
    with pytest.raises(InvalidError, match="origin is not an origin") as caught:
        source("postgresql://u:hunter2@h/d")
    assert "hunter2" not in str(caught.value)


def causes(old: fb.Project | None, new: fb.Project) -> str:
    plan = make_plan(compile_project(old) if old else None, compile_project(new))
    return " ".join(cause for change in plan.changes for cause in change.causes)


def test_the_plan_says_what_is_pulled_and_from_where_it_goes_on() -> None:
    def project(origin: Any) -> fb.Project:
        return fb.Project("shop", sources=[source(origin)])

    by_change = project(fb.Sql(DSN, "SELECT 1", cursor="changed"))
    assert "pulls Orders from the database of PG_DSN every 1m, by changed" in causes(None, by_change)
    assert "from where the last pull ended" in causes(by_change, project(fb.Sql(DSN, "SELECT 2", cursor="changed")))
    assert "all rows anew" in causes(by_change, project(fb.Sql(DSN, "SELECT 1", cursor="id")))
    assert "pulls Orders no more" in causes(by_change, project(None))


def test_a_pulled_source_that_does_not_say_when_its_history_was_known_is_warned_about() -> None:
    orders = source(fb.Sql(DSN, "SELECT 1", cursor="changed"))
    (problem,) = check(compile_project(fb.Project("shop", sources=[orders])))
    assert (problem.code, problem.severity) == ("history_not_declared", "warning")
