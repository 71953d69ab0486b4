"""The metrics of all workers of a state directory, from whichever of them is asked."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flyball.http import exposition
from flyball.http.exposition import CONTENT_TYPE
from flyball.kernel.errors import FlyballError
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
    )
}
Samples = Mapping[str, Iterable[tuple[Mapping[str, str], float]]]


class InferenceMetrics:
    """A worker's counters, and the sum over all workers as text.

    Args:
        folder: where each worker has its file of counts. None: this worker counts alone, in memory.
        slot: this worker's name, such as `worker-0`.
        live: the slots whose gauges count; None for all.
    """

    def __init__(
        self, folder: Path | None = None, slot: str = "worker-0", *, live: Callable[[], Iterable[str]] | None = None
    ) -> None:
        self._folder = folder
        self._slot = slot
        self._live = live
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

    def render(self, gauges: Mapping[str, float] | None = None, *, samples: Samples | None = None) -> bytes:
        """The counts of all workers, and the given gauges (`samples`: with labels), as text."""
        lines: list[str] = []
        found = self.sums()
        for family in FAMILIES.values():
            series = sorted((key, cells) for key, cells in found.items() if key[0] == family.name)
            if series:
                kind = "gauge" if family.kind == "latest" else family.kind
                lines += exposition.head(family.name, kind, family.text)
            for key, cells in series:
                lines += self._series(family, key, cells)
        values: dict[str, Iterable[tuple[Mapping[str, str], float]]] = dict(samples or {})
        values |= {name: [({}, value)] for name, value in (gauges or {}).items()}
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
        live = None if self._live is None else set(self._live())
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
