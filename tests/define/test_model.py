"""Models, labels, services, batches and projects: what they keep and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

import flyball as fb
from flyball.define.label import outcome_of
from flyball.kernel.errors import InvalidError
from flyball.kernel.times import HOUR, MINUTE
from tests.define.payments_project import Chargebacks, Out, Payments, fraud, project
from tests.define.taxi_project import CompanyTrips, Trips, tip

LABEL = fb.Label(Payments.abroad)


def train(data: fb.Dataset, run: fb.Run) -> fb.Package:
    return run.package(data)


def declare(**changes: Any) -> Any:
    given: dict[str, Any] = {"task": fb.Binary(), "rows": Payments, "label": LABEL, "features": [Payments.amount]}
    return fb.model(**(given | changes))(train)


def test_a_model_is_still_its_function() -> None:
    class Recorder:
        features = ("a",)

        def package(self, model: object) -> object:
            return model

    recorder: Any = Recorder()
    returned: object = fraud(recorder, recorder)
    assert returned == ("a",)
    assert fraud.__doc__ == "Whether a payment will be charged back."
    assert fraud.function.__qualname__ == "fraud"


def test_a_model_does_not_change() -> None:
    with pytest.raises(InvalidError, match="model tip does not change"):
        tip.rows = Payments


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"task": fb.Binary}, "task is Binary, not a task"),
        ({"rows": Out}, "not a class that extends fb.Source"),
        ({"label": Payments.abroad}, "label is not an fb.Label"),
        ({"label": fb.Label(Payments.amount)}, "learns a condition, and the label is a decimal"),
        ({"label": fb.Label(Trips.tips > 0)}, "the label reads Trips.tips, and the rows are of Payments"),
        ({"task": fb.Regression(), "label": fb.Label(Payments.method)}, "learns a number"),
        ({"task": fb.MultiClass("chip", "swipe"), "label": fb.Label(Payments.method)}, "may be 'online'"),
        ({"task": fb.MultiClass("a", "b"), "label": LABEL}, "learns a category"),
        ({"features": []}, "has no features"),
        ({"features": Payments.amount}, "features is a list"),
        ({"features": [Payments.amount + 1]}, '(…).named("name")'),
        ({"features": [Payments.amount, Payments.amount]}, "'amount' stands twice"),
        ({"features": [Payments]}, "Payments is a source; name its columns"),
        ({"features": ["amount"]}, "'amount' is not a feature"),
        ({"features": [Out, Out.n_1h]}, "'Out.n_1h' stands twice"),
    ],
)
def test_a_wrong_model_says_what_is_wrong(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidError) as error:
        declare(**changes)
    assert says in str(error.value)


def test_a_view_and_its_role_are_different_features() -> None:
    model = declare(features=[Out, Out.by(Payments.payee)])
    names = [name for name, _ in model.features]
    assert "Out.n_1h" in names
    assert "Out.by_payee.n_1h" in names


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fb.Label(3), "takes an expression or Source.any"),  # type: ignore[arg-type]
        (lambda: fb.Label(Out.n_1h > 1), "may read columns of the row only"),
        (
            lambda: fb.Label(Chargebacks.any(on=Chargebacks.payment == Payments.id, within="45d"), matures="1d"),
            "within",
        ),
        (lambda: fb.Label(Payments.abroad, given=Payments.amount), "which the label does not read"),
        (lambda: fb.Label(Payments.amount > 3, given=Payments.amount), "there is nothing to learn"),
        (lambda: fb.by_time(test=1), "a share between 0 and 1"),
    ],
)
def test_a_wrong_label_says_what_is_wrong(make: Any, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        make()
    assert says in str(error.value)


def test_a_label_matures_with_its_row_where_nothing_is_said() -> None:
    assert fb.Label(Trips.tips > 0).to_spec(HOUR).matures == HOUR
    assert fb.Label(Trips.tips > 0, matures="5m").to_spec(HOUR).matures == 5 * MINUTE


def test_the_outcome_of_a_label_is_what_a_request_cannot_know() -> None:
    def outcome(label: fb.Expr, *given: str) -> set[str]:
        return outcome_of(label.to_data(), given)

    assert outcome(Trips.tips > 0.2 * Trips.fare) == {"tips"}
    assert outcome(0.2 * Trips.fare < Trips.tips) == {"tips"}
    assert outcome(Trips.tips > 0) == {"tips"}
    assert outcome(Trips.tips > Trips.fare) == {"tips", "fare"}
    assert outcome(Trips.tips / Trips.fare > 0.2) == {"tips", "fare"}
    assert outcome(Trips.tips / Trips.fare > 0.2, "fare") == {"tips"}
    assert outcome(Trips.tips > 0.5 * (Trips.tips + Trips.fare)) == {"tips", "fare"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: fb.Binary(threshold=2), "between 0 and 1"),
        (lambda: fb.Binary(metric="aux"), "did you mean 'auc'?"),
        (lambda: fb.MultiClass("one"), "two classes or more"),
        (lambda: fb.MultiClass("a", "a"), "stands twice"),
        (lambda: fb.Load(rps=0), "above 0"),
        (lambda: fb.Load(p99="fast"), "is not a duration"),
        (lambda: fb.Canary(steps=(1, 5, 25)), "rise to 100"),
        (lambda: fb.Canary(steps=(5, 1, 100)), "rise to 100"),
        (lambda: fb.Canary(steps=()), "rise to 100"),
        (lambda: fb.Canary(alpha=0), "between 0 and 1"),
        (lambda: fb.Canary(min_requests=0), "at least 1"),
        (lambda: fb.every("0s"), "longer than 0"),
        (lambda: fb.quality_drop("acu", 0.1), "did you mean 'auc'?"),
        (lambda: fb.quality_drop("auc", 0), "above 0"),
        (lambda: fb.Retrain(on=[]), "takes triggers"),
        (lambda: fb.Retrain(on=["1d"]), "takes triggers"),  # type: ignore[list-item]
        (lambda: fb.Retrain(on=[fb.drift()], review="maybe"), "'auto' or 'manual'"),  # type: ignore[arg-type]
        (lambda: fb.Service("tip"), "has no model"),
        (lambda: fb.Service("a b", model=tip), "is not a name"),
        (lambda: fb.Service("tip", model="tip"), "model is 'tip', not a model"),  # type: ignore[arg-type]
        (lambda: fb.Service("tip", model=train), "decorate its function"),  # type: ignore[arg-type]
        (lambda: fb.Service("tip", model=tip, features=[CompanyTrips]), "belong to the model's declaration"),
        (
            lambda: fb.Service("x", model=fb.External(), retrain=fb.Retrain(on=[fb.drift()])),
            "is not trained here",
        ),
        (lambda: fb.Service("tip", model=tip, max_skew=1.5), "max_skew is a share of values between 0 and 1"),
        (lambda: fb.Service("tip", model=tip, max_skew=True), "max_skew is a share"),
        (lambda: fb.Service("tip", model=tip, deadline="soon"), "'soon' is not a duration"),
        (lambda: fb.Service("tip", model=tip, max_batch=0), "max_batch is a number of rows from 1"),
        (lambda: fb.Service("tip", model=tip, cache="yes"), "cache is True or False"),  # type: ignore[arg-type]
        (lambda: fb.Service("tip", model=tip, log="sync"), "'async' or 'durable'"),  # type: ignore[arg-type]
        (lambda: fb.Service("tip", model=tip, rollout=fb.Canary), "write rollout=fb.Canary()"),  # type: ignore[arg-type]
        (lambda: fb.Batch("b", model=fb.External(), rows=Trips, every="1d"), "cannot score a batch"),
        (lambda: fb.Batch("b", model=tip, rows=Trips, every="0d"), "longer than 0"),
        (lambda: fb.Project("p"), "is empty"),
        (lambda: fb.Project("p", services=[tip]), "is not a service"),  # type: ignore[list-item]
        (lambda: fb.Project("p", sources=[tip]), "is not a class that extends fb.Source"),  # type: ignore[list-item]
        (lambda: fb.Project("_p", sources=[Trips]), "reserved"),
    ],
)
def test_a_wrong_declaration_says_what_is_wrong(make: Any, says: str) -> None:
    with pytest.raises(InvalidError) as error:
        make()
    assert says in str(error.value)


def test_declarations_do_not_change() -> None:
    for frozen in (project, project.services[0], project.batches[0], LABEL, fb.Canary()):
        with pytest.raises((AttributeError, TypeError)):
            frozen.name = "other"  # type: ignore[union-attr,misc]


def test_a_project_knows_where_it_stands() -> None:
    assert project.module == "tests.define.payments_project"
    assert (project.root / "tests" / "define" / "payments_project.py").exists()
