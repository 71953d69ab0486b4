"""Derived sources: what a declaration becomes, and what a wrong one says."""

from __future__ import annotations

from typing import Any

import pytest

import flyball as fb
from flyball.define.check import check
from flyball.define.compile import compile_project
from flyball.define.derive import derived_name, stem_of
from flyball.define.plan import make_plan
from flyball.define.spec import ProjectSpec, project_from_data
from flyball.kernel.errors import InvalidError


class Companies(fb.Source, event_time="at", key="company"):
    company = fb.String()
    area = fb.Category("north", "south")
    rate = fb.Decimal(3)
    owner = fb.Category("x", "y", pii=True)
    at = fb.Timestamp()


class Trips(fb.Source, event_time=fb.epoch("start"), key="id", known=fb.delay("1h"), retention="90d", owner="taxi"):
    id = fb.String()
    company = fb.String(nullable=True)
    driver = fb.String(pii=True)
    fare = fb.Decimal(2, ge=0)
    tips = fb.Decimal(2)


class Company(fb.LatestView, source=Companies, entity=Companies.company):
    area = fb.latest(Companies.area)
    rate = fb.latest(Companies.rate)
    owner = fb.latest(Companies.owner)


class Usual(fb.WindowView, source=Trips, entity=Trips.company):
    fare_1d = fb.mean(Trips.fare, "1d")


class BigTrips(fb.Derived, source=Trips, where=Trips.fare > 20):
    """Trips worth looking at."""

    share = fb.derive(Trips.tips / Trips.fare, description="of the fare")
    area = fb.derive(Company.area)
    rate = fb.derive(Company.rate)
    large = fb.derive(Trips.fare * Company.rate > 100)
    owner = fb.derive(Company.owner)


def project(*sources: type[fb.Source]) -> ProjectSpec:
    return compile_project(fb.Project("taxi", sources=list(sources)))


def test_it_has_its_parents_columns_and_its_own_with_their_types() -> None:
    spec = BigTrips._spec
    assert [c.name for c in spec.columns][:5] == [c.name for c in Trips._spec.columns]
    added = {c.name: (c.type, c.scale, c.categories, c.nullable, c.pii) for c in spec.columns[5:]}
    assert added == {
        "share": ("float", 0, (), True, False),
        "area": ("category", 0, ("north", "south"), True, False),
        "rate": ("decimal", 3, (), True, False),
        "large": ("boolean", 0, (), True, False),
        "owner": ("category", 0, ("x", "y"), True, True),
    }
    for field in ("event_time", "event_time_unit", "key", "known", "skew", "lateness", "retention", "owner"):
        assert getattr(spec, field) == getattr(Trips._spec, field)
    assert (spec.description, spec.column("share").description) == ("Trips worth looking at.", "of the fare")


def test_its_name_carries_its_definition_and_everything_refers_to_it_by_that() -> None:
    assert stem_of(BigTrips.__name__) == "BigTrips"
    assert BigTrips.__name__ == derived_name("BigTrips", BigTrips._spec.derive)  # type: ignore[arg-type]
    assert BigTrips.fare.to_data() == ["col", BigTrips.__name__, "fare"]

    class Same(fb.WindowView, source=BigTrips, entity=BigTrips.company):
        n = fb.count("1d")

    assert Same._spec.source == BigTrips.__name__


def test_another_condition_column_or_view_is_another_source_and_another_description_is_not() -> None:
    def declare(where: Any = Trips.fare > 20, view: Any = Company, text: str = "") -> str:
        class Big(fb.Derived, source=Trips, where=where):
            area = fb.derive(view.area, description=text)

        return Big.__name__

    class Elsewhere(fb.LatestView, source=Companies, entity=Companies.company, ttl="1d"):
        area = fb.latest(Companies.area)

    assert declare() == declare(text="where it is")
    assert len({declare(), declare(Trips.fare > 21), declare(view=Elsewhere)}) == 3


