"""Control with everything around it in memory, driven by a clock that the test moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from flyball.define.metrics import metrics_of
from flyball.define.spec import (
    BatchSpec,
    ColumnSpec,
    FeatureSpec,
    LabelSpec,
    ModelSpec,
    ProjectSpec,
    RetrainSpec,
    RolloutSpec,
    ServiceSpec,
    SourceSpec,
    TaskSpec,
    TriggerSpec,
)
from flyball.kernel.clock import ManualClock
from flyball.kernel.facts import Actor
from flyball.kernel.times import DAY, HOUR, MINUTE
from flyball.loop.audit import Audits
from flyball.loop.control import Adapters, Control
from flyball.loop.packages import VersionPackages
from flyball.loop.watch import Readers
from flyball.monitoring.quality import QualityRule
from flyball.storage.history import LakeHistory
from flyball.storage.metadata.unit import SqlMetadata
from flyball.storage.predictions import LakeLabels, LakePredictions, evaluate_events
from tests.loop.fakes import FakeArtifacts, FakeEngine, FakeIngest, FakeLake, FakeLog, FakePlans, record

ANN = Actor(name="ann", request_id="req_1")
START = 100 * DAY

TRIPS = SourceSpec(
    name="Trips",
    columns=(
        ColumnSpec(name="id", type="string"),
        ColumnSpec(name="fare", type="float"),
        ColumnSpec(name="tips", type="float"),
    ),
    event_time="at",
    key=("id",),
)
TIP = ModelSpec(
    name="tip",
    task=TaskSpec(kind="binary"),
    rows="Trips",
    label=LabelSpec(expr=["gt", ["col", "Trips", "tips"], ["lit", 1.0]], matures=HOUR),
    features=(FeatureSpec(name="fare", expr=["col", "Trips", "fare"]),),
    module="taxi",
    function="tip",
)
CANARY = RolloutSpec(kind="canary", steps=(5, 50, 100), hold=10 * MINUTE, min_requests=20)
RETRAIN = RetrainSpec(
    on=(TriggerSpec(kind="drift"), TriggerSpec(kind="quality_drop", metric="auc", drop=0.05)), cooldown=6 * HOUR
)


def project(**changes: Any) -> ProjectSpec:
    """The project `taxi`; `changes` are those of its service."""
    service = ServiceSpec(name="tip", model="tip", rollout=CANARY, retrain=RETRAIN)
    service = msgspec.structs.replace(service, **changes)
    return ProjectSpec(name="taxi", sources=(TRIPS,), models=(TIP,), services=(service,))


NIGHTLY = BatchSpec(name="nightly", model="tip", rows="Trips", every=DAY, output="scores")


class Platform:
    """A `Control` and all that it is wired with."""

    def __init__(self, metadata: SqlMetadata, folder: Path) -> None:
        self.folder = folder
        self.metadata = metadata
        self.clock = ManualClock(START)
        self.engine, self.ingest, self.plans = FakeEngine(), FakeIngest(), FakePlans()
        self.log, self.lake, self.artifacts = FakeLog(), FakeLake(), FakeArtifacts()
        self.ingest.rows["Trips"] = 5_000
        self.sent = 0
        self.control = self.restart()

    def restart(self) -> Control:
        """Another process on the same state."""
        readers = Readers(
            predictions=LakePredictions(self.lake),
            labels=LakeLabels(self.lake),
            evaluate=evaluate_events,
            metrics=metrics_of,
            seal=lambda value: f"pii:{value}",
        )
        self.control = Control(
            Adapters(
                metadata=self.metadata,
                artifacts=self.artifacts,
                packages=VersionPackages(self.folder / "versions", self.artifacts),
                engine=self.engine,
                ingest=self.ingest,
                plans=self.plans,
                log=self.log,
                lake=self.lake,
                readers=readers,
                clock=self.clock,
                runs=self.folder / "runs",
                erasable=self.lake,
                predictions=self.lake,
                audits=Audits(history=LakeHistory(self.lake, self.clock.now), seal=lambda value: f"pii:{value}"),
                quality=QualityRule(min_labels=100),
            )
        )
        self.control.start()
        return self.control

    def advance(self, by: int) -> dict[str, Any]:
        self.clock.advance_to(self.clock.now() + by)
        return self.control.tick()

    def apply(self, spec: ProjectSpec) -> dict[str, Any]:
        return self.control.apply(spec, base=self.control.plan(spec)["base"], actor=ANN)

    def train(self, **ended: Any) -> str:
        """Let the run that waits run to its end; its id."""
        self.control.tick()
        run = self.engine.launched[-1]
        self.engine.finish(self.folder / "runs" / run, **ended)
        self.control.tick()
        return run

    def settle(self) -> None:
        """Ticks until the workers' acknowledgements are seen."""
        for _ in range(3):
            self.control.tick()

    def first_version(self, auc: float = 0.9) -> None:
        self.apply(project())
        self.train(auc=auc)
        self.settle()

    def traffic(self, count: int, *, failing: str = "", fare: float | None = None, good: bool = True) -> None:
        """Predictions by the routes as they are published, their events, and their labels."""
        routes = self.plans.published["serving"]["services"]["tip"]["routes"]
        rows = []
        for n in range(count):
            place = n * 10_000 // count
            for route in routes:
                place -= route["weight"]
                if place < 0:
                    break
            self.sent += 1
            positive = self.sent % 2 == 0
            score = (0.9 if positive else 0.1) if good else (0.1 if positive else 0.9)
            served = 10.0 * (n * 37 % count) / count if fare is None else fare  # spread over the routes
            broken = route["version"] == failing
            rows.append(
                record(
                    self.sent,
                    version=route["version"],
                    arm=route["arm"],
                    propensity=route["weight"] / 10_000,
                    at=self.clock.now(),
                    features={"fare": served},
                    key={"id": str(self.sent)},
                    output={"prediction": score > 0.5, "score": score},
                    rung="default" if broken else "model",
                    error="the model raised" if broken else None,
                )
            )
        self.log.write("0", "00000001.log", *rows)
        self._events(rows)

    def _events(self, rows: list[dict[str, Any]]) -> None:
        times = [row["at"] for row in rows]
        frame = pl.DataFrame(
            {
                "id": [row["key"]["id"] for row in rows],
                "fare": [row["features"]["fare"] for row in rows],
                "tips": [2.0 if int(row["key"]["id"]) % 2 == 0 else 0.0 for row in rows],
                "_event_time": times,
                "_known_at": times,
                "_lsn": [int(row["key"]["id"]) for row in rows],
            }
        )
        self.lake.append("Trips", frame, app_id="ingest", version=self.sent)

    def kinds(self, subject: str = "service:tip") -> list[str]:
        """The kinds of facts about a subject, the oldest first."""
        return [fact["kind"] for fact in self.control.facts(subject=subject)][::-1]
