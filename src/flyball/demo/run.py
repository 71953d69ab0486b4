"""The demonstration: drives a running platform, over HTTP alone, from a project on disk to a retrained model.

Every stage looks first at what the platform already has, and a simulated stream is the same each time; so a run that
was ended by Ctrl-C is gone on with by the next.
"""

from __future__ import annotations

import importlib.resources
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flyball.client import Client
from flyball.client.project import apply, pack
from flyball.demo.bars import bars
from flyball.demo.events import Events
from flyball.demo.history import write_history
from flyball.demo.replay import SERVICE, Replay
from flyball.demo.scores import Quality, Scores, Story, story
from flyball.demo.show import Show, Stage
from flyball.demo.simulate import Payments, Scenario, simulate
from flyball.kernel.errors import InternalError, LateError
from flyball.kernel.ids import digest
from flyball.kernel.settings import Settings
from flyball.kernel.times import MINUTE, show_duration, show_time

SCENARIO = Scenario()
START = SCENARIO.live_from  # where the replay clock begins
AUDITED = 0.1  # of the cards
MODEL = "fraud"
PATIENCE = 120.0  # seconds that one step of the platform may take
LOOK = 0.1

Data = dict[str, Any]


class Platform(Protocol):
    """The running platform, as far as the demonstration needs to know it."""

    settings: Settings

    def greeting(self) -> list[str]: ...


@dataclass(slots=True)
class Figures:
    """What the summary is made of."""

    ingested: int = 0
    quarantined: int = 0
    training_rows: int = 0
    build_seconds: float = 0.0
    with_windows: float | None = None
    without_windows: float | None = None
    answered: int = 0
    rate: float = 0.0
    p50: float = 0.0
    p99: float = 0.0
    story: Story | None = None
    lost: int = 0
    doubled: int = 0
    audited: int = 0
    mismatches: int = 0
    skew_told: str = ""


def run(client: Client, platform: Platform, *, exit: bool, show: Show | None = None) -> Figures:
    """Play the demonstration to its end and print the summary. `exit` says whether the platform ends after it."""
    folder = platform.settings.state / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    demo = Demo(client, folder, SCENARIO)
    with show or Show() as shown:
        shown.line(f"Flyball: the whole loop on simulated card payments  (state in {platform.settings.state})")
        for name, act in demo.acts():
            with shown.stage(name) as stage:
                act(stage)
        demo.sum_up(shown)
        shown.line(f"console: {platform.greeting()[-1].removeprefix('console ')}")
        if not exit:
            shown.line("the platform stays up until Ctrl-C")
    return demo.figures


