"""Check: leaks and everything else that no single declaration can see."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import flyball as fb
from flyball.define.check import check
from flyball.define.compile import compile_project
from flyball.define.problem import Problem
from flyball.define.spec import ProjectSpec
from flyball.kernel.times import DAY
from tests.define import payments_project, taxi_project
from tests.define.payments_project import Chargebacks, Out, Pair, Payments
from tests.define.taxi_project import CompanyTrips, Trips, fare_against_usual

WITHIN = Chargebacks.any(on=Chargebacks.payment == Payments.id, within="45d")
TIP = fb.Label(Trips.tips > 0.2 * Trips.fare, matures="1h")


def train(data: fb.Dataset, run: fb.Run) -> fb.Package:
    return run.package(data)


def problems(**changes: Any) -> list[Problem]:
    """The problems of a project with one model over Payments; keywords of `@fb.model` and of `fb.Service`."""
    given: dict[str, Any] = {
        "task": fb.Binary(),
        "rows": Payments,
        "label": fb.Label(WITHIN),
        "features": [Payments.amount],
    }
    service = {k: changes.pop(k) for k in ("default", "retrain", "rollout") if k in changes}
    model = fb.model(**(given | changes))(train)
    spec = compile_project(fb.Project("p", services=[fb.Service("s", model=model, **service)]))
    return check(spec)


def codes(**changes: Any) -> list[str]:
    return [p.code for p in problems(**changes)]


def test_the_examples_have_no_problems() -> None:
    assert check(taxi_project.project) == []
    assert check(payments_project.project) == []


def test_the_outcome_of_the_row_itself_is_no_feature() -> None:
    leaky = fb.transform(lambda_like)
    found = problems(rows=Trips, label=TIP, features=[Trips.fare, leaky])
    assert [p.code for p in found] == ["leak_label"]
    assert "the feature lambda_like reads Trips.tips, which the label reads of the same row" in found[0].message
    assert codes(rows=Trips, label=TIP, features=[Trips.tips, fare_against_usual]) == ["leak_label"]


def lambda_like(tips: fb.Expr = Trips.tips) -> fb.Expr:
    return fb.log1p(tips)


def test_what_is_given_may_be_a_feature() -> None:
    share = Trips.tips / Trips.fare > 0.2
    assert codes(rows=Trips, label=fb.Label(share), features=[Trips.fare]) == ["leak_label"]
    assert codes(rows=Trips, label=fb.Label(share, given=Trips.fare), features=[Trips.fare]) == []


def test_a_view_over_label_columns_that_are_known_too_soon_leaks() -> None:
    assert codes(rows=Trips, label=TIP, features=[CompanyTrips]) == []
    late = fb.Label(Trips.tips > 0.2 * Trips.fare, matures="1d")
    found = problems(rows=Trips, label=late, features=[CompanyTrips, Trips.fare])
    assert [p.code for p in found] == ["leak_view"]  # the rate of tips; the count and the mean fare are no outcome
    assert "CompanyTrips.tip_rate_30d over Trips.tips" in found[0].message
    assert found[0].hint == 'declare Trips with known=fb.delay("1d")'


def test_a_view_must_be_looked_up_by_columns_of_the_rows() -> None:
    class ByReason(fb.WindowView, source=Chargebacks, entity=Chargebacks.reason):
        n_7d = fb.count("7d")

    found = problems(features=[ByReason])
    assert [p.code for p in found] == ["unknown_lookup"]
    assert "looked up by 'reason', and Payments has no such column" in found[0].message
    assert found[0].hint == "look it up by another column: ByReason.by(Payments.column)"
    assert codes(features=[ByReason.by(Payments.method)]) == []
    assert codes(features=[Pair.by(Payments.payee, Payments.id)]) == []


def test_a_column_that_only_a_request_has_is_no_feature_of_a_trained_model() -> None:
    class Extra(fb.Request):
        score = fb.Float()

    found = problems(features=[Payments.amount, Extra.score])
    assert [p.code for p in found] == ["request_only"]
    assert "fb.Pretrained with rows=Extra" in found[0].hint


def test_columns_of_other_sources_and_sensitive_ones_and_free_text_are_no_features() -> None:
    class ByAge(fb.WindowView, source=Payments, entity=Payments.payer, where=Payments.age_group == "old"):
        n_7d = fb.count("7d")

    assert codes(features=[Chargebacks.reason]) == ["foreign_column"]
    assert codes(features=[Payments.age_group]) == ["sensitive_feature"]
    assert codes(features=[ByAge]) == ["sensitive_feature"]
    assert codes(features=[Payments.payee]) == ["text_feature"]
    found = problems(features=[Payments.at])
    assert [(p.code, p.severity) for p in found] == [("time_feature", "warning")]


@pytest.mark.parametrize(
    ("task", "label", "default", "fits"),
    [
        (fb.Binary(), fb.Label(WITHIN), 1, True),
        (fb.Binary(), fb.Label(WITHIN), 1.5, False),
        (fb.Binary(), fb.Label(WITHIN), "no", False),
        (fb.MultiClass("chip", "online", "swipe"), fb.Label(Payments.method), "chip", True),
        (fb.MultiClass("chip", "online", "swipe"), fb.Label(Payments.method), "cash", False),
        (fb.Regression(), fb.Label(Payments.score), -3, True),
        (fb.Regression(), fb.Label(Payments.score), "x", False),
    ],
)
def test_a_default_is_in_the_range_of_the_task(task: Any, label: Any, default: Any, fits: bool) -> None:
    assert codes(task=task, label=label, default=default) == ([] if fits else ["bad_default"])


def test_a_trigger_watches_a_metric_of_the_task() -> None:
    retrain = fb.Retrain(on=[fb.quality_drop("rmse", 0.1)])
    assert codes(retrain=retrain) == ["unknown_metric"]


def test_events_are_kept_as_long_as_windows_look_back() -> None:
    class Kept(fb.Source, event_time=fb.iso("at"), key=fb.row_key(), retention="10d"):
        who = fb.String()

    class Long(fb.WindowView, source=Kept, entity=Kept.who):
        n_30d = fb.count("30d")

    service = fb.Service("s", rows=Kept, features=[Long, Kept.who])
    found = check(fb.Project("p", services=[service]))
    assert [p.code for p in found] == ["retention_too_short"]
    assert 'retention="30d"' in found[0].hint


def test_a_batch_scores_rows_that_have_what_its_model_needs() -> None:
    batch = fb.Batch("b", model=taxi_project.tip, rows=Payments, every="1d", output="Payments")
    found = check(compile_project(fb.Project("p", batches=[batch])))
    assert {p.code for p in found} == {"duplicate_name", "unknown_column"}
    assert any("needs 'company'" in p.message for p in found)


def test_what_nothing_uses_is_a_warning() -> None:
    alone = fb.Project("taxi", sources=[Trips])
    object.__setattr__(alone, "module", taxi_project.__name__)
    found = check(alone)
    assert {(p.code, p.severity) for p in found} == {("unreachable", "warning")}
    assert {p.subject for p in found} == {"view CompanyTrips", "transform fare_against_usual", "model tip"}


def test_two_declarations_of_one_name_are_refused() -> None:
    class Trips(fb.Source, event_time=fb.iso("at"), key=fb.row_key()):
        other = fb.Float()

    found = check(fb.Project("p", services=list(taxi_project.project.services), sources=[Trips]))
    assert [p.code for p in found] == ["duplicate_name"]
    assert "tests.define.taxi_project.Trips" in found[0].message


def change(spec: ProjectSpec, field: str, **values: Any) -> ProjectSpec:
    item = msgspec.structs.replace(getattr(spec, field)[0], **values)
    return msgspec.structs.replace(spec, **{field: (item,)})


def test_a_spec_that_was_not_compiled_here_is_checked_too() -> None:
    spec = compile_project(taxi_project.project)
    rollout = msgspec.structs.replace(spec.services[0].rollout, steps=(1.0, 50.0))
    assert [p.code for p in check(change(spec, "services", rollout=rollout))] == ["bad_steps"]
    assert "unknown_model" in [p.code for p in check(change(spec, "services", model="tap"))]
    assert "retention_too_short" in [p.code for p in check(change(spec, "sources", retention=DAY))]
    assert "unknown_feature" in [p.code for p in check(msgspec.structs.replace(spec, views=()))]
    twice = msgspec.structs.replace(spec, models=spec.models * 2)
    assert "duplicate_name" in [p.code for p in check(twice)]


def test_a_problem_is_data_and_text() -> None:
    problem = problems(features=[Out, Payments.payee])[0]
    assert problem.to_data()["severity"] == "error"
    assert str(problem).startswith("error: model train: the feature payee is free text")
