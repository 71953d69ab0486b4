from __future__ import annotations

import subprocess
import sys
from typing import Any

from flyball.features import batch, moments, running, trees
from flyball.features.warm import warm, warm_training


def test_warming_compiles_what_serving_and_training_call() -> None:
    warm()
    warm_training()
    functions: tuple[Any, ...] = (
        batch.apply,
        batch.read_states,
        batch.read_one,
        moments.run_moments,
        running.run_distinct,
        running.run_sums,
        trees.find,
        trees.run_extreme,
    )
    for function in functions:
        assert len(function.signatures) == 1


def test_a_worker_reads_features_without_the_offline_engine() -> None:
    script = (
        "import sys, flyball.features.serving, flyball.features.warm, flyball.storage.online\n"
        "print([m for m in ('polars', 'pandas', 'sqlalchemy', 'fastapi', 'deltalake') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stderr
