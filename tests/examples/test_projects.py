"""The projects that strangers read first: they load, check clean, and are what the studies measured."""

from pathlib import Path

import pytest

from flyball.define.check import check
from flyball.define.compile import compile_project
from flyball.define.load import load_project
from tests.demo.study import ROW_COLUMNS, features

ROOT = Path(__file__).parents[2]


@pytest.fixture
def demo_project(tmp_path: Path) -> Path:
    path = tmp_path / "project.py"
    path.write_text((ROOT / "src/flyball/demo/project.py").read_text())
    return path


def test_the_demonstrations_project_has_no_problems_and_the_features_that_the_study_measured(
    demo_project: Path,
) -> None:
    project = load_project(demo_project)
    assert check(project) == []
    names = [feature.name for feature in compile_project(project).models[0].features]
    from flyball.demo.simulate import Scenario, simulate

    studied = list(features(simulate(Scenario(history_days=2, live_days=1, shift_day=3))))
    views = {"card": "Card", "merchant": "Merchant", "pair": "CardAtMerchant"}
    expected = []
    for name in studied:
        kind, _, rest = name.partition("_")
        is_view = kind in views and name not in ROW_COLUMNS
        expected.append(f"{views[kind]}.{rest}" if is_view else name)
    assert names == expected


def test_the_taxi_project_has_no_problems_and_asks_for_nothing_that_the_label_reads() -> None:
    project = load_project(ROOT / "examples/taxi/project.py")
    assert check(project) == []
    spec = compile_project(project)
    assert not any(feature.expr[:3] == ["col", "Trips", "tips"] for feature in spec.models[0].features)
