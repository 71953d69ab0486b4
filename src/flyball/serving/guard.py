"""Features that degrade instead of failing: a store that is gone or slow costs freshness, not replies.

A read cannot be interrupted, so slowness is met before the next one: after a few slow reads in a row the store is not
asked for a while, and then by one request at a time, until it is quick again. The requests in between get the declared
defaults of their views, and their replies say so.
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
    """`share` of a request's deadline that reading features may take; after `slow_reads` in a row that took more, the
    store is left alone for `rest_seconds`, then asked by one request, which decides."""

    share: float = 0.25
    slow_reads: int = 3
    rest_seconds: float = 1.0


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
        self._slow = 0  # reads in a row
        self._again_at = 0.0  # when the store is asked again, while it rests

    @property
    def resting(self) -> bool:
        """Whether the store is left alone because it was slow."""
        return self._slow >= self._config.slow_reads

    def read(
        self, manifest: Manifest, rows: Sequence[Mapping[str, Any]], at: Sequence[int], *, deadline_us: int
    ) -> FeatureBatch:
        """The features of rows, for requests of this deadline; raises where not even defaults can be computed."""
        if not manifest.views:
            return self._reader.vectors(manifest, rows, at)
        if not self._may_ask():
            return self._reader.defaults(manifest, rows, at)
        started = self._monotonic()
        try:
            batch = self._reader.vectors(manifest, rows, at)
        except Exception:
            logger.exception("features could not be read; views answer their defaults", extra={"model": manifest.model})
            self._note(slow=True)
            return self._reader.defaults(manifest, rows, at)
        took = self._monotonic() - started
        self._note(slow=took * 1_000_000 > deadline_us * self._config.share)
        return batch

    def _may_ask(self) -> bool:
        if self._slow < self._config.slow_reads:
            return True
        with self._lock:
            now = self._monotonic()
            if now < self._again_at:
                return False
            self._again_at = now + self._config.rest_seconds  # one request probes, the others wait for its word
            return True

    def _note(self, *, slow: bool) -> None:
        if not slow:
            if self._slow:
                self._slow = 0
            return
        with self._lock:
            self._slow += 1
            if self._slow >= self._config.slow_reads:
                self._again_at = self._monotonic() + self._config.rest_seconds
            if self._slow == self._config.slow_reads:
                logger.warning("online state is slow; views answer their defaults until it is quick again")
