"""Flyball: the whole loop of a production model.

    import flyball as fb

What a user writes: sources, views, transforms, models, services and a project. Importing this loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flyball.define.aggregate import count, distinct, first, last, last_k, latest, max, mean, min, std, sum
from flyball.define.algebra import Expr
from flyball.define.column import Boolean, Category, Decimal, Float, Integer, String, Timestamp
from flyball.define.derive import Derived, derive
from flyball.define.function import (
    abs,
    coalesce,
    exp,
    floor,
    is_null,
    log,
    log1p,
    maximum,
    minimum,
    row_time,
    sqrt,
    where,
)
from flyball.define.label import Label, by_time
from flyball.define.model import External, Pretrained, model
from flyball.define.origin import Sql
from flyball.define.project import Project
from flyball.define.rule import check, fresh, unique, volume
from flyball.define.secret import secret
from flyball.define.service import Batch, Canary, Full, Load, Retrain, Service, drift, every, quality_drop
from flyball.define.source import Request, Source, delay, epoch, iso, known_at, row_key
from flyball.define.task import Binary, MultiClass, Regression
from flyball.define.training import Dataset, Package, Run
from flyball.define.transform import transform
from flyball.define.view import LatestView, WindowView

if TYPE_CHECKING:
    from flyball import testing as testing
    from flyball.platform.notebook import open_platform as open

__version__ = "0.1.0"

__all__ = [
    "Batch",
    "Binary",
    "Boolean",
    "Canary",
    "Category",
    "Dataset",
    "Decimal",
    "Derived",
    "Expr",
    "External",
    "Float",
    "Full",
    "Integer",
    "Label",
    "LatestView",
    "Load",
    "MultiClass",
    "Package",
    "Pretrained",
    "Project",
    "Regression",
    "Request",
    "Retrain",
    "Run",
    "Service",
    "Source",
    "Sql",
    "String",
    "Timestamp",
    "WindowView",
    "abs",
    "by_time",
    "check",
    "coalesce",
    "count",
    "delay",
    "derive",
    "distinct",
    "drift",
    "epoch",
    "every",
    "exp",
    "first",
    "floor",
    "fresh",
    "is_null",
    "iso",
    "known_at",
    "last",
    "last_k",
    "latest",
    "log",
    "log1p",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "model",
    "open",
    "quality_drop",
    "row_key",
    "row_time",
    "secret",
    "sqrt",
    "std",
    "sum",
    "testing",
    "transform",
    "unique",
    "volume",
    "where",
]


if not TYPE_CHECKING:  # a type checker shall refuse what does not exist

    def __getattr__(name: str) -> Any:
        """`fb.testing` and `fb.open` are loaded when they are used: they hold a whole platform."""
        if name == "testing":
            return importlib.import_module("flyball.testing")
        if name == "open":
            return importlib.import_module("flyball.platform.notebook").open_platform
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
