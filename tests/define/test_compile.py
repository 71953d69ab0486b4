"""A project compiles to data, completely, and back."""

from __future__ import annotations

import json

from flyball.define.compile import compile_project
from flyball.define.spec import project_from_data
from tests.define.taxi_project import project


def test_the_taxi_project_compiles_to_one_of_each() -> None:
    spec = compile_project(project)
    assert [s.name for s in spec.sources] == ["Trips"]
    assert [v.name for v in spec.views] == ["CompanyTrips"]
    assert [m.name for m in spec.models] == ["tip"]
    assert [s.name for s in spec.services] == ["tip"]
    model = spec.model("tip")
    assert [f.name for f in model.features] == [
        "CompanyTrips.trips_7d",
        "CompanyTrips.fare_mean_30d",
        "CompanyTrips.tip_rate_30d",
        "fare_against_usual",
        "fare",
        "payment_type",
    ]
    assert (model.module, model.function) == ("tests.define.taxi_project", "tip")


def test_a_compiled_project_comes_back_from_json_with_the_same_hash() -> None:
    spec = compile_project(project)
    again = project_from_data(json.loads(json.dumps(spec.to_data())))
    assert again == spec
    assert again.hash == spec.hash
