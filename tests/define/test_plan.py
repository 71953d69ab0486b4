"""The plan: what differs, in which order, what it causes, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from flyball.define.compile import compile_project
from flyball.define.plan import Change, diff, fields_of, make_plan, plan_from_data
from flyball.define.spec import ColumnSpec, ProjectSpec
from flyball.kernel.times import DAY
from tests.define import payments_project, taxi_project

TAXI = compile_project(taxi_project.project)
PAYMENTS = compile_project(payments_project.project)


def replace(field: str, name: str, **values: Any) -> ProjectSpec:
    items = tuple(
        msgspec.structs.replace(item, **values) if item.name == name else item for item in getattr(TAXI, field)
    )
    return msgspec.structs.replace(TAXI, **{field: items})


def column(name: str, **values: Any) -> tuple[ColumnSpec, ...]:
    columns = TAXI.source("Trips").columns
    return tuple(msgspec.structs.replace(c, **values) if c.name == name else c for c in columns)


def shown(changes: list[Change]) -> list[tuple[str, str, str]]:
    return [(c.action, c.kind, c.name) for c in changes]


def test_equal_projects_have_no_changes() -> None:
    assert diff(TAXI, TAXI) == []
    assert diff(PAYMENTS, PAYMENTS) == []


def test_a_first_plan_adds_everything_from_sources_to_batches() -> None:
    changes = diff(None, PAYMENTS)
    assert shown(changes) == [
        ("add", "source", "Chargebacks"),
        ("add", "source", "Payments"),
        ("add", "view", "Everything"),
        ("add", "view", "LastOut"),
        ("add", "view", "Out"),
        ("add", "view", "Pair"),
        ("add", "view", "Seen"),
        ("add", "model", "elsewhere"),
        ("add", "model", "fraud"),
        ("add", "model", "payer_features"),
        ("add", "service", "elsewhere"),
        ("add", "service", "fraud"),
        ("add", "service", "payer-features"),
        ("add", "batch", "nightly"),
    ]
    causes = {(c.kind, c.name): c.causes for c in changes}
    assert causes["view", "Out"] == ("backfills view Out from Payments",)
    assert causes["model", "fraud"] == ("trains the first version of fraud",)
    assert causes["batch", "nightly"] == ("scores Payments with fraud every 1d into fraud_scores",)


def test_removal_goes_the_other_way() -> None:
    empty = ProjectSpec(name="taxi")
    changes = diff(TAXI, empty)
    assert [c.kind for c in changes] == ["service", "model", "view", "source"]
    assert changes[-1].causes == (
        "takes no more events into Trips once no served version reads it; its data stays until it is destroyed",
    )


def test_a_changed_view_backfills_and_trains_and_starts_a_canary() -> None:
    view = TAXI.view("CompanyTrips")
    longer = msgspec.structs.replace(view.aggregates[0], window=14 * DAY)
    changes = diff(TAXI, replace("views", "CompanyTrips", aggregates=(longer, *view.aggregates[1:])))
    assert shown(changes) == [
        ("change", "view", "CompanyTrips"),
        ("change", "model", "tip"),
        ("change", "service", "tip"),
    ]
    assert [f.field for f in changes[0].fields] == ["aggregates.trips_7d.window"]
    assert [c.causes[0] for c in changes[1:]] == [
        "trains a new version of tip",
        "starts a canary of service tip with the new version of tip (1, 5, 25, 100 %)",
    ]


def test_a_description_or_an_owner_causes_nothing() -> None:
    for field, name in (("views", "CompanyTrips"), ("models", "tip"), ("services", "tip"), ("sources", "Trips")):
        (change,) = diff(TAXI, replace(field, name, description="other"))
        assert (change.causes, [f.field for f in change.fields]) == ((), ["description"])


def test_a_changed_service_says_which_field() -> None:
    (change,) = diff(TAXI, replace("services", "tip", default=0.2))
    assert [(f.field, f.before, f.after) for f in change.fields] == [("default", 0.1, 0.2)]


def test_new_code_is_a_change_of_the_project() -> None:
    (change,) = diff(TAXI, msgspec.structs.replace(TAXI, bundle="b" * 64))
    assert (change.kind, change.causes) == ("project", ("later training runs execute the new code",))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        (TAXI.source("Trips").columns[1:], "the column company is gone"),
        (column("fare", type="float", scale=0), "the column fare was a decimal(2) and is a float"),
        (column("fare", scale=3), "was a decimal(2) and is a decimal(3)"),
        (column("company", nullable=False), "keep nullable=True"),
        ((*TAXI.source("Trips").columns, ColumnSpec(name="extra", type="float")), "add it with nullable=True"),
    ],
)
def test_a_change_that_events_do_not_fit_is_refused(columns: tuple[ColumnSpec, ...], says: str) -> None:
    plan = make_plan(TAXI, replace("sources", "Trips", columns=columns))
    assert says in plan.refused[0].refused


def test_a_new_key_or_event_time_is_refused() -> None:
    assert "key changed" in diff(TAXI, replace("sources", "Trips", key=("company",)))[0].refused
    assert "event_time changed" in diff(TAXI, replace("sources", "Trips", event_time="other"))[0].refused


def test_a_change_that_events_fit_says_what_it_causes() -> None:
    extra = ColumnSpec(name="extra", type="float", nullable=True)
    (change,) = diff(TAXI, replace("sources", "Trips", columns=(*TAXI.source("Trips").columns, extra)))
    assert (change.refused, change.causes) == ("", ("extra is null in the events of Trips that came before",))
    (change,) = diff(TAXI, replace("sources", "Trips", columns=column("fare", le=500.0)))
    assert change.causes == ("events whose fare breaks the new contract are quarantined from now on",)
    (change,) = diff(TAXI, replace("sources", "Trips", columns=column("fare", le=2_000.0)))
    assert change.causes == ()
    (change,) = diff(TAXI, replace("sources", "Trips", retention=30 * DAY))
    assert change.causes == ("deletes events of Trips that are older than 30d",)


def test_a_plan_comes_back_from_a_file() -> None:
    plan = make_plan(TAXI, replace("services", "tip", default=0.2))
    assert plan.base == TAXI.hash
    assert plan_from_data(json.loads(json.dumps(plan.to_data()))) == plan
    assert make_plan(None, TAXI).base == ""


def test_fields_are_compared_by_path() -> None:
    before = {"a": {"b": 1, "gone": 2}, "items": [{"name": "x", "v": 1}, {"name": "y"}], "plain": [1]}
    after = {"a": {"b": 3}, "items": [{"name": "y"}, {"name": "x", "v": 1}], "plain": [1, 2], "new": True}
    assert {f.field for f in fields_of(before, after)} == {"a.b", "a.gone", "items.order", "plain", "new"}
