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
    """The training or the test part of a training set, rows in time order."""

    @property
    def X(self) -> npt.NDArray[np.float64]:
        """Shape [rows, features]; null is NaN, a category its index in `Dataset.categories`, true is 1."""

    @property
    def y(self) -> npt.NDArray[np.float64]:
        """Shape [rows]; a class is its index in the task's classes, true is 1."""

    @property
    def frame(self) -> pl.DataFrame:
        """The same rows with their keys, times, features in their own types, and the label."""

    def __len__(self) -> int: ...

    def to_pandas(self) -> pd.DataFrame: ...


class Dataset(Protocol):
    """A point-in-time training set, split as the model declares."""

    @property
    def train(self) -> Part: ...

    @property
    def test(self) -> Part: ...

    @property
    def features(self) -> Sequence[str]:
        """The names of the columns of `X`."""

    @property
    def categorical(self) -> Sequence[int]:
        """Which columns of `X` hold categories, by index."""

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """The values of each categorical feature; a code in `X` is an index into them."""

    def to_pandas(self) -> pd.DataFrame:
        """All rows, both parts."""


class Package(Protocol):
    """A packaged model: files, their runtime and signature; made by `Run.package`."""

    @property
    def runtime(self) -> str: ...


class Run(Protocol):
    """The training run in which a training function is called."""

    @property
    def params(self) -> Mapping[str, Any]:
        """What `flyball train --param` gave, plain data."""

    @property
    def seed(self) -> int: ...

    def log(self, metrics: Mapping[str, float], *, step: int | None = None) -> None:
        """Keep metrics; durable when this returns."""

    def progress(self, done: int, total: int) -> None:
        """Say how far the run is."""

    def artifact(self, name: str, data: bytes) -> None:
        """Keep a file with the run."""

    def package(self, model: Any) -> Package:
        """Package a trained model (LightGBM, scikit-learn, ONNX) for the registry."""
