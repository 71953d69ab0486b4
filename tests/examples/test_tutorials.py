"""The code of the tutorials runs, and is as short as they say."""

import difflib
import random
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyball.define.check import check
from flyball.define.load import load_project
from flyball.define.service import Service
from flyball.kernel.times import MINUTE, SECOND, parse_time, show_time
from flyball.testing import TestPlatform, platform
from tests.examples.beside import agrees, shown, typed

TUTORIALS = Path(__file__).parents[2] / "docs/tutorials"
SCRIPT = TUTORIALS / "bring-your-scikit-learn-script.md"
WINDOWS = TUTORIALS / "time-windows-and-the-audit.md"


def blocks(page: Path = SCRIPT) -> tuple[str, str]:
    """A page's two blocks of Python: before and after, or the project and its data."""
    first, second = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return first, second


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


def an_hour_of_traffic(running: TestPlatform) -> None:
    """Each card is asked about once a minute, and twenty payments a minute come up to a minute and a half late."""
    draw = random.Random(1)
    for minute in range(60):
        now = running.clock.now()
        for card in range(40):
            running.predict("theft", id=f"r-{minute}-{card}", card=f"c-{card}", amount="80.00")
        fields = {"stolen": False, "amount": "12.00", "seen": show_time(now)}
        running.push(
            "Payments",
            [
                fields
                | {"id": f"l-{minute}-{n}", "card": f"c-{draw.randrange(40)}", "shop": f"s-{draw.randrange(40)}"}
                | {"at": show_time(now - draw.randrange(90) * SECOND)}
                for n in range(20)
            ],
        )
        running.clock.advance_to(now + MINUTE)
    for _ in range(3):
        running.advance("2m")


def test_the_page_on_windows_prints_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project, history = blocks(WINDOWS)
    (tmp_path / "project.py").write_text(project)
    (tmp_path / "history.py").write_text(history)
    subprocess.run([sys.executable, "history.py"], cwd=tmp_path, check=True)
    assert [str(problem) for problem in check(load_project(tmp_path / "project.py"))] == []
    monkeypatch.chdir(tmp_path)
    with platform(tmp_path / "project.py", at=parse_time("2026-03-03T12:00:00Z")) as running:
        for one in shown(WINDOWS.read_text()):
            if one.command.startswith("flyball skew"):
                an_hour_of_traffic(running)
            out = typed(one.command, running, monkeypatch)
            assert agrees(one.lines, out), f"$ {one.command}\n{out}"
