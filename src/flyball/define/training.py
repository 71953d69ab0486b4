"""What a training function is given, and what it returns. The training room implements these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import polars as pl


class Part(Protocol):
    """The training or the held-out part of a training set, rows in time order."""

    @property
    def X(self) -> npt.NDArray[np.float64]:
        """Shape [rows, features]; null is NaN, a category its position in `Dataset.categories`, true is 1."""
        ...

    @property
    def y(self) -> npt.NDArray[np.float64]:
        """Shape [rows]; a class is its position in the task's classes, true is 1."""
        ...

    @property
    def frame(self) -> pl.DataFrame:
        """The same rows by name, without columns declared pii."""
        ...

    def __len__(self) -> int: ...

    def to_pandas(self) -> pd.DataFrame:
        """The features by name, categories as pandas categoricals."""
        ...


class Dataset(Protocol):
    """A point-in-time training set, split as the model declares."""

    @property
    def train(self) -> Part: ...

    @property
    def test(self) -> Part:
        """Later than all of `train`."""
        ...

    @property
    def features(self) -> Sequence[str]:
        """The names of the columns of `X`."""
        ...

    @property
    def categorical(self) -> Sequence[int]:
        """Which columns of `X` are categories, as LightGBM's and scikit-learn's `categorical_feature(s)` take them."""
        ...

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """The values of each categorical feature; a code in `X` is a position in them."""
        ...


class Package(Protocol):
    """A trained model in a form that can be packed; made by `Run.package`."""

    @property
    def extra(self) -> Mapping[str, Any]:
        """What was said of the model beside its form; kept in the version's manifest."""
        ...


class Run(Protocol):
    """The training run in which a training function is called."""

    @property
    def params(self) -> Mapping[str, Any]:
        """What whoever started the run gave, plain data."""
        ...

    @property
    def seed(self) -> int:
        """Makes the run repeatable."""
        ...

    def log(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep numbers, such as the loss of a step."""
        ...

    def progress(self, done: float, total: float) -> None:
        """Say how far the run is; cheap enough to be called at every step."""
        ...

    def artifact(self, name: str, data: bytes) -> None:
        """Keep a file with the run; the same name replaces it."""
        ...

    def package(self, model: Any) -> Package:
        """Make a model returnable: a LightGBM booster or estimator, a scikit-learn estimator, an ONNX model or path."""
        ...
