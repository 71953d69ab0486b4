"""The code of the tutorials runs, and is as short as they say."""

import difflib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flyball.define.check import check
from flyball.define.load import load_project
from flyball.define.service import Service

TUTORIAL = Path(__file__).parents[2] / "docs/tutorials/bring-your-scikit-learn-script.md"


def blocks() -> tuple[str, str]:
    before, after = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text(), re.MULTILINE | re.DOTALL)
    return before, after


def test_the_project_has_at_most_ten_new_or_changed_lines() -> None:
    before, after = ([line for line in text.splitlines() if line.strip()] for text in blocks())
    new = [line for line in difflib.ndiff(before, after) if line.startswith("+ ")]
    assert len(new) <= 10


def test_the_script_runs(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    income, amount = rng.lognormal(10, 1, 600), rng.lognormal(9, 1, 600)
    default = rng.random(600) < 1 / (1 + income / amount)
    rows = [f"L-{i},{i},{a:.2f},{b:.2f},{c}" for i, (a, b, c) in enumerate(zip(income, amount, default, strict=True))]
    (tmp_path / "loans.csv").write_text("\n".join(["id,time,income,amount,default", *rows]))
    (tmp_path / "script.py").write_text(blocks()[0])
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert 0.6 < float(done.stdout) <= 1.0


@dataclass
class Part:
    X: Any
    y: Any


@dataclass
class Data:
    train: Part


class Run:
    def package(self, model: Any) -> Any:
        return model


def test_the_project_checks_clean_and_its_function_trains(tmp_path: Path) -> None:
    path = tmp_path / "project.py"
    path.write_text(blocks()[1])
    project = load_project(path)
    assert [str(problem) for problem in check(project)] == []
    service: Service = project.services[0]
    function: Any = service.model
    rng = np.random.default_rng(2)
    X = rng.normal(size=(50, 2))
    model = function(Data(train=Part(X=X, y=(X[:, 0] > 0).astype(float))), Run())
    assert model.predict_proba(X).shape == (50, 2)
