"""Settings → wired cores. The only file of control and ingest that names concrete adapters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from flyball.client import Client
from flyball.define.metrics import metrics_of
from flyball.define.spec import SourceSpec, ViewSpec
from flyball.engines.local import LocalEngine
from flyball.engines.runtimes import open_runtime
from flyball.features.build import Builds
from flyball.features.derive import SourceDeriver
from flyball.features.explain import HIDDEN, shown
from flyball.features.keys import encode_keys
from flyball.features.online import OnlineReader
from flyball.features.ports import OnlineStore
from flyball.features.request import request_vectors
from flyball.features.views import CompiledView
from flyball.features.writer import OnlineWriter
from flyball.ingest.committing import Horizon
from flyball.ingest.erasing import Eraser
from flyball.ingest.service import Ingest
from flyball.kernel.clock import Clock
from flyball.kernel.errors import FlyballError, NotFoundError, UnavailableError
from flyball.kernel.files import read_document, write_document
from flyball.kernel.layout import Layout
from flyball.kernel.settings import ClientSettings, Settings
from flyball.loop.audit import AuditRule, Audits
from flyball.loop.control import Adapters, Control
from flyball.loop.packages import VersionPackages
from flyball.loop.plans import PlanFiles
from flyball.loop.ports import IngestClient, SourceHorizon
from flyball.loop.watch import Readers
from flyball.platform.conditions import conditions
from flyball.platform.state import ensure_token, open_clock, tokens
from flyball.registry.versions import read as read_version
from flyball.serving.log import PredictionReader
from flyball.serving.manifest import manifest_from_data
from flyball.serving.privacy import pii_digest, pii_key
from flyball.storage.artifacts import LocalArtifacts
from flyball.storage.event_log import SqliteEventLog
from flyball.storage.following import FollowingStore, open_writable
from flyball.storage.history import LakeHistory
from flyball.storage.lake import DeltaLake
from flyball.storage.lake_erasure import LakeErasure
from flyball.storage.log_erasure import LogErasure
from flyball.storage.metadata.database import open_database
from flyball.storage.metadata.migrations import migrate
from flyball.storage.metadata.unit import SqlMetadata
from flyball.storage.predictions import LakeLabels, LakePredictions, evaluate_events
from flyball.storage.sql import SqlDatabase
from flyball.training.ports import Engine

BUILDS = "flyball.builds"
KEPT_BUILDS = 20
Matrix = npt.NDArray[np.float64]
PREDICTIONS = "predictions"  # the lake's table of what was answered


class AppliedEvents:
    """What was applied, as the online writer reads it back to build new views: the ingest core, which is made after."""

    def __init__(self) -> None:
        self.ingest: Ingest | None = None

    def events(self, source: str, columns: Sequence[str] | None, *, through_lsn: int | None) -> pl.DataFrame:
        if self.ingest is None:
            raise UnavailableError("ingest is still starting", code="starting")
        return self.ingest.events(source, columns, through_lsn=through_lsn)

    def span(self, source: str, columns: Iterable[str], *, after_lsn: int, through_lsn: int) -> pl.DataFrame:
        if self.ingest is None:
            raise UnavailableError("ingest is still starting", code="starting")
        return self.ingest.span(source, columns, after_lsn=after_lsn, through_lsn=through_lsn)


class BuildNotes:
    """What is being built, and what earlier builds took: kept in one file, which control reads."""

    def __init__(self, layout: Layout) -> None:
        self._path = layout.builds

    def __call__(self, said: dict[str, Any]) -> None:
        measured = self.read()["measured"]
        if said["measured"] is not None:
            measured = [*measured, said["measured"]][-KEPT_BUILDS:]
        write_document(self._path, BUILDS, {"running": said["running"], "measured": measured})

    def read(self) -> dict[str, Any]:
        """`{"running": […], "measured": […]}`, the newest last."""
        try:
            return read_document(self._path, BUILDS)
        except (FileNotFoundError, FlyballError):
            return {"running": [], "measured": []}


def open_ingest(
    settings: Settings,
    *,
    clock: Clock | None = None,
    store: OnlineStore | None = None,
    at: Callable[[str], None] = lambda step: None,
) -> Ingest:
    """The ingest core of a state directory; its process is the only writer of log, online state and source tables.
    `at` is called before each step of an erasure, and is where tests crash."""
    layout = Layout(settings.state)
    time = clock or open_clock(layout)
    applied = AppliedEvents()
    log, lake = SqliteEventLog(layout.event_log), DeltaLake(layout.lake)
    online = store or open_writable(layout.online)
    lost = online.needs_rebuild() and any(total.last_lsn for total in log.totals().values())
    notes = BuildNotes(layout)
    writer = OnlineWriter(online, time, applied, builds=Builds(store=online, ranges=applied, note=notes))
    if lost:
        writer.conceal()
    notes({"running": [], "measured": None})  # of an earlier process: what goes on is told again
    key = pii_key(layout.predictions)
    eraser = Eraser(
        log=LogErasure(log),
        lake=LakeErasure(lake),
        state=writer,
        seal=lambda value: pii_digest(key, value),
        scrub=getattr(online, "compact", lambda: None),
        at=at,
    )
    ingest = Ingest(
        log=log,
        lake=lake,
        applier=writer,
        clock=time,
        conditions=conditions,
        database=SqlDatabase(),
        deriver=SourceDeriver(),
        eraser=eraser,
        retention_notes=layout.retention,
    )
    applied.ingest = ingest
    return ingest


def open_control(
    settings: Settings,
    *,
    clock: Clock | None = None,
    ingest: IngestClient | None = None,
    engine: Engine | None = None,
    audit: AuditRule | None = None,
    store: OnlineStore | None = None,
) -> Control:
    """The control core of a state directory, its database brought up to date and its plans published."""
    layout = Layout(settings.state)
    database = open_database(layout.metadata)
    migrate(database)
    lake, artifacts = DeltaLake(layout.lake), LocalArtifacts(layout.artifacts)
    key, time = pii_key(layout.predictions), clock or open_clock(layout)
    control = Control(
        Adapters(
            metadata=SqlMetadata(database),
            artifacts=artifacts,
            packages=VersionPackages(layout.artifacts / "versions", artifacts),
            engine=engine or LocalEngine(),
            ingest=ingest or OtherProcesses(layout),
            plans=PlanFiles(layout),
            log=PredictionReader(layout.predictions),
            lake=lake,
            readers=Readers(
                predictions=LakePredictions(lake),
                labels=LakeLabels(lake),
                evaluate=evaluate_events,
                metrics=metrics_of,
                seal=lambda value: pii_digest(key, value),
            ),
            clock=time,
            runs=layout.runs,
            audits=Audits(
                history=LakeHistory(lake, time.now),
                seal=lambda value: pii_digest(key, value),
                score=scores(layout.artifacts / "versions"),
                rule=audit or AuditRule(share=settings.audit_share),
                online=OnlineValues(lambda: store or FollowingStore(layout.online)),
                lake=str(layout.lake.resolve()),
            ),
            measured=lambda: list(BuildNotes(layout).read()["measured"]),
            tokens=lambda: tokens(layout),
            erasable=LakeErasure(lake, alone=False),
            predictions=LakeErasure(lake),
        )
    )
    control.start()
    return control


def scores(versions: Path) -> Callable[[str], Callable[[Matrix], Matrix] | None]:
    """Models for the audit: those that are data alone. Control runs no code of a user's, so others give None."""

    def open_score(digest: str) -> Callable[[Matrix], Matrix] | None:
        folder = versions / digest
        manifest = manifest_from_data(read_version(folder).manifest)
        if manifest.kind not in ("trees", "onnx"):
            return None
        try:
            return open_runtime(manifest.kind, folder, manifest).predict
        except (FlyballError, ImportError):
            return None

    return open_score


