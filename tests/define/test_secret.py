"""Secrets: a reference everywhere, the value nowhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import flyball as fb
from flyball.define.check import check
from flyball.define.compile import compile_project
from flyball.define.load import load_project
from flyball.define.plan import make_plan
from flyball.kernel.errors import InvalidError
from tests.define.taxi_project import Trips

MARKER = "marker-5f1c9d"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> fb.Project:
    monkeypatch.setenv("TAXI_DSN", MARKER)
    return fb.Project("taxi", sources=[Trips], secrets=[fb.secret("TAXI_DSN")])


def test_a_secret_shows_its_name_and_never_its_value(planted: fb.Project) -> None:
    reference = fb.secret("TAXI_DSN")
    spec = compile_project(planted)
    plan = make_plan(None, spec)
    shown = [repr(reference), str(reference), f"{reference}", repr(planted), repr(spec), repr(plan)]
    shown += [json.dumps(spec.to_data()), json.dumps(plan.to_data()), *map(str, check(planted))]
    assert not [text for text in shown if MARKER in text]
    assert repr(reference) == "fb.secret('TAXI_DSN')"
    assert spec.secrets == ("TAXI_DSN",)


def test_a_value_in_the_place_of_a_name_is_not_repeated() -> None:
    for wrong in (MARKER, f"postgres://u:{MARKER}@h/d"):
        with pytest.raises(InvalidError, match="name of an environment variable") as error:
            fb.secret(wrong)
        assert MARKER not in str(error.value)
    with pytest.raises(InvalidError, match="is not a reference") as error:
        fb.Project("taxi", sources=[Trips], secrets=[MARKER])  # type: ignore[list-item]
    assert MARKER not in str(error.value)


def test_a_failing_import_does_not_tell_a_secret(
    tmp_path: Path, planted: fb.Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "import os, flyball as fb\nfb.secret('TAXI_DSN')\nraise ValueError('cannot open ' + os.environ['TAXI_DSN'])\n"
    )
    (tmp_path / "broken.py").write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(InvalidError, match="<secret TAXI_DSN>") as error:
        load_project(tmp_path / "broken.py")
    assert MARKER not in str(error.value)
    assert MARKER not in json.dumps(error.value.to_data())
