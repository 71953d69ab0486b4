"""A source may change while its events are there: what is taken, what it causes, and what is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from flyball.define.plan import Change, diff
from flyball.define.spec import (
    AggregateSpec,
    AnyLabelSpec,
    ColumnSpec,
    DerivedColumnSpec,
    DeriveSpec,
    FeatureSpec,
    KnownSpec,
    LabelSpec,
    ModelSpec,
    ProjectSpec,
    RuleSpec,
    SourceSpec,
    ViewSpec,
)

SALES = SourceSpec(
    name="Sales",
    columns=(
        ColumnSpec(name="id", type="string"),
        ColumnSpec(name="shop", type="string"),
        ColumnSpec(name="amount", type="decimal", scale=2, ge=0.0),
        ColumnSpec(name="kind", type="category", categories=("cash", "card")),
        ColumnSpec(name="note", type="string", nullable=True),
        ColumnSpec(name="extra", type="float", nullable=True),
    ),
    event_time="at",
    key=("id",),
    rules=(RuleSpec(name="small", kind="check", expr=["lt", ["col", "Sales", "amount"], ["lit", 9]]),),
)
VIEW = ViewSpec(
    name="Shops", kind="window", source="Sales", entity=("shop",),
    where=["eq", ["col", "Sales", "kind"], ["lit", "cash"]],
    aggregates=(AggregateSpec(name="n", op="sum", value=["col", "Sales", "amount"], window=5, hop=1),),
)  # fmt: skip
MODEL = ModelSpec(
    name="good", rows="Sales",
    features=(FeatureSpec(name="n", expr=["view", "Shops", "n", ["shop"]]),),
    label=LabelSpec(any=AnyLabelSpec(source="Sales", on="id", rows_on="id", within=1)),
)  # fmt: skip
COUNTED = RuleSpec(name="v", kind="volume", min_rows=1, action="warn")
PROJECT = ProjectSpec(name="p", sources=(SALES,), views=(VIEW,), models=(MODEL,))


def changed(source: SourceSpec, *, project: ProjectSpec = PROJECT) -> Change:
    new = msgspec.structs.replace(project, sources=(source,))
    return next(c for c in diff(project, new) if c.kind == "source" and c.name == "Sales")


def with_column(name: str, **values: Any) -> SourceSpec:
    columns = tuple(msgspec.structs.replace(c, **values) if c.name == name else c for c in SALES.columns)
    return msgspec.structs.replace(SALES, columns=columns)


def without(name: str, source: SourceSpec = SALES) -> SourceSpec:
    return msgspec.structs.replace(source, columns=tuple(c for c in source.columns if c.name != name))


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (with_column("amount", nullable=True), "amount may be missing in events of Sales from now on"),
        (with_column("kind", categories=("cash", "card", "wire")), "kind may be 'wire' from now on"),
        (with_column("kind", categories=("card",)), "events whose kind is 'cash' are quarantined from now on"),
        (with_column("amount", ge=None, gt=0.0), "events whose amount breaks the new contract are quarantined"),
        (with_column("amount", le=5.0), "events whose amount breaks the new contract are quarantined"),
        (with_column("amount", on_violation="reject_batch"), "amount: pushes that break it are refused whole"),
        (with_column("note", max_length=3), "events whose note breaks the new contract are quarantined"),
        (with_column("note", pattern="x+"), "events whose note breaks the new contract are quarantined"),
        (without("extra"), "extra stays in the events that are there; from now on a pushed event that brings it"),
        (msgspec.structs.replace(SALES, rules=()), "small is no rule any more"),
        (
            msgspec.structs.replace(SALES, rules=(*SALES.rules, COUNTED)),
            "new rule v (a push has at least 1 rows): pushes that break it are counted and accepted from now on",
        ),
        (
            msgspec.structs.replace(SALES, rules=(msgspec.structs.replace(SALES.rules[0], action="reject_batch"),)),
            "rule small (amount < 9): pushes that break it are refused whole from now on",
        ),
        (msgspec.structs.replace(SALES, known=KnownSpec(kind="delay", delay=5)), "history that is loaded from now on"),
    ],
)  # fmt: skip
def test_what_a_change_causes_is_told(source: SourceSpec, says: str) -> None:
    change = changed(source)
    assert change.refused == ""
    assert any(says in cause for cause in change.causes), change.causes


def test_a_looser_bound_is_taken_and_causes_nothing() -> None:
    for values in ({"ge": -1.0}, {"ge": None}, {"le": None}):
        if values != {"le": None}:
            assert changed(with_column("amount", **values)).causes == ()
    bounded = msgspec.structs.replace(PROJECT, sources=(with_column("amount", le=5.0),))
    assert changed(with_column("amount", le=6.0), project=bounded).causes == ()
    assert changed(with_column("amount", le=None, lt=5.0), project=bounded).causes != ()


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (without("amount"), "view Shops read it as they are applied now"),
        (without("kind"), "view Shops read it"),
        (without("shop"), "model good, view Shops read it"),
        (with_column("amount", scale=3), "give the new column another name, or declare amount as it was"),
        (with_column("amount", type="float", scale=0), "was a decimal(2) and is a float; give the new column another"),
        (with_column("note", nullable=False), "note_is_there = fb.check(~note.is_null())"),
        (msgspec.structs.replace(SALES, corrections=True), "corrections changed"),
        (msgspec.structs.replace(SALES, key=("id", "shop")), "key changed"),
    ],
)
def test_what_events_that_are_there_do_not_allow_is_refused(source: SourceSpec, says: str) -> None:
    assert says in changed(source).refused


def test_a_column_of_a_row_that_is_its_own_key_stays() -> None:
    whole = msgspec.structs.replace(PROJECT, sources=(msgspec.structs.replace(SALES, key=()),), models=(), views=())
    assert "the whole row is the key" in changed(without("extra", whole.sources[0]), project=whole).refused


def test_a_derived_source_reads_its_parent() -> None:
    big = SourceSpec(
        name="Big", columns=SALES.columns, event_time="at", key=("id",),
        derive=DeriveSpec(source="Sales", columns=(DerivedColumnSpec(name="x", expr=["col", "Sales", "extra"]),)),
    )  # fmt: skip
    project = msgspec.structs.replace(PROJECT, sources=(SALES, big))
    assert "source Big read it" in changed(without("extra"), project=project).refused