class Demo:
    """The acts, in order. Each may be run again on a platform that has done it already."""

    def __init__(self, client: Client, folder: Path, scenario: Scenario) -> None:
        self._client = client
        self._folder = folder
        self._scenario = scenario
        self._payments: Payments = simulate(scenario)
        self._scores = Scores(folder / "scores.csv")
        self._first_live = int(np.searchsorted(self._payments.time, scenario.live_from))
        self.figures = Figures()
        self._events = Events(client, SERVICE)
        self._resumed = self._scores.answers > 0

    def acts(self) -> list[tuple[str, Callable[[Stage], None]]]:
        return [
            ("project", self.apply),
            ("history", self.ingest),
            ("training", self.train),
            ("release", self.release),
            ("live traffic", self.replay),
            ("check", self.check),
            ("skew audit", self.audit),
        ]

    # the acts

    def apply(self, stage: Stage) -> None:
        """Write the project where a person can read and change it, and apply it."""
        path = self._folder / "project" / "project.py"
        path.parent.mkdir(exist_ok=True)
        text = importlib.resources.files("flyball.demo").joinpath("project.py").read_text()
        if not path.exists():
            path.write_text(text)
        packed = pack(path)
        done = apply(self._client, packed)
        wanted = {source.name for source in packed.spec.sources}
        self._until(lambda: wanted <= {one["name"] for one in self._client.sources()}, "ingest to take the plan", stage)
        if not self._client.versions(MODEL):
            self._asked()
        spec = packed.spec
        stage.outcome(
            f"{len(spec.sources)} sources, {len(spec.views)} views, {len(spec.models[0].features)} features, "
            f"{len(done.get('changes') or [])} changes applied from {path}"
        )

    def ingest(self, stage: Stage) -> None:
        """Load the history: labels first, so that no model is trained without them."""
        history = write_history(self._payments, self._scenario, self._folder)
        late = self._client.upload("Chargebacks", history.chargebacks, idempotency_key=_key(history.chargebacks))
        receipt = self._client.upload(
            "Payments",
            history.payments,
            idempotency_key=_key(history.payments),
            progress=lambda done, total: stage.at(done, total, "bytes sent"),
        )
        self.figures.ingested = receipt["accepted"] + late["accepted"]
        self.figures.quarantined = receipt["quarantined"] + late["quarantined"]
        reasons, warned = (
            ", ".join(f"{count} {rule}" for rule, count in sorted((receipt.get(kind) or {}).items()))
            for kind in ("reasons", "warnings")
        )
        stage.outcome(
            f"{receipt['accepted']:,} payments and {late['accepted']:,} chargebacks ingested, "
            f"{self.figures.quarantined} quarantined ({reasons}), {receipt['duplicates']} duplicates dropped; "
            f"warned: {warned or 'of nothing'}"
        )
        if (receipt["accepted"], receipt["quarantined"]) != (history.good, history.dirty):
            raise InternalError(
                f"{history.good} rows were good and {history.dirty} dirty; the platform took {receipt['accepted']} and "
                f"quarantined {receipt['quarantined']}",
                code="demo_mismatch",
            )

    def train(self, stage: Stage) -> None:
        """Wait for the first model, with what its window features are worth."""
        run = self._finished(self._asked(), stage)
        result: Data = run["result"]
        evaluation: Data = result["evaluation"]
        figures = self.figures
        figures.training_rows = int(result["rows"])
        figures.build_seconds = next(s["seconds"] for s in result["stages"] if s["stage"] == "data")
        figures.with_windows = result["metrics"]["auc"]
        figures.without_windows = ((evaluation.get("baseline") or {}).get("metrics") or {}).get("auc")
        stage.outcome(
            f"{figures.training_rows:,} rows built in {figures.build_seconds:.1f} s; held-out AUC "
            f"{_number(figures.with_windows)} with window features, {_number(figures.without_windows)} without; "
            f"registered {result['version']} ({result['digest'][:12]})"
        )

    def release(self, stage: Stage) -> None:
        """The first version is released by itself; wait until the workers serve it."""
        self._until(lambda: bool(self._service()["version"]), "the first version to serve", stage)
        service = self._service()
        stage.outcome(f"{service['version']} takes all traffic; the next ones come by canary: {_steps(service)}")

    def replay(self, stage: Stage) -> None:
        """Replay the live stream from where the platform stands."""
        stop = len(self._payments)
        start = self._accepted("Payments")
        clock = int(self._client.status()["at"])

        def look(done: int) -> None:
            stage.at(done - self._first_live, stop - self._first_live, show_time(int(self._payments.time[done - 1])))
            self._settle(stage)

        with Replay(lambda: Client(self._client.settings), self._payments, self._scenario, self._scores) as replay:
            if clock < self._scenario.ends_at:
                replay.run(start, clock, look)
            traffic = replay.traffic
        figures = self.figures
        figures.answered, figures.rate = len(self._scores), traffic.rate
        figures.p50, figures.p99 = traffic.percentile(50), traffic.percentile(99)
        stage.outcome(
            f"{figures.answered:,} payments answered; {figures.rate:,.0f} a second, p50 {figures.p50:.1f} ms, "
            f"p99 {figures.p99:.1f} ms, clock and pushes in step"
        )

    def check(self, stage: Stage) -> None:
        """Count what the platform has against what was sent; and the quality before, after and since."""
        self._until(lambda: self._logged() >= self._scores.answers, "all predictions to be collected", stage)
        sent = {"Payments": len(self._payments), "Chargebacks": self._charged_back()}
        lake = self._client.flush(list(sent))
        over = {source: int(lake[source]["rows"]) - count for source, count in sent.items()}
        again = self._logged() - self._scores.answers
        if not self._resumed:  # what was answered while Ctrl-C was pressed is logged, and was not kept here
            over["predictions"] = again
        figures = self.figures
        figures.lost = sum(max(0, -count) for count in over.values())
        figures.doubled = sum(max(0, count) for count in over.values())
        promoted = self._events.promoted_at()
        if promoted is not None and len(self._scores.versions()) > 1:
            figures.story = story(
                self._scores, self._payments, self._scenario, promoted_at=promoted, now=self._scenario.ends_at
            )
        told = figures.story
        auc = (
            "no new version was promoted"
            if told is None
            else (
                f"AUC {_number(told.before.auc)} before the shift, {_number(told.after.auc)} after it, "
                f"{_number(told.recovered.auc)} with {told.versions[1]}"
            )
        )
        stage.outcome(f"{auc}; {figures.lost} lost, {figures.doubled} doubled")

    def audit(self, stage: Stage) -> None:
        """Let the platform recompute the last sampled predictions, and take over what its report says."""
        self._until(self._audited, "the audit to end", stage)
        report = self._client.skew(SERVICE)
        figures, versions = self.figures, report["versions"]
        figures.audited = sum(version["compared"] for version in versions)
        figures.mismatches = sum(version["mismatched"] for version in versions)
        figures.skew_told = ", ".join(f"{v['version']} {v['told']}" for v in versions if v["compared"])
        sampling = report["sampling"]
        stage.outcome(
            f"{sampling['predictions']:,} predictions ({sampling['share']:.0%} of the cards) recomputed; of the last "
            f"{show_duration(report['window'])} {figures.audited:,} values compared, {figures.mismatches} differ"
        )

    def _audited(self) -> bool:
        """Whether no sampled prediction waits; a prediction is audited when it is a minute old."""
        self._client.advance_clock(int(self._client.status()["at"]) + MINUTE)
        return not self._client.skew(SERVICE)["sampling"]["waiting"]

    def sum_up(self, show: Show) -> None:
        figures = self.figures
        show.line()
        show.table("Summary", _summary(figures))
        for bar in bars(
            with_windows=figures.with_windows,
            without_windows=figures.without_windows,
            story=figures.story,
            lost=figures.lost,
            doubled=figures.doubled,
            mismatches=figures.mismatches if figures.audited else None,
        ):
            show.line(str(bar))

    # what the platform has

    def _asked(self) -> str:
        """The run with the baseline: the one that is there, or a new one."""
        runs = self._client.runs(model=MODEL)
        found = [run for run in runs if run["params"].get("baseline") and run["state"] not in ("failed", "stopped")]
        if found:
            return str(found[-1]["run"])
        asked = self._client.train(MODEL, reason="demo", params={"baseline": "without_windows"})
        return str(asked["run"])

    def _finished(self, run: str, stage: Stage) -> Data:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self._client.run(run)
            if found["state"] == "succeeded":
                return found
            if found["state"] in ("failed", "stopped"):
                error = found.get("error") or {}
                raise InternalError(
                    f"the run {run} {found['state']}: {error.get('message', '')}", code="demo_run_failed",
                    hint=f"flyball logs {run}",
                )  # fmt: skip
            stages = (found.get("progress") or {}).get("stages") or []
            stage.at(len(stages), 5, stages[-1]["stage"] if stages else found["state"])
            time.sleep(LOOK)
        raise LateError(
            f"the run {run} did not end within {PATIENCE:g} s", code="demo_late", hint=f"flyball logs {run}"
        )

    def _settle(self, stage: Stage) -> None:
        """Tell what happened, and let a training run end before domain time goes on."""
        for line in self._events.news():
            stage.tell(line)
        if self._events.busy():
            self._until(lambda: not self._events.busy(), "the training run to end", stage)
            for line in self._events.news():
                stage.tell(line)

    def _until(self, done: Callable[[], bool], what: str, stage: Stage) -> None:
        deadline = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > deadline:
                raise LateError(f"waited {PATIENCE:g} s for {what}", code="demo_late", hint="flyball status")
            time.sleep(LOOK)

    def _service(self) -> Data:
        return self._client.service(SERVICE)

    def _accepted(self, source: str) -> int:
        """Accepted events of a source, all time: durable, so it says how far a replay came."""
        return int(next(one["rows"] for one in self._client.sources() if one["name"] == source))

    def _charged_back(self) -> int:
        """Chargebacks of history and live stream that had arrived by its end."""
        arrived = self._payments.charged_back
        return int(np.sum((arrived > 0) & (arrived <= self._scenario.ends_at)))

    def _logged(self) -> int:
        services = self._client.status()["services"]
        return int(next(one["requests"] for one in services if one["name"] == SERVICE))


