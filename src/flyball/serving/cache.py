"""Answers by what the model was asked: full digests, bounded, and off where looking costs more than it saves."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

DIGEST_BYTES = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheConfig:
    """`entries` are kept at most. `window` looks are judged together; where they cost more than they saved, the cache
    rests for `rest` looks, then is judged again."""

    entries: int = 65_536
    window: int = 1_000
    rest: int = 20_000


class Cache:
    """The answers of one version, least recently used ones first out. Not thread-safe.

    Keys are BLAKE2b-256 digests of what the model sees, so a version's answers are never another's, and features that
    changed are another question. A failure is never kept.
    """

    def __init__(self, config: CacheConfig | None = None) -> None:
        self._config = config or CacheConfig()
        self._answers: OrderedDict[bytes, Any] = OrderedDict()
        self._looks = self._hits = 0
        self._look_seconds = self._saved_seconds = 0.0
        self._resting = 0

    def __len__(self) -> int:
        return len(self._answers)

    def awake(self, looks: int) -> bool:
        """Whether so many looks are worth it now."""
        if self._resting > 0:
            self._resting -= looks
            return False
        return True

    def get(self, key: bytes) -> Any:
        """The answer, or None."""
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def put(self, key: bytes, answer: Any) -> None:
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._config.entries:
            self._answers.popitem(last=False)

    def judge(self, *, looks: int, hits: int, look_seconds: float, model_seconds: float) -> None:
        """Weigh what a batch's looks cost against the model's time that its hits saved.

        Args:
            look_seconds: what the looks of the batch took, digests and all.
            model_seconds: what the model takes for one row.
        """
        self._looks += looks
        self._hits += hits
        self._look_seconds += look_seconds
        self._saved_seconds += hits * model_seconds
        if self._looks < self._config.window:
            return
        if self._saved_seconds < self._look_seconds:
            self._resting = self._config.rest
            self._answers.clear()
        self._looks = self._hits = 0
        self._look_seconds = self._saved_seconds = 0.0


class Looked:
    """What a batch of questions found in a cache.

    Args:
        questions: gives the digest of each; its time counts as the cache's.

    Attributes:
        hits: the known answers, by the question's place.
        asked: the places that must be asked, each question once.
        followers: of the other places, the one that asks the same.
    """

    __slots__ = ("_cache", "_keys", "_seconds", "asked", "followers", "hits")

    def __init__(self, cache: Cache, questions: Callable[[], list[bytes]]) -> None:
        began = time.perf_counter()
        self._cache = cache
        self._keys = questions()
        self.hits: dict[int, Any] = {}
        self.asked: list[int] = []
        self.followers: dict[int, int] = {}
        leaders: dict[bytes, int] = {}
        for place, key in enumerate(self._keys):
            found = cache.get(key)
            if found is not None:
                self.hits[place] = found
            elif key in leaders:
                self.followers[place] = leaders[key]
            else:
                leaders[key] = place
                self.asked.append(place)
        self._seconds = time.perf_counter() - began

    def keep(self, place: int, answer: Any) -> None:
        """The answer to a question that was asked; a failure is none."""
        self._cache.put(self._keys[place], answer)

    def judge(self, model_seconds: float) -> None:
        """Weigh the looks against the model's time for a row."""
        looks = len(self._keys)
        self._cache.judge(
            looks=looks,
            hits=looks - len(self.asked),
            look_seconds=self._seconds,
            model_seconds=model_seconds,
        )


def digest_of(*parts: bytes | memoryview) -> bytes:
    """The key of what a model is asked."""
    hashed = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        hashed.update(part)
    return hashed.digest()
