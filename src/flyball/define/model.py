"""Models: trained by a function of the user's, pretrained in a file, or served elsewhere."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any

from flyball.define.aggregate import Feature
from flyball.define.algebra import NUMBERS, TEXTS, Expr, Named
from flyball.define.column import Column
from flyball.define.declaration import Declared, check_name
from flyball.define.label import Label, by_time
from flyball.define.mistake import mistake, user_location
from flyball.define.source import AnyEvent, Request, Source
from flyball.define.spec import FeatureSpec, SplitSpec, TaskSpec
from flyball.define.training import Dataset, Package, Run
from flyball.define.view import Role, View
from flyball.kernel.errors import did_you_mean

Rows = type[Source] | type[Request]
Features = Sequence[type[View] | Expr]
TrainFunction = Callable[[Dataset, Run], Package]


class Model:
    """A model that a function trains. Still callable as that function. Immutable."""

    __slots__ = ("__dict__", "features", "function", "label", "name", "owner", "rows", "split", "task")

    function: TrainFunction
    name: str
    task: TaskSpec
    rows: type[Source]
    label: Label
    features: tuple[tuple[str, Expr], ...]
    split: SplitSpec
    owner: str

    def __init__(self, function: TrainFunction, **declared: Any) -> None:
        functools.update_wrapper(self, function)
        object.__setattr__(self, "function", function)
        for name, value in declared.items():
            object.__setattr__(self, name, value)

    def __call__(self, data: Dataset, run: Run) -> Package:
        return self.function(data, run)

    def __setattr__(self, name: str, value: object) -> None:
        if name in Model.__slots__:
            raise mistake(f"model {self.name} does not change; {name!r} cannot be set", code="frozen")
        object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        return f"<model {self.name}>"


def model(
    *,
    task: TaskSpec,
    rows: type[Source],
    label: Label,
    features: Features,
    split: SplitSpec | None = None,
    owner: str = "",
) -> Callable[[TrainFunction], Model]:
    """Declare the function below as what trains a model; the model has its name.

    Args:
        task: `fb.Binary()`, `fb.MultiClass(…)` or `fb.Regression()`.
        rows: the source whose events are the training rows.
        label: what is learned.
        features: views (all their features), features of views, transforms and columns of the rows.
        split: how the held-out part is chosen; the last fifth by time where it is not said.
    """
    check_task(task)
    check_rows("@fb.model", rows, requests=False)
    if not isinstance(label, Label):
        raise mistake("label is not an fb.Label", hint='write label=fb.Label(Trips.tips > 0, matures="1h")')
    _check_label(label, task, rows)
    named = expand(features, "@fb.model")
    if not named:
        raise mistake("@fb.model has no features; name views, transforms or columns of the rows")

    def declare(function: TrainFunction) -> Model:
        name = getattr(function, "__name__", "")
        check_name(name, f"model {name or function!r}")
        return Model(
            function,
            name=name,
            task=task,
            rows=rows,
            label=label,
            features=named,
            split=by_time() if split is None else split,
            owner=owner,
        )

    return declare


def _check_label(label: Label, task: TaskSpec, rows: type[Source]) -> None:
    """The label is over the rows, and of the type that the task learns."""
    of = label.of
    read = [of.rows_on] if isinstance(of, AnyEvent) else list(of.leaves())
    for column in read:
        if isinstance(column, Column) and column.owner is not rows:
            raise mistake(
                f"the label reads {column!r}, and the rows are of {rows.__name__}",
                hint=f"for a label over another source write {column.owner.__name__}.any(on=…, within=…)",
                code="label_source",
            )
    type = "boolean" if isinstance(of, AnyEvent) else of.type
    if task.kind == "binary" and type != "boolean":
        raise mistake(
            f"fb.Binary learns a condition, and the label is a {type}", hint="compare it, such as Trips.tips > 0"
        )
    if task.kind == "regression" and type not in NUMBERS:
        raise mistake(f"fb.Regression learns a number, and the label is a {type}")
    if task.kind == "multiclass":
        if isinstance(of, AnyEvent) or type not in TEXTS:
            raise mistake(f"fb.MultiClass learns a category, and the label is a {type}")
        extra = [c for c in of.categories if c not in task.classes]
        if extra:
            raise mistake(
                f"the label may be {extra[0]!r}, which is not a class; {did_you_mean(extra[0], task.classes)}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Pretrained:
    """A model in a file that was trained elsewhere (ONNX, LightGBM text, skops).

    Args:
        file: relative to the file that declares it, or else to the working directory.
        name: of the model; without it, the file's name without its ending.
        rows: where the fields of a request are declared, a source or a `fb.Request`.
        features: what the model is given, in order; without them, a request brings the model's own inputs.
    """

    file: str | Path
    _: KW_ONLY
    name: str = ""
    task: TaskSpec | None = None
    rows: Rows | None = None
    features: Features = ()
    owner: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", "".join(c if c.isalnum() else "_" for c in Path(self.file).stem))
        check_name(self.name, f"fb.Pretrained({str(self.file)!r})")
        if self.task is not None:
            check_task(self.task)
        if self.rows is not None:
            check_rows("fb.Pretrained", self.rows)
        expand(self.features, f"fb.Pretrained({str(self.file)!r})")
        place = user_location()
        beside = Path(place.path).parent / self.file if place else Path(self.file)
        object.__setattr__(self, "file", beside if beside.exists() else Path(self.file))

    @property
    def path(self) -> Path:
        return Path(self.file)


@dataclass(frozen=True, slots=True, eq=False)
class External:
    """A model that is served elsewhere; what it predicts is logged and watched here.

    Args:
        name: of the model; without it, the service's.
    """

    _: KW_ONLY
    name: str = ""
    task: TaskSpec | None = None
    rows: Rows | None = None
    features: Features = ()
    owner: str = ""
    description: str = ""

    def __post_init__(self) -> None:
        if self.name:
            check_name(self.name, "fb.External")
        if self.task is not None:
            check_task(self.task)
        if self.rows is not None:
            check_rows("fb.External", self.rows)
        expand(self.features, "fb.External")


def check_task(task: object) -> None:
    if not isinstance(task, TaskSpec):
        name = getattr(task, "__name__", repr(task))
        raise mistake(f"task is {name}, not a task", hint="write task=fb.Binary(), fb.MultiClass(…) or fb.Regression()")


def check_rows(shown: str, rows: object, *, requests: bool = True) -> None:
    if isinstance(rows, Declared) and issubclass(rows, Request) and not requests:
        raise mistake(
            f"{shown}: rows is the request {rows.__name__}; no training row has its fields", code="request_only"
        )
    if not (isinstance(rows, Declared) and issubclass(rows, (Source, Request)) and "_sealed" in rows.__dict__):
        raise mistake(f"{shown}: rows is {rows!r}, not a class that extends fb.Source")


def expand(features: Features, shown: str) -> tuple[tuple[str, Expr], ...]:
    """Every feature with its name; a view stands for all of its features."""
    if isinstance(features, (Expr, Role, str)) or not isinstance(features, Sequence):
        raise mistake(f"{shown}: features is a list, such as features=[View, Trips.fare]")
    named: list[tuple[str, Expr]] = []
    for item in features:
        named += _expand_one(item, shown)
    names = [name for name, _ in named]
    for name in names:
        if names.count(name) > 1:
            raise mistake(f"{shown}: the feature {name!r} stands twice", code="duplicate_feature")
    return tuple(named)


def _expand_one(item: object, shown: str) -> list[tuple[str, Expr]]:
    if isinstance(item, Role):
        return [(f.full_name, f) for f in item.features()]
    if isinstance(item, Declared) and issubclass(item, View):
        return [(f.full_name, f) for f in item._features.values()]
    if isinstance(item, Feature):
        return [(item.full_name, item)]
    if isinstance(item, Column):
        item.owner  # noqa: B018  (refuses a column that belongs to no source)
        return [(item.name, item)]
    if isinstance(item, Named):
        return [(item.name, item)]
    if isinstance(item, Expr):
        raise mistake(
            f"{shown}: the feature {item!r} has no name", hint='write it as an @fb.transform, or as (…).named("name")'
        )
    if isinstance(item, Declared):
        raise mistake(f"{shown}: {item.__name__} is a source; name its columns, such as {item.__name__}.column")
    raise mistake(f"{shown}: {item!r} is not a feature; name views, features of views, transforms or columns")


def feature_specs(features: tuple[tuple[str, Expr], ...]) -> tuple[FeatureSpec, ...]:
    return tuple(
        FeatureSpec(name=name, expr=expr.to_data(), type=expr.type, categories=expr.categories)
        for name, expr in features
    )