def test_a_project_reaches_what_a_source_is_derived_from() -> None:
    class Best(fb.Derived, source=BigTrips, where=BigTrips.share > 0.3):
        pass

    spec = project(Best)
    assert [stem_of(s.name) for s in spec.sources] == ["Best", "BigTrips", "Companies", "Trips"]
    assert spec.views == (), "a view that only a derivation reads keeps no online state"
    assert project_from_data(spec.to_data()) == spec
    assert [p for p in check(spec) if p.severity == "error"] == []


def test_the_plan_says_what_is_derived_from_what() -> None:
    (cause,) = (c for change in make_plan(None, project(BigTrips)).changes for c in change.causes if "derives" in c)
    assert cause == f"derives {BigTrips.__name__} from Trips, from its first event on"
    (gone,) = (c for c in make_plan(project(BigTrips), project(Trips)).changes if stem_of(c.name) == "BigTrips")
    assert gone.causes == (f"derives {BigTrips.__name__} no more once no served version needs it; its data stays",)


def test_two_definitions_of_one_name_in_a_project_are_refused() -> None:
    def declare(least: int) -> type[fb.Source]:
        class Big(fb.Derived, source=Trips, where=Trips.fare > least):
            pass

        return Big

    with pytest.raises(InvalidError, match="two sources are called 'Big'"):
        project(declare(1), declare(2))


def test_a_specification_without_its_parent_is_a_problem() -> None:
    whole = project(BigTrips)
    spec = ProjectSpec(name="taxi", sources=tuple(s for s in whole.sources if s.name != "Companies"))
    (problem,) = (p for p in check(spec) if p.code == "unknown_source")
    assert "derived from 'Companies'" in problem.message


def declare(body: dict[str, Any], **keywords: Any) -> Any:
    import types

    return types.new_class("Big", (fb.Derived,), {"source": Trips} | keywords, lambda space: space.update(body))


class Other(fb.Source, event_time=fb.epoch("t"), key=fb.row_key()):
    x = fb.Float()


@pytest.mark.parametrize(
    ("body", "keywords", "message"),
    [
        ({}, {}, "derives nothing"),
        ({}, {"where": Trips.fare}, "where is not a condition"),
        ({}, {"where": Other.x > 1}, "reads Other.x; it may read columns of Trips"),
        ({"fare": fb.derive(Trips.fare * 2)}, {}, "Trips has a column of this name"),
        ({"x": fb.derive(Usual.fare_1d)}, {}, "features of latest views"),
        ({"x": Trips.fare}, {}, "not a column"),
        ({"x": fb.derive(Trips.fare)}, {"source": fb.Source}, "not a class that extends fb.Source"),
    ],
)
def test_a_wrong_derivation_says_what_is_right(body: dict[str, Any], keywords: Any, message: str) -> None:
    with pytest.raises(InvalidError, match=message):
        declare(body, **keywords)


def test_a_view_is_looked_up_by_columns_of_the_parent() -> None:
    class Payments(fb.Source, event_time=fb.epoch("t"), key=fb.row_key()):
        payer = fb.String()

    with pytest.raises(InvalidError, match=r"by 'company', which is not a column of Payments") as caught:

        class ByName(fb.Derived, source=Payments):
            area = fb.derive(Company.area)

    assert "Company.by(Payments.column).area" in caught.value.hint

    class ByPayer(fb.Derived, source=Payments):
        area = fb.derive(Company.by(Payments.payer).area)

    assert ByPayer._spec.derive.columns[0].expr == ["view", "Company", "area", ["payer"]]  # type: ignore[union-attr]


def test_what_is_derived_stands_in_a_derived_source_only() -> None:
    with pytest.raises(InvalidError, match=r"Plain.x is fb.derive\(…\), and Plain is not a derived source"):

        class Plain(fb.Source, event_time=fb.epoch("t"), key=fb.row_key()):
            x = fb.derive(Trips.fare)

    with pytest.raises(InvalidError, match="takes an expression"):
        fb.derive(3)  # type: ignore[arg-type]