def _key(path: Path) -> str:
    """The same file is stored once, however often a demonstration is begun again."""
    return f"demo-{digest(path.read_bytes())[:32]}"


def _steps(service: Data) -> str:
    steps = service["spec"]["rollout"]["steps"]
    return ", ".join(f"{step:g} %" for step in steps)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _quality(quality: Quality | None) -> str:
    return (
        "none" if quality is None else f"{_number(quality.auc)}  ({quality.rows:,} payments, {quality.frauds} frauds)"
    )


def _summary(figures: Figures) -> list[tuple[str, str]]:
    told = figures.story
    return [
        ("rows ingested, quarantined", f"{figures.ingested:,}, {figures.quarantined}"),
        ("training set", f"{figures.training_rows:,} rows, built in {figures.build_seconds:.1f} s"),
        ("held-out AUC with window features", _number(figures.with_windows)),
        ("held-out AUC without", _number(figures.without_windows)),
        ("live requests", f"{figures.answered:,} at {figures.rate:,.0f}/s"),
        ("latency p50, p99", f"{figures.p50:.1f} ms, {figures.p99:.1f} ms"),
        ("AUC before the shift", _quality(told.before if told else None)),
        ("AUC after the shift", _quality(told.after if told else None)),
        ("AUC after recovery", _quality(told.recovered if told else None)),
        ("lost, doubled", f"{figures.lost}, {figures.doubled}"),
        ("served values audited, mismatches", f"{figures.audited:,}, {figures.mismatches}"),
        ("rate of mismatches", figures.skew_told or "nothing was audited"),
    ]
