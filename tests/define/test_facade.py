"""`import flyball as fb`: what it offers, and how little it loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import flyball as fb

HEAVY = {
    "numpy",
    "polars",
    "numba",
    "fastapi",
    "torch",
    "ray",
    "lightgbm",
    "pyarrow",
    "sqlalchemy",
    "sklearn",
    "pandas",
}


def test_all_that_is_offered_is_there_and_sorted() -> None:
    assert list(fb.__all__) == sorted(fb.__all__)
    for name in fb.__all__:
        assert getattr(fb, name) is not None


def test_the_language_of_the_architecture_is_offered() -> None:
    words = (
        "Source WindowView LatestView transform model Label Binary Project Service Load Canary Full Retrain every drift"
    )
    words += " quality_drop delay known_at epoch row_key count sum mean std min max first last latest where coalesce"
    words += " is_null secret Request Batch Pretrained External by_time Dataset Run Package String Category Decimal"
    assert set(words.split()) <= set(fb.__all__)


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import flyball, json, sys; import tests.define.payments_project; print(json.dumps(list(sys.modules)))"
    root = Path(fb.__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=root
    )
    loaded = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert loaded & HEAVY == set()