class OnlineValues:
    """What online state says of a feature: read as workers read it. The store is opened when it is first asked."""

    def __init__(self, open_store: Callable[[], OnlineStore]) -> None:
        self._open = open_store
        self._store: OnlineStore | None = None

    def __call__(
        self, view: ViewSpec, source: SourceSpec, feature: str, entity: Mapping[str, Any], at: int
    ) -> dict[str, Any]:
        """`value`, `exact` and `lsn`; `error` where it cannot say."""
        compiled = CompiledView(view, source)
        values, errors = request_vectors(compiled.entity, [entity])
        if errors:
            return {"error": errors[0].message}
        try:
            self._store = self._store or self._open()
            keys = encode_keys([values[column.name] for column in compiled.entity], compiled.entity, 1)
            answer = OnlineReader(self._store).read(compiled, keys, at)
        except FlyballError as error:
            return {"error": error.message}
        at_feature = view.features.index(feature)
        value = float(answer.values[0, at_feature]) if answer.valid[0, at_feature] else None
        categories, pii = (
            compiled.feature_types[at_feature][2],
            any(column.pii for column in shown(view, source, feature)),
        )
        said: Any = categories[int(value)] if categories and value is not None else value
        return {"value": HIDDEN if pii else said, "exact": bool(answer.exact[0]), "lsn": answer.lsn}


