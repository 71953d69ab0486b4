"""Ensembles of trees without their libraries: read from their files, compiled, and scored by a kernel."""

from __future__ import annotations

from flyball.kernel.errors import InvalidError, did_you_mean
from flyball.serving.trees import forest_arrays, kernel, lightgbm_text, xgboost_json
from flyball.serving.trees.ensemble import Ensemble
from flyball.serving.trees.model import Matrix, Score, TreeModel

__all__ = ["FORMATS", "Ensemble", "Matrix", "Score", "TreeModel", "open_model", "parse", "predict_text", "read", "warm"]

FORMATS = ("lightgbm", "xgboost", "flyball.forest")


def read(format: str, data: bytes) -> Ensemble:
    """Read a file in one of `FORMATS`. Raises `bad_tree_model`, `tree_unsupported`, `unknown_tree_format`."""
    if format == "flyball.forest":
        return forest_arrays.read(data)
    if format not in FORMATS:
        raise InvalidError(
            f"the tree kernel reads no {format!r}: {did_you_mean(format, FORMATS)}", code="unknown_tree_format"
        )
    text = data.decode(errors="replace")
    return lightgbm_text.read(text) if format == "lightgbm" else xgboost_json.read(text)


def open_model(format: str, data: bytes) -> TreeModel:
    """A model that is ready to score, from a file; raises what `read` raises."""
    return TreeModel(read(format, data))


def parse(text: str) -> TreeModel:
    """Read a model in LightGBM's text format; `tree_unsupported` names what the kernel does not do."""
    return TreeModel(lightgbm_text.read(text))


def predict_text(text: str, matrix: Matrix) -> Score:
    """Score a matrix with the kernel, from a LightGBM model's text."""
    return parse(text).predict(matrix)


def warm() -> None:
    """Compile the kernel, or load it from its cache: all of it, so that no request waits for a compiler."""
    kernel.load()
