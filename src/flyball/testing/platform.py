"""The platform in one process: the cores of control, ingest and a worker around one state directory and one clock."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from flyball.client.project import Packed, pack
from flyball.client.rows import Named, name_of, records
from flyball.define.model import Model
from flyball.define.project import Project
from flyball.kernel.clock import ManualClock
from flyball.kernel.errors import InvalidError, from_data
from flyball.kernel.facts import Actor
from flyball.kernel.layout import Layout
from flyball.kernel.settings import Settings
from flyball.kernel.times import duration, parse_time
from flyball.loop.plans import FORMATS
from flyball.loop.ports import SourceHorizon
from flyball.platform.picture import picture
from flyball.platform.plans import PlanFollower
from flyball.platform.wiring import open_control, open_ingest
from flyball.storage.online import MemoryStore
from flyball.testing.engine import InlineEngine
from flyball.testing.worker import open_worker

Data = dict[str, Any]
Place = str | Named | type
TEST = Actor(name="test")
ROUNDS = 20  # of the loops, at most, until nothing follows from anything any more


def platform(project: Project | str | Path, *, at: str | int | datetime) -> TestPlatform:
    """The whole platform for a project, at a domain time that only the test moves; to be used in a `with`.

    Nothing runs in the background: what follows from a call has happened when it returns.
    """
    return TestPlatform(project, at=parse_time(at))


class TestPlatform:
    """See `platform`. Errors are `FlyballError`s; what the user's own functions raise comes through as it is."""

    __test__ = False  # a platform for tests, not a test

    def __init__(self, project: Project | str | Path, *, at: int) -> None:
        self.clock = ManualClock(at)
        self._project = project

    def __enter__(self) -> TestPlatform:
        self._folder = Path(tempfile.mkdtemp(prefix="flyball-test-"))
        try:
            self._open(self._folder)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _open(self, folder: Path) -> None:
        settings, layout = Settings(state=folder), Layout(folder)
        layout.create()
        store = MemoryStore()
        self._ingest = open_ingest(settings, clock=self.clock, store=store)
        self._engine = InlineEngine(functions_of(self._project))
        self._control = open_control(
            settings, clock=self.clock, ingest=InProcess(self), engine=self._engine, store=store
        )
        self._worker, self._log = open_worker(layout, self.clock, store)
        self._followers = [
            PlanFollower(path, FORMATS[kind], take=take, acknowledgement=layout.acknowledgements / ack)
            for kind, path, take, ack in (
                ("ingest", layout.ingest_plan, self._ingest.load_plan, "ingest.json"),
                ("serving", layout.serving_plan, self._worker.load_plan, "worker-0.json"),
            )
        ]
        self.apply(self._project)

    # the project

    def apply(self, project: Project | str | Path) -> Data:
        """Apply a project, or a changed one; gives the plan that was applied."""
        packed: Packed = pack(project)
        for data in packed.artifacts.values():
            self._control.put_artifact(data)
        plan = self._control.plan(packed.spec)
        self._control.apply(packed.spec, base=str(plan.get("base", "")), actor=TEST)
        self.tick()
        return plan

    # data

    def push(self, source: Place, rows: Any) -> Data:
        """Push live events, known from now on; gives the receipt."""
        receipt = self._ingest.append(name_of(source), records(rows)).to_data()
        self._settle()
        return dict(receipt)

    def load(self, source: Place, data: Any) -> Data:
        """Load history: a path (csv, parquet, jsonl), or rows."""
        if isinstance(data, str | Path):
            receipt = self._ingest.append_file(name_of(source), Path(data)).to_data()
        else:
            receipt = self._ingest.append(name_of(source), records(data), live=False).to_data()
        self._settle()
        return dict(receipt)

    def pull(self, source: Place) -> Data:
        """Pull a source from its origin; gives the receipt of what was new. Nothing is pulled by itself."""
        receipt = self._ingest.pull(name_of(source)).to_data()
        self._settle()
        return dict(receipt)

    def feedback(self, items: Sequence[Data] | Data) -> Data:
        """Late labels: `{"prediction_id": …, "label": …}`."""
        receipt = self._ingest.feedback(records(items)).to_data()
        self._settle()
        return dict(receipt)

    def quarantine(self, source: Place) -> list[Data]:
        """Rows that broke their contract, with the reasons."""
        return list(self._ingest.quarantine(name_of(source))["rows"])

    def retry(self, source: Place, *, rule: str = "") -> Data:
        """Take quarantined rows that the contract of now accepts, each once."""
        done = self._ingest.retry(name_of(source), rule=rule)
        self._ingest.apply()
        return done

    # models and services

    def train(self, model: Place | Model, **params: Any) -> Data:
        """Train here and now; gives the version that was registered. A failed run raises what its code raised."""
        name = name_of(cast(Any, model))
        run = str(self._control.train(name, actor=TEST, reason="test", params=params)["run"])
        self.tick()
        record = self._control.run(run)
        if record["state"] == "failed":
            raise self._engine.failure or from_data(record["error"] or {})
        if record["state"] != "succeeded":
            raise InvalidError(
                f"the run did not end: it is {record['state']}; {record.get('not_yet') or ''}",
                code="run_not_finished",
                hint="load the rows that the model trains on, and move the clock past their labels' maturity",
            )
        return next(version for version in self.versions(name) if version["run"] == run)

    def versions(self, model: Place | Model) -> list[Data]:
        return list(self._control.versions(name_of(cast(Any, model)))["versions"])

    def release(self, service: Place, version: int | str) -> Data:
        released = self._control.release(name_of(service), version=version, actor=TEST)
        self.tick()
        return released

    def rollback(self, service: Place) -> Data:
        rolled = self._control.rollback(name_of(service), actor=TEST)
        self.tick()
        return rolled

    def approve(self, service: Place, version: int | str) -> Data:
        approved = self._control.approve(name_of(service), version=version, actor=TEST)
        self.tick()
        return approved

    def predict(
        self, service: Place, rows: Any = None, *, at: str | int | datetime | None = None, **fields: Any
    ) -> Any:
        """One reply for a row given as fields; a list of replies for rows."""
        moment = None if at is None else parse_time(at)
        if rows is not None:
            return self._worker.predict(name_of(service), records(rows), at=moment)
        (reply,) = self._worker.predict(name_of(service), [fields], at=moment)
        if "error" in reply:
            raise from_data(reply["error"])
        return reply

    # time

    def advance(self, by: str | int | timedelta) -> Data:
        """Move domain time forward, and let everything happen that is due by then."""
        self.clock.advance_to(self.clock.now() + duration(by))
        return self.tick()

    def tick(self) -> Data:
        """Let the loops turn until nothing follows any more; what the last turn did."""
        before: tuple[Any, ...] = ()
        done: Data = {}
        for _ in range(ROUNDS):
            self._follow()
            done = self._control.tick()
            self._follow()
            self._settle()
            now = self._fingerprint()
            if now == before:
                break
            before = now
        return done

    def _settle(self) -> None:
        """Let everything follow from what is in the log: online state, and derived sources step by step."""
        while self._ingest.apply():
            pass

    def _follow(self) -> None:
        for follower in self._followers:
            if follower.step() and follower.error:
                raise InvalidError(f"a plan was refused: {follower.error}", code="plan_refused")

    def _fingerprint(self) -> tuple[Any, ...]:
        """What changes while something still follows: the newest facts, the plans, what was collected."""
        status = self._control.status()
        facts = [fact["id"] for fact in self._control.facts(limit=20)]
        return (facts, status["plans"], status["predictions"], [run["state"] for run in status["runs"]])

    def erase(self, source: Place, **value: Any) -> Data:
        """Erase all of one value of a column, such as `erase(Payments, card="4111")`; gives the erasure, done."""
        ((column, text),) = value.items()
        found = self._control.erase(name_of(source), column, str(text), actor=TEST)
        self.tick()
        return self._control.erasure(found["erasure"])

    # looking

    def status(self) -> Data:
        return picture(self._control) | {"sources": self._ingest.status()["sources"]}

    def facts(self, *, subject: str = "", kind: str = "", limit: int = 100) -> list[Data]:
        """What changed the platform, newest first."""
        return self._control.facts(subject=subject, kind=kind, limit=limit)

    def service(self, service: Place) -> Data:
        return self._control.service(name_of(service))

    def quality(self, service: Place) -> Data:
        return self._control.quality(name_of(service))

    def drift(self, service: Place) -> Data:
        return self._control.drift(name_of(service))

    def prediction(self, prediction: str) -> Data:
        """The receipt of a prediction."""
        self.tick()
        return self._control.prediction(prediction)


class InProcess:
    """`loop.ports.IngestClient` for a core in the same process."""

    def __init__(self, owner: TestPlatform) -> None:
        self._owner = owner

    def flush(self, sources: Sequence[str]) -> dict[str, SourceHorizon]:
        return dict(self._owner._ingest.flush(list(sources)))

    def count_erased(self, source: str, column: str, digests: Sequence[str]) -> Data:
        return self._owner._ingest.count_erased(source, column, digests)

    def erase(self, source: str, column: str, digests: Sequence[str], *, entity: bytes | None) -> None:
        self._owner._ingest.erase(source, column, digests, entity=entity)

    def sizes(self) -> dict[str, int]:
        return {str(source["name"]): int(source["rows"]) for source in self._owner._ingest.status()["sources"]}


def functions_of(project: Project | str | Path) -> dict[str, Any]:
    """The training functions of a declared project, so that breakpoints in the user's own file hold."""
    if not isinstance(project, Project):
        return {}
    used = [service.model for service in project.services] + [batch.model for batch in project.batches]
    return {model.name: model.function for model in used if isinstance(model, Model)}