class PredictionCounts:
    """How many predictions of each service are in the lake; counted again when the table has grown."""

    def __init__(self, layout: Layout) -> None:
        self._lake = DeltaLake(layout.lake)
        self._at = -1
        self._counts: dict[str, int] = {}

    def __call__(self) -> dict[str, int]:
        at = self._lake.table_version(PREDICTIONS)
        if at != self._at:
            found = self._lake.scan(PREDICTIONS).group_by("service").len().collect()
            self._counts, self._at = dict(found.iter_rows()), at
        return self._counts


class OtherProcesses:
    """Ingest (as `loop.ports.IngestClient`) and the workers, at the addresses that the supervisor wrote."""

    def __init__(self, layout: Layout, *, connect: Callable[[ClientSettings], Client] = Client) -> None:
        self._layout = layout
        self._connect = connect
        self._client: Client | None = None
        self._url = ""

    def flush(self, sources: Sequence[str]) -> dict[str, SourceHorizon]:
        try:
            horizons = self._ask().flush(list(sources))
        except NotFoundError as error:
            raise UnavailableError(f"ingest has not taken the newest plan yet: {error.message}", code="plan_not_taken")
        return {name: Horizon(**found) for name, found in horizons.items()}

    def count_erased(self, source: str, column: str, digests: Sequence[str]) -> dict[str, Any]:
        return self._ask().erase_rows(source, column, digests, dry_run=True)

    def erase(self, source: str, column: str, digests: Sequence[str], *, entity: bytes | None) -> None:
        self._ask().erase_rows(source, column, digests, entity=entity)

    def sizes(self) -> dict[str, int]:
        return {str(source["name"]): int(source["rows"]) for source in self.sources()}

    def sources(self) -> list[dict[str, Any]]:
        """The status of each source."""
        return self._ask().sources()

    def metrics(self) -> str:
        """The metrics of one worker."""
        return self._ask().inference_metrics()

    def _ask(self) -> Client:
        try:
            urls = read_document(self._layout.endpoints, "flyball.endpoints")
        except FileNotFoundError:
            raise UnavailableError("the platform is still starting", code="starting") from None
        if self._client is None or self._url != urls["ingest"]:
            self._url = str(urls["ingest"])
            settings = ClientSettings(url=str(urls["control"]), token=ensure_token(self._layout))
            self._client = self._connect(settings)
            self._client.known_endpoints(urls)
        return self._client
