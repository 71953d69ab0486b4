from pathlib import Path

import numpy as np
import pytest

from flyball.demo.bars import Bar, bars
from flyball.demo.scores import WITHIN, Quality, Scored, Scores, Story, labels, story
from flyball.demo.simulate import Payments, Scenario
from flyball.kernel.times import DAY, HOUR

COUNT = 40
SCENARIO = Scenario(start=0, history_days=0, live_days=40, shift_day=10)


def payments() -> Payments:
    """One a day; each fourth is charged back after an hour, and one too late to count."""
    zeros = np.zeros(COUNT, dtype=np.int64)
    time = np.arange(COUNT, dtype=np.int64) * DAY
    charged_back = np.where(np.arange(COUNT) % 4 == 0, time + HOUR, 0)
    charged_back[1] = time[1] + WITHIN + 1
    return Payments(
        card=zeros, merchant=zeros, amount=zeros, channel=zeros, country=zeros, time=time, charged_back=charged_back
    )


def answers(version: str, start: int, stop: int, right: bool) -> list[Scored]:
    return [Scored(i, version, float((i % 4 == 0) == right)) for i in range(start, stop)]


def test_a_chargeback_after_the_labels_time_does_not_count() -> None:
    assert labels(payments())[:5].tolist() == [1, 0, 0, 0, 1]


def test_scores_survive_a_restart_a_torn_line_and_a_second_answer(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    Scores(path).add([Scored(3, "fraud/1", 0.25), Scored(4, "fraud/1", 0.1)])
    with path.open("a") as file:
        file.write("5,frau")
    again = Scores(path)
    assert len(again) == 2
    again.add([Scored(3, "fraud/2", 0.9), Scored(6, "fraud/2", 0.9)])
    assert again.versions() == ["fraud/1", "fraud/2"]
    last = Scores(path)
    assert (len(last), last.answers) == (3, 4)


def test_quality_counts_only_mature_answers_of_the_version_and_the_time(tmp_path: Path) -> None:
    scores = Scores(tmp_path / "scores.csv")
    scores.add(answers("fraud/1", 0, 20, right=True) + answers("fraud/2", 20, 40, right=False))
    quality = scores.quality(payments(), version="fraud/1", start=0, end=12 * DAY, now=40 * DAY)
    assert quality == Quality(auc=1.0, rows=12, frauds=3)
    young = scores.quality(payments(), version="fraud/2", start=0, end=40 * DAY, now=30 * DAY)
    assert young == Quality(auc=0.0, rows=8, frauds=2)


def test_a_quality_of_one_class_has_no_auc(tmp_path: Path) -> None:
    scores = Scores(tmp_path / "scores.csv")
    scores.add(answers("fraud/1", 1, 3, right=True))
    assert scores.quality(payments(), version="fraud/1", start=0, end=40 * DAY, now=40 * DAY).auc is None


def test_a_story_has_the_old_version_before_and_after_the_shift_and_the_new_one_since_it_was_promoted(
    tmp_path: Path,
) -> None:
    scores = Scores(tmp_path / "scores.csv")
    scores.add(
        answers("fraud/1", 0, 10, right=True)
        + answers("fraud/1", 10, 20, right=False)
        + answers("fraud/2", 20, 40, right=True)
    )
    told = story(scores, payments(), SCENARIO, promoted_at=20 * DAY, now=40 * DAY)
    assert told.versions == ("fraud/1", "fraud/2")
    assert (told.before.auc, told.after.auc, told.recovered.auc) == (1.0, 0.0, 1.0)


def quality(auc: float | None) -> Quality:
    return Quality(auc=auc, rows=100, frauds=10)


def test_the_bars_are_met_by_good_figures_and_missed_by_missing_ones() -> None:
    told = Story(versions=("a", "b"), before=quality(0.95), after=quality(0.75), recovered=quality(0.9))
    good = bars(with_windows=0.95, without_windows=0.7, story=told, lost=0, doubled=0, mismatches=0)
    assert all(bar.met for bar in good)
    assert str(good[2]) == "bar auc_recovered_share 0.75 >=0.5 met"
    none = bars(with_windows=0.95, without_windows=None, story=None, lost=0, doubled=1, mismatches=None)
    assert [bar.met for bar in none] == [False, False, False, True, False, False]
    assert str(none[0]) == "bar auc_windows_gain none >=0.1 missed"
    assert str(none[4]) == "bar events_and_predictions_doubled 1 <=0 missed"


@pytest.mark.parametrize(("figure", "met"), [(0.1, True), (0.0999, False), (None, False)])
def test_a_bar_is_met_at_its_edge(figure: float | None, met: bool) -> None:
    assert Bar(name="x", figure=figure, least=0.1).met is met
