"""Erasing what ingestion holds of one value: online state, log, lake and quarantine.

Each step can be repeated. Online state goes first, since what it holds is found by the rows in log and lake; what
cannot be found any more is erased last. Whoever asks repeats the whole until it was answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from flyball.define.spec import SourceSpec
from flyball.define.subject import Matcher, Seal
from flyball.ingest.committing import quarantine_table
from flyball.kernel.errors import InvalidError

Mask = Callable[[pl.Series], pl.Series]


class ErasableLog(Protocol):
    def matching(self, source: str, column: str, mask: Mask) -> pl.DataFrame:
        """The rows that the log has, as a physical frame; columns that were not there then are missing."""
        ...

    def rejected_matching(self, source: str, hit: Callable[[dict[str, Any]], bool]) -> int: ...

    def erase(self, source: str, column: str, mask: Mask, hit: Callable[[dict[str, Any]], bool]) -> None:
        """Take the rows out; the others keep their LSNs. Rejected rows go too, and the examples in the answers to
        idempotency keys. The bytes are gone when it returns. Idempotent."""
        ...


class ErasableLake(Protocol):
    def matching(self, table: str, column: str, mask: Mask) -> pl.DataFrame:
        """Whole rows in physical form; empty where there is no such table or column."""
        ...

    def erase(self, table: str, column: str, values: Sequence[int | str]) -> None:
        """Delete the rows whose `column` is one of the values. Earlier versions of the table are gone with their
        files, also where there was nothing to delete. Idempotent."""
        ...


class ErasableState(Protocol):
    def erase(self, source: str, removed: pl.DataFrame, entities: Mapping[str, bytes]) -> None:
        """Make the views on a source what they would be without the removed rows, and forget their keys and what is
        held back of them. `entities`: column → key of the entity that is the erased value alone. Idempotent."""
        ...


@dataclass(frozen=True, kw_only=True)
class Eraser:
    """Erases from one source at a time, while nothing is applied or committed.

    Args:
        seal: the keyed digest of a value.
        scrub: rewrites the online state's file without its free pages.
        at: called with the name of each step before it; where tests crash.
    """

    log: ErasableLog
    lake: ErasableLake
    state: ErasableState
    seal: Seal
    scrub: Callable[[], None] = lambda: None
    at: Callable[[str], None] = lambda step: None

    def count(self, spec: SourceSpec, column: str, digests: Sequence[str]) -> dict[str, Any]:
        """What would go: `{"rows", "quarantined", "lsns"}`."""
        matcher, mask = self._matcher(spec, column, digests)
        lsns = sorted(set(self._rows(spec, column, mask)["_lsn"].to_list()))
        hit = _hit(matcher)
        quarantined = self.log.rejected_matching(spec.name, hit) + len(self._quarantined(spec, hit))
        return {"rows": len(lsns), "quarantined": quarantined, "lsns": lsns}

    def erase(self, spec: SourceSpec, column: str, digests: Sequence[str], entity: bytes | None) -> None:
        """Erase what matches now."""
        matcher, mask = self._matcher(spec, column, digests)
        hit = _hit(matcher)
        self.at("online")
        removed = self._rows(spec, column, mask)
        self.state.erase(spec.name, removed, {column: entity} if entity is not None else {})
        self.at("log")
        self.log.erase(spec.name, column, mask, hit)
        self.at("lake")
        self.lake.erase(spec.name, "_lsn", removed["_lsn"].to_list())
        self.at("quarantine")
        self.lake.erase(quarantine_table(spec.name), "row", self._quarantined(spec, hit))
        self.at("scrub")
        self.scrub()
        self.at("done")

    def _matcher(self, spec: SourceSpec, column: str, digests: Sequence[str]) -> tuple[Matcher, Mask]:
        try:
            matcher = Matcher(spec.column(column), digests, self.seal)
        except KeyError:
            raise InvalidError(f"source {spec.name} has no column {column!r}", code="column_not_found") from None

        def mask(values: pl.Series) -> pl.Series:
            return values.is_in(list(matcher.physical(values.unique().to_list()))).fill_null(False)

        return matcher, mask

    def _rows(self, spec: SourceSpec, column: str, mask: Mask) -> pl.DataFrame:
        """The rows in lake and log, each once."""
        parts = [self.lake.matching(spec.name, column, mask), self.log.matching(spec.name, column, mask)]
        found = [part for part in parts if part.height]
        if not found:
            return pl.DataFrame(schema={"_lsn": pl.Int64})
        return pl.concat(found, how="diagonal").unique("_lsn", keep="first").sort("_lsn")

    def _quarantined(self, spec: SourceSpec, hit: Callable[[dict[str, Any]], bool]) -> list[str]:
        """The quarantined rows of the lake, as their own text."""

        def mask(texts: pl.Series) -> pl.Series:
            return pl.Series([hit({"row": json.loads(text)}) for text in texts.to_list()], dtype=pl.Boolean)

        rows = self.lake.matching(quarantine_table(spec.name), "row", mask)
        return rows["row"].unique().to_list() if rows.height else []


def _hit(matcher: Matcher) -> Callable[[dict[str, Any]], bool]:
    """Whether a refused row is of the erased value: in its column, or anywhere else in it, since what was refused may
    have the value under a wrong name, in a shifted field or in a text. So one too many may go, and none stays."""

    def hit(rejected: dict[str, Any]) -> bool:
        row = rejected.get("row")
        return (isinstance(row, dict) and matcher.raw(row.get(matcher.column.name))) or matcher.inside(row)

    return hit
