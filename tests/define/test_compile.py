"""A project compiles to data, completely, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import flyball as fb
from flyball.define.check import check
from flyball.define.compile import compile_project, pretrained_files
from flyball.define.module import module_at
from flyball.define.spec import RetrainSpec, TriggerSpec, project_from_data
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import digest
from flyball.kernel.times import DAY
from tests.define import payments_project, taxi_project
from tests.define.taxi_project import Trips, project


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


def test_a_project_of_many_parts_compiles_to_all_of_them() -> None:
    spec = compile_project(payments_project.project)
    assert [s.name for s in spec.sources] == ["Chargebacks", "Payments"]
    assert [v.name for v in spec.views] == ["Everything", "LastOut", "Out", "Pair", "Seen"]
    assert [m.name for m in spec.models] == ["elsewhere", "fraud", "payer_features"]
    assert (spec.secrets, spec.owner) == (("PAYMENTS_DSN",), "risk")
    label = spec.model("fraud").label
    assert label is not None
    assert label.any is not None
    assert (label.any.on, label.any.rows_on, label.any.within) == ("payment", "id", 45 * DAY)
    assert label.matures == 45 * DAY
    assert spec.service("fraud").retrain == RetrainSpec(on=(TriggerSpec(kind="drift"),), review="manual")
    again = project_from_data(json.loads(json.dumps(spec.to_data())))
    assert again.hash == spec.hash


def test_the_order_of_declarations_does_not_matter() -> None:
    services = payments_project.project.services
    turned = fb.Project(
        "payments",
        services=services[::-1],
        batches=payments_project.project.batches,
        secrets=payments_project.project.secrets,
        owner="risk",
    )
    assert compile_project(turned).hash == compile_project(payments_project.project).hash


def test_a_bundle_and_a_source_that_nothing_uses_are_part_of_it() -> None:
    class Visits(fb.Source, event_time=fb.iso("at"), key=fb.row_key()):
        page = fb.String()

    spec = compile_project(fb.Project("p", sources=[Visits]), bundle="b" * 64)
    assert ([s.name for s in spec.sources], spec.bundle) == (["Visits"], "b" * 64)


def test_a_service_of_features_alone_and_one_that_is_served_elsewhere() -> None:
    spec = compile_project(payments_project.project)
    features = spec.model("payer_features")
    assert (features.rows, features.task, features.function, features.external) == ("Payments", None, "", False)
    assert [f.name for f in features.features if f.name.startswith("LastOut")] == ["LastOut.amount", "LastOut.method"]
    assert spec.model("elsewhere").external


class Applicant(fb.Request):
    age = fb.Integer(ge=18)
    payer = fb.String()


def test_a_pretrained_model_is_a_file_by_its_digest(tmp_path: Path) -> None:
    file = tmp_path / "scorer-v2.onnx"
    file.write_bytes(b"model")
    scorer = fb.Pretrained(
        file,
        task=fb.Binary(),
        rows=Applicant,
        features=[Applicant.age, payments_project.Out.by(Applicant.payer).n_1h],
    )
    project = fb.Project("p", services=[fb.Service("score", model=scorer), fb.Service("again", model=scorer)])
    spec = compile_project(project)
    model = spec.model("scorer_v2")
    assert (model.pretrained, model.pretrained_digest) == ("scorer-v2.onnx", digest(b"model"))
    assert [c.name for c in model.request] == ["age", "payer"]
    assert [f.expr for f in model.features] == [["col", "Applicant", "age"], ["view", "Out", "n_1h", ["payer"]]]
    assert [s.model for s in spec.services] == ["scorer_v2", "scorer_v2"]
    assert pretrained_files(project) == {digest(b"model"): file}
    assert check(spec) == []


def test_a_pretrained_file_that_is_not_there_is_named() -> None:
    project = fb.Project("p", services=[fb.Service("score", model=fb.Pretrained("nowhere.onnx"))])
    with pytest.raises(InvalidError, match=r"'nowhere' cannot be read: .*nowhere\.onnx") as error:
        compile_project(project)
    assert error.value.code == "pretrained_missing"
    assert [p.code for p in check(project)] == ["pretrained_missing"]


def test_two_models_of_one_name_are_refused() -> None:
    def tip(data: fb.Dataset, run: fb.Run) -> fb.Package:
        return run.package(data)

    other = fb.model(task=fb.Binary(), rows=Trips, label=fb.Label(Trips.tips > 0), features=[Trips.fare])(tip)
    services = [*taxi_project.project.services, fb.Service("other", model=other)]
    with pytest.raises(InvalidError, match="two models are called 'tip'"):
        compile_project(fb.Project("p", services=services))


def test_a_project_that_flyball_carries_stands_in_a_folder_of_its_own() -> None:
    file = Path(fb.__file__).parent / "demo" / "project.py"
    assert module_at(file) == (file.parent, "project")
    here = Path(__file__).resolve()
    assert module_at(here) == (here.parents[2], "tests.define.test_compile")
