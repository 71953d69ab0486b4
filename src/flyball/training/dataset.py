"""What the user's function gets: the training set, split by time into the part to learn from and the part held out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.define.expression import leaves
from flyball.define.spec import ModelSpec, ProjectSpec
from flyball.kernel.errors import InvalidError
from flyball.training.ports import Matrix, TrainingRows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Part:
    """Rows in time order.

    `X` is `(n, features)` float64, NaN for null, codes (positions in `categories`) for categories; `y` is `(n,)`: 0 and
    1 for binary, the position of the class for multi-class; `t` is event time in microseconds; `frame` the same rows
    with their names, without columns declared pii.
    """

    X: Matrix
    y: npt.NDArray[np.float64]
    t: npt.NDArray[np.int64]
    frame: pl.DataFrame
    features: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.y)

    def to_pandas(self) -> pd.DataFrame:
        """The features by name; categories as pandas categoricals with every declared category."""
        return matrix_to_pandas(self.X, self.features, self.categories)

    def select(self, features: Sequence[str]) -> Part:
        positions = [self.features.index(name) for name in features]
        return Part(
            X=np.ascontiguousarray(self.X[:, positions]),
            y=self.y,
            t=self.t,
            frame=self.frame.drop([n for n in self.features if n not in features and n in self.frame.columns]),
            features=tuple(features),
            categories={name: values for name, values in self.categories.items() if name in features},
        )


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """`train` to learn from and `test`, held out and later than all of `train`. `digest` names the rows.

    `inexact` rows have a value that could not be computed exactly; `left_out` counts rows that are not
    there, by reason. `pins` say what was read of each source.
    """

    train: Part
    test: Part
    digest: str
    inexact: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)
    pins: Mapping[str, Any] = field(default_factory=dict)

    @property
    def features(self) -> tuple[str, ...]:
        return self.train.features

    @property
    def categorical(self) -> tuple[int, ...]:
        """Which columns of `X` are categories, as LightGBM and scikit-learn take them."""
        return tuple(self.features.index(name) for name in self.categories)

    @property
    def categories(self) -> Mapping[str, tuple[str, ...]]:
        return self.train.categories

    def select(self, features: Sequence[str]) -> Dataset:
        """The same rows with fewer features."""
        return replace(self, train=self.train.select(features), test=self.test.select(features))


def dataset(rows: TrainingRows, model: ModelSpec, project: ProjectSpec) -> Dataset:
    """Split a training set by time, the last `model.split.test` of it held out.

    Raises `training_set_empty`, `label_unknown`, or `split_impossible` where all rows have one time.
    """
    if len(rows.y) == 0:
        raise _empty(rows, model)
    y = np.asarray(rows.y, dtype=np.float64)
    if not np.isfinite(y).all():
        raise InvalidError(
            f"{int((~np.isfinite(y)).sum())} rows of the training set of {model.name!r} have no label",
            code="label_unknown",
        )
    order = np.argsort(rows.t, kind="stable")
    t = np.asarray(rows.t, dtype=np.int64)[order]
    cut = time_split(t, model.split.test)
    whole = Part(
        X=np.asarray(rows.X, dtype=np.float64)[order],
        y=y[order],
        t=t,
        frame=_public(rows.frame, model, project)[order],
        features=tuple(rows.features),
        categories={spec.name: spec.categories for spec in model.features if spec.categories},
    )
    return Dataset(
        train=_slice(whole, 0, cut),
        test=_slice(whole, cut, len(t)),
        digest=rows.digest,
        inexact=rows.inexact,
        left_out=dict(rows.left_out),
        pins={name: pin.to_data() for name, pin in rows.pins.items()},
    )


_REASONS = {  # why a row is left out, and what to do about it
    "immature": ("have a label that is not mature", "wait, or check how long the label takes to mature"),
    "null_label": ("have no label", "check the label's expression"),
    "deleted": ("were deleted", "ingest more events"),
    "not_served": ("were not served", "flyball train {model} --asof known"),
    "redefined": (
        "were served only by versions that define the features otherwise or are gone",
        "flyball train {model} --asof known",
    ),
}


def _empty(rows: TrainingRows, model: ModelSpec) -> InvalidError:
    counts = {reason: count for reason, count in rows.left_out.items() if count}
    most = max(counts, key=lambda reason: counts[reason], default="")
    said = ", ".join(f"{count} {_REASONS[reason][0]}" for reason, count in counts.items())
    return InvalidError(
        f"the training set of {model.name!r} has no rows: of the rows of {model.rows!r} "
        + (said or "there are none that were known"),
        code="training_set_empty",
        hint=_REASONS[most][1].format(model=model.name) if most else "ingest events",
        details={"left_out": counts},
    )


def time_split(t: npt.NDArray[np.int64], test: float) -> int:
    """The first held-out row of sorted times: the boundary between two distinct times that is nearest to the share.

    >>> time_split(np.array([1, 2, 3, 3, 3, 4]), 0.5)
    2
    """
    wanted = len(t) * (1 - test)
    boundaries = np.flatnonzero(np.diff(t)) + 1
    if boundaries.size == 0:
        raise InvalidError(
            f"all {len(t)} rows of the training set have one time, so none can be held out by time",
            code="split_impossible",
            hint="ingest events of more than one time",
        )
    return int(boundaries[np.argmin(np.abs(boundaries - wanted))])


def without_windows(model: ModelSpec) -> tuple[str, ...]:
    """The features that look up no view: what the row itself brings."""
    return tuple(f.name for f in model.features if not any(leaf[0] == "view" for leaf in leaves(f.expr)))


def matrix_to_pandas(matrix: Matrix, features: Sequence[str], categories: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """The matrix by name, codes as pandas categoricals: what a model that was fitted on `to_pandas()` expects."""
    import pandas as pd

    columns: dict[str, Any] = {}
    for position, name in enumerate(features):
        values = matrix[:, position]
        if name in categories:
            codes = np.where(np.isnan(values), -1, values).astype(np.int64)
            columns[name] = pd.Categorical.from_codes(codes, categories=pd.Index(list(categories[name])))
        else:
            columns[name] = values
    return pd.DataFrame(columns)


def _slice(part: Part, start: int, end: int) -> Part:
    return Part(
        X=part.X[start:end],
        y=part.y[start:end],
        t=part.t[start:end],
        frame=part.frame[start:end],
        features=part.features,
        categories=part.categories,
    )


def _public(frame: pl.DataFrame, model: ModelSpec, project: ProjectSpec) -> pl.DataFrame:
    """The frame without pii columns of the rows, so that a printed frame leaks nothing; features stay."""
    keep = {feature.name for feature in model.features}
    pii = {c.name for s in project.sources if s.name == model.rows for c in s.columns if c.pii}
    return frame.drop([name for name in frame.columns if name in pii - keep])
