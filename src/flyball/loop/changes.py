"""Changes to what is served: one transaction over the change, its fact, and the epochs of the plans that follow."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flyball.loop.ports import Metadata, Unit
from flyball.loop.publish import Publisher


class Changes:
    """Runs changes one after another and publishes what they lead to."""

    def __init__(self, metadata: Metadata, publisher: Publisher) -> None:
        self._metadata = metadata
        self._publisher = publisher
        self._lock = threading.RLock()

    @contextmanager
    def change(self) -> Iterator[Unit]:
        """A transaction; when it is committed, the plans are what the stored state says. A crash in between is made
        good by the next change or start."""
        with self._lock:
            with self._metadata.write() as unit:
                yield unit
                staged = self._publisher.stage(unit)
            self._publisher.write(staged)

    def republish(self) -> list[str]:
        """Publish the plans if the files differ from what is stored; the kinds that were written."""
        with self._lock:
            with self._metadata.write() as unit:
                staged = self._publisher.stage(unit)
            return self._publisher.write(staged)
