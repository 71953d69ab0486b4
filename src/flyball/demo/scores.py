"""What was answered in the live stream, kept in a file, so that a resumed demonstration can sum up all of it."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flyball.define.metrics import metrics_of
from flyball.define.task import Binary
from flyball.demo.simulate import Payments, Scenario
from flyball.kernel.times import DAY

WITHIN = 3 * DAY  # as the project's label says


@dataclass(frozen=True, slots=True)
class Scored:
    """One answered payment: its index in the simulation, the version that answered, and the score."""

    payment: int
    version: str
    score: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """AUC over mature labels, None where one class is missing; `rows` and `frauds` it rests on."""

    auc: float | None
    rows: int
    frauds: int


class Scores:
    """An append-only CSV file; of a payment that was asked for twice (after Ctrl-C), the first answer counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scored: dict[int, Scored] = {}
        self.answers = 0  # all that were kept, those of payments that were asked for twice included
        if path.exists():
            text = path.read_text()
            whole = text[: text.rfind("\n") + 1]  # the last line may have been cut off
            if whole != text:
                path.write_text(whole)
            for payment, version, score in csv.reader(whole.splitlines()):
                self._keep(Scored(int(payment), version, float(score)))

    def __len__(self) -> int:
        return len(self._scored)

    def add(self, scored: Iterable[Scored]) -> None:
        kept = list(scored)
        with self._path.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows((s.payment, s.version, repr(s.score)) for s in kept)
        for one in kept:
            self._keep(one)

    def _keep(self, one: Scored) -> None:
        self.answers += 1
        self._scored.setdefault(one.payment, one)

    def versions(self) -> list[str]:
        """The versions that answered, in the order of their first answer."""
        return list(dict.fromkeys(self._scored[payment].version for payment in sorted(self._scored)))

    def quality(self, payments: Payments, *, version: str, start: int, end: int, now: int) -> Quality:
        """AUC of a version's answers to payments of `start <= time < end` whose label is certain at `now`."""
        chosen = [one for one in self._scored.values() if one.version == version]
        index = np.array([one.payment for one in chosen], dtype=np.int64)
        score = np.array([one.score for one in chosen], dtype=np.float64)
        time = payments.time[index]
        use = (time >= start) & (time < end) & (time + WITHIN <= now)
        label = labels(payments)[index][use]
        metrics = metrics_of(Binary(), label, score[use])
        return Quality(auc=metrics["auc"], rows=int(use.sum()), frauds=int(label.sum()))


def labels(payments: Payments) -> NDArray[np.float64]:
    """1 where a chargeback arrives within the label's time."""
    return (payments.fraud & (payments.charged_back <= payments.time + WITHIN)).astype(np.float64)


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """The quality of the live stream in its three parts; `versions` are the first and the last that served."""

    versions: tuple[str, str]
    before: Quality
    after: Quality
    recovered: Quality


def story(scores: Scores, payments: Payments, scenario: Scenario, *, promoted_at: int, now: int) -> Story:
    """The old version before and after the shift, and the new one since it took all traffic."""
    versions = scores.versions()
    old, new = versions[0], versions[-1]
    start, shift = scenario.live_from, scenario.shift_at
    return Story(
        versions=(old, new),
        before=scores.quality(payments, version=old, start=start, end=shift, now=now),
        after=scores.quality(payments, version=old, start=shift, end=promoted_at, now=now),
        recovered=scores.quality(payments, version=new, start=promoted_at, end=scenario.ends_at, now=now),
    )
