"""A plan's sources against the data that is there, and against what served versions read."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import polars as pl

from flyball.define.plan import make_plan
from flyball.define.spec import ModelSpec, ProjectSpec, ServiceSpec, SourceSpec
from flyball.ingest.frames import lake_types, meanings
from flyball.loop.evolution import fitted_to_data
from flyball.loop.ports import Packages, Unit
from tests.define.test_evolution import MODEL, SALES, VIEW, with_column, without

SERVICE = ServiceSpec(name="s", model="good")
BEFORE = ProjectSpec(name="p", sources=(SALES,), models=(ModelSpec(name="good"),), services=(SERVICE,))


def unit(current: str = "") -> Unit:
    return cast(Unit, SimpleNamespace(
        projects=SimpleNamespace(all=lambda: [BEFORE]),
        rollouts=SimpleNamespace(open=lambda _: None, served=lambda _: SimpleNamespace(current=current, previous="")),
        versions=SimpleNamespace(get=lambda model, number: SimpleNamespace(digest=f"{model}{number}")),
    ))  # fmt: skip


def packages(digest: str = "") -> Any:
    return {"rows": "Sales", "features": [f.to_data() for f in MODEL.features], "views": [VIEW.to_data()]}


def refused(source: SourceSpec, *, before: ProjectSpec | None = BEFORE, held: Any = None, current: str = "") -> str:
    new = msgspec.structs.replace(BEFORE, sources=(source,))
    types: Any = held or (lambda table: {})
    made = fitted_to_data(
        make_plan(before, new), before, unit(current), cast(Packages, SimpleNamespace(manifest=packages)), types
    )
    return next(change.refused for change in made.changes if change.kind == "source")


def test_a_column_that_comes_back_as_another_type_is_refused_before_anything_is_applied() -> None:
    there = lake_types(meanings(SALES))
    assert refused(SALES, before=None, held=lambda table: there) == ""
    says = refused(with_column("amount", scale=3), before=None, held=lambda table: there)
    assert "amount has data as Decimal(precision=18, scale=2)" in says
    assert "give the new column another name, or declare amount as it was" in says
    assert refused(SALES, before=None, held=lambda table: {"amount": pl.String()}) != ""


def test_a_column_that_a_served_version_reads_is_not_taken_away() -> None:
    assert refused(without("amount")) == ""
    says = refused(without("amount"), current="good/3")
    assert "version good/3, which serves or may be rolled back to, reads it" in says
    assert refused(without("extra"), current="good/3") == ""
    assert "reads it" in refused(without("shop"), current="good/3"), "it is looked up by it"
