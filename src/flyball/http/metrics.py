"""The metrics of all workers of a state directory, from whichever of them is asked."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball.http import exposition
from flyball.http.exposition import CONTENT_TYPE
from flyball.kernel.errors import FlyballError
from flyball.serving.board import Board, WorkerState
from flyball.serving.cells import CellFile, Key, read_cells
from flyball.serving.counting import FAMILIES, Counters, Family, is_of_version

logger = logging.getLogger(__name__)

__all__ = ["CONTENT_TYPE", "GAUGES", "Gauge", "InferenceMetrics"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauge:
    """A value of the moment, as (labels, value) samples."""

    name: str
    text: str
    kind: str = "gauge"


GAUGES = {
    gauge.name: gauge
    for gauge in (
        Gauge(name="flyball_plan_epoch", text="The serving plan that a worker runs."),
        Gauge(name="flyball_services", text="Services of the serving plan."),
        Gauge(name="flyball_workers_wanted", text="Workers that there are to be, within the bounds."),
        Gauge(name="flyball_workers_demand", text="Workers that the load needs, without bounds: for outside scalers."),
        Gauge(name="flyball_workers_ready", text="Workers that serve a plan."),
        Gauge(name="flyball_workers", text="Workers by state: starting, ready, draining."),
        Gauge(name="flyball_worker_restarts_total", text="Workers that died and were started again.", kind="counter"),
        Gauge(name="flyball_worker_busy_seconds_total", text="Processor time of a worker.", kind="counter"),
        Gauge(name="flyball_worker_load_seconds", text="From a worker's fork to its readiness, of its last start."),
        Gauge(name="flyball_worker_connections", text="Open connections of a worker."),
        Gauge(name="flyball_in_flight", text="Received and not answered yet, of a worker."),
    )
}
Samples = dict[str, Iterable[tuple[Mapping[str, str], float]]]


class InferenceMetrics:
    """A worker's counters, and the sum over all workers as text.

    Args:
        folder: where each worker has its file of counts. None: this worker counts alone, in memory.
        slot: this worker's name, such as `worker-0`.
        board: what all workers are doing, and which of them live; None where there is one.
    """

    def __init__(self, folder: Path | None = None, slot: str = "worker-0", *, board: Board | None = None) -> None:
        self._folder = folder
        self._slot = slot
        self._board = board
        self._file = CellFile(None if folder is None else folder / f"{slot}.bin")
        self._told: set[str] = set()
        self.counters = Counters(self._file)

    def keep(self, served: Iterable[tuple[str, str]]) -> None:
        """Show only these (service, version), those of the plan: see `Counters.keep`."""
        self.counters.keep(served)

    def close(self) -> None:
        """Let go of the file, with no gauges left in it."""
        self.counters.rest()
        self._file.close()

    def refused(self, code: str) -> None:
        """A request that did not get to a version."""
        self.counters.refused(code)

    # all workers

    def render(self, gauges: Mapping[str, float] | None = None) -> bytes:
        """The counts of all workers, what the board shows of them, and the given gauges, as text."""
        lines: list[str] = []
        found = self.sums()
        for family in FAMILIES.values():
            series = sorted((key, cells) for key, cells in found.items() if key[0] == family.name)
            if series:
                kind = "gauge" if family.kind == "latest" else family.kind
                lines += exposition.head(family.name, kind, family.text)
            for key, cells in series:
                lines += self._series(family, key, cells)
        values: Samples = {name: [({}, value)] for name, value in (gauges or {}).items()}
        if self._board is not None:
            values |= board_samples(self._board)
        for name, shown in values.items():
            gauge = GAUGES[name]
            lines += exposition.head(name, gauge.kind, gauge.text)
            lines += [exposition.sample(name, labels, value) for labels, value in shown]
        return exposition.text(lines)

    def _series(self, family: Family, key: Key, cells: Sequence[float]) -> Iterable[str]:
        labels = dict(zip(family.labels, key[1:], strict=True))
        if family.bounds:
            return exposition.histogram(family.name, labels, family.bounds, cells)
        return [exposition.sample(family.name, labels, cells[0])]

    def sums(self) -> dict[Key, list[float]]:
        """The counts of all workers, of the versions that this one serves."""
        live = None if self._board is None else {f"worker-{number}" for number, _ in self._board.live()}
        found = {key: cells for key, cells in self._file.values() if self._is_shown(key, cells)}
        for slot, cells_of in self._others():
            counts_gauges = live is None or slot in live
            for key, cells in cells_of.items():
                if not self._is_shown(key, cells) or (FAMILIES[key[0]].kind == "gauge" and not counts_gauges):
                    continue
                ours = found.get(key)
                if ours is not None:
                    latest = FAMILIES[key[0]].kind == "latest"
                    cells = [max(a, b) if latest else a + b for a, b in zip(ours, cells, strict=True)]
                found[key] = cells
        return found

    def _is_shown(self, key: Key, cells: Sequence[float]) -> bool:
        """Whether this version of Flyball knows the series, and the version of the model is served."""
        family = FAMILIES.get(key[0])
        if family is None or len(key) != len(family.labels) + 1 or len(cells) != family.cells:
            return False
        shown = self.counters.shown
        return shown is None or not is_of_version(key) or (key[1], key[2]) in shown

    def _others(self) -> Iterable[tuple[str, dict[Key, list[float]]]]:
        if self._folder is None:
            return
        for path in sorted(self._folder.glob("worker-*.bin")):
            if path.stem == self._slot:
                continue
            try:
                yield path.stem, read_cells(path)
            except (FlyballError, OSError) as error:
                if path.name not in self._told:  # its own worker sets it aside when it starts
                    self._told.add(path.name)
                    logger.error("counts cannot be read", extra={"file": str(path), "error": str(error)})


def board_samples(board: Board) -> Samples:
    """What the board shows: of the pool, and of each worker that lives."""
    live = [({"worker": str(number)}, slot) for number, slot in board.live()]
    started = [({"worker": str(number)}, slot) for number, slot in enumerate(board.slots) if slot.forked_ns]
    states = [(state, sum(slot.state is state for _, slot in live)) for state in WorkerState if state]
    return {
        "flyball_plan_epoch": [(labels, slot.epoch) for labels, slot in live],
        "flyball_workers_wanted": [({}, board.desk.wanted)],
        "flyball_workers_demand": [({}, board.desk.demand)],
        "flyball_workers_ready": [({}, dict(states)[WorkerState.READY])],
        "flyball_workers": [({"state": state.name.lower()}, count) for state, count in states],
        "flyball_worker_restarts_total": [(labels, slot.restarts) for labels, slot in started],
        "flyball_worker_busy_seconds_total": [(labels, slot.busy_ns / 1e9) for labels, slot in started],
        "flyball_worker_load_seconds": [(labels, slot.load_ns / 1e9) for labels, slot in live if slot.load_ns],
        "flyball_worker_connections": [(labels, slot.connections) for labels, slot in live],
        "flyball_in_flight": [(labels, max(0, slot.in_flight)) for labels, slot in live],
    }
