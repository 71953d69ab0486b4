"""Where things lie in a state directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flyball.kernel.errors import ConflictError
from flyball.kernel.files import FORMAT_VERSION, read_document, write_document


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below one state directory. Which process writes what:

    control: token, metadata, artifacts, runs, plan, endpoints; ingest: log, online, lake/SOURCE;
    workers: predictions/SLOT, metrics/SLOT.bin, plan/ack; the collector in control: lake/predictions.
    """

    root: Path

    @property
    def format(self) -> Path:
        return self.root / "format.json"

    @property
    def token(self) -> Path:
        return self.root / "token"

    @property
    def clock(self) -> Path:
        return self.root / "clock"

    @property
    def endpoints(self) -> Path:
        return self.root / "endpoints.json"

    @property
    def metadata(self) -> Path:
        return self.root / "metadata.sqlite"

    @property
    def event_log(self) -> Path:
        return self.root / "log"

    @property
    def online(self) -> Path:
        return self.root / "online"

    @property
    def builds(self) -> Path:
        """What views are being built, and what earlier builds took."""
        return self.root / "builds.json"

    @property
    def retention(self) -> Path:
        """How long each source keeps its rows, as it last declared it."""
        return self.root / "retention.json"

    @property
    def lake(self) -> Path:
        return self.root / "lake"

    @property
    def plan(self) -> Path:
        return self.root / "plan"

    @property
    def ingest_plan(self) -> Path:
        return self.plan / "ingest.json"

    @property
    def serving_plan(self) -> Path:
        return self.plan / "serving.json"

    @property
    def acknowledgements(self) -> Path:
        return self.plan / "ack"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def predictions(self) -> Path:
        return self.root / "predictions"

    @property
    def metrics(self) -> Path:
        """A file of counts a worker."""
        return self.root / "metrics"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def lock(self, process: str) -> Path:
        return self.root / f"{process}.lock"

    def create(self) -> None:
        """Make the directory, or check that this version can read the one that is there."""
        if self.format.exists():
            version = int(read_document(self.format, "flyball.state").get("state_version", 0))
            if version > FORMAT_VERSION:
                raise ConflictError(
                    f"the state directory {self.root} has version {version}; this Flyball reads up to {FORMAT_VERSION}",
                    code="newer_state",
                    hint="install the version of Flyball that wrote it, or use another directory with --state DIR",
                )
            return
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for folder in (
            self.event_log,
            self.online,
            self.lake,
            self.acknowledgements,
            self.artifacts,
            self.runs,
            self.predictions,
            self.logs,
        ):
            folder.mkdir(parents=True, exist_ok=True)
        write_document(self.format, "flyball.state", {"state_version": FORMAT_VERSION})
