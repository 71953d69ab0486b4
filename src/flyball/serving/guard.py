"""Features that degrade instead of failing: a store that is gone or slow costs freshness, not replies.

A read cannot be interrupted, so slowness is met before the next one: after a few slow reads in a row the store is not
asked for a while, and then by one request at a time, until it is quick again. The requests in between get the declared
defaults of their views, and their replies say so.

Only what tells of the store rests it for all: reads of few rows that took long. A long read of many rows, and one that
raises, may be its version's own doing, so they rest the store for that version alone.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.serving.manifest import Manifest
from flyball.serving.ports import FeatureBatch, FeatureReader

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class GuardConfig:
    """`share` of a request's deadline that reading features may take, for each `few_rows` rows that are read at once;
    after `slow_reads` in a row that took more, the store is left alone for `rest_seconds`, then asked by one request,
    which decides."""

    share: float = 0.25
    few_rows: int = 100
    slow_reads: int = 3
    rest_seconds: float = 1.0


@dataclass(slots=True)
class _Trouble:
    """`reads` in a row that were slow or failed; while they are too many, `again_at` is when the next is tried."""

    reads: int = 0
    again_at: float = 0.0


class GuardedFeatures:
    """Reads features, or gives the defaults where the store cannot be read in time. Safe for several threads."""

    def __init__(
        self,
        reader: FeatureReader,
        *,
        config: GuardConfig | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader = reader
        self._config = config or GuardConfig()
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._store = _Trouble()
        self._versions: dict[str, _Trouble] = {}  # by digest; only those that are in trouble

    @property
    def resting(self) -> bool:
        """Whether the store is left alone because it was slow for all."""
        return self._rests(self._store)

    def read(
        self,
        manifest: Manifest,
        rows: Sequence[Mapping[str, Any]],
        at: Sequence[int],
        *,
        version: str,
        deadline_us: int,
    ) -> FeatureBatch:
        """The features of rows, for requests of this deadline; raises where not even defaults can be computed.

        Args:
            version: digest of the version whose manifest it is.
        """
        if not manifest.views:
            return self._reader.vectors(manifest, rows, at)
        if not self._may_ask(version):
            return self._reader.defaults(manifest, rows, at)
        batch: FeatureBatch | None = None
        started = self._monotonic()
        try:
            batch = self._reader.vectors(manifest, rows, at)
        except Exception:
            logger.exception("features could not be read; views answer their defaults", extra={"model": manifest.model})
        took = self._monotonic() - started
        few = self._config.few_rows
        slow = took * 1_000_000 > deadline_us * self._config.share * max(1.0, len(rows) / few)
        self._note_store(slow=slow and len(rows) <= few, quick=batch is not None and not slow)
        self._note_version(version, manifest, failed=batch is None, slow=slow and len(rows) > few)
        return self._reader.defaults(manifest, rows, at) if batch is None else batch

    def _rests(self, trouble: _Trouble) -> bool:
        return trouble.reads >= self._config.slow_reads

    def _may_ask(self, version: str) -> bool:
        if not self._store.reads and version not in self._versions:
            return True
        with self._lock:
            now = self._monotonic()
            troubles = (self._store, self._versions.get(version))
            resting = [trouble for trouble in troubles if trouble is not None and self._rests(trouble)]
            if any(now < trouble.again_at for trouble in resting):
                return False
            for trouble in resting:  # one request probes, the others wait for its word
                trouble.again_at = now + self._config.rest_seconds
            return True

    def _note_store(self, *, slow: bool, quick: bool) -> None:
        if not slow:
            if quick and self._store.reads:
                with self._lock:
                    self._store.reads = 0
            return
        if self._add(self._store):
            logger.warning("online state is slow; views answer their defaults until it is quick again")

    def _note_version(self, version: str, manifest: Manifest, *, failed: bool, slow: bool) -> None:
        if not (failed or slow):
            if version in self._versions:
                with self._lock:
                    self._versions.pop(version, None)
            return
        with self._lock:
            trouble = self._versions.setdefault(version, _Trouble())
        if self._add(trouble):
            logger.warning(
                "features of a version fail or are slow; its views answer their defaults until they can be read",
                extra={"model": manifest.model, "version": version},
            )

    def _add(self, trouble: _Trouble) -> bool:
        """Count a read; says whether the store rests from this one on."""
        with self._lock:
            trouble.reads += 1
            if self._rests(trouble):
                trouble.again_at = self._monotonic() + self._config.rest_seconds
            return trouble.reads == self._config.slow_reads
