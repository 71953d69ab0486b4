"""What is handed in and what is answered: a push, and its receipt."""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import polars as pl

from flyball.define.spec import SourceSpec
from flyball.ingest.body import ArrowBody, JsonBody
from flyball.ingest.ports import StoredAnswer
from flyball.ingest.rejection import Rejected, redact

EXAMPLES = 5  # quarantined rows that a receipt shows


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """Events for one source: a body as it came, a list of dicts, a Polars frame or an Arrow table. `fingerprint`
    empty: it is computed where it is needed, from the rows."""

    source: str
    rows: Any
    idempotency_key: str = ""
    live: bool = True
    fingerprint: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What its idempotency key is a key of: each source has its own."""
        return self.source, self.idempotency_key


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """What became of a push or a file. `accepted + quarantined + duplicates == received`; what is counted is durable.

    Args:
        duplicates: rows whose key another row of the same batch had; one in an earlier batch is found when applied.
        first_lsn, last_lsn: the log sequence numbers of the accepted rows; 0: none was accepted.
        known_at: domain time of the commit, µs.
        ignored: columns of the file that the source does not declare.
        reasons: rule → quarantined rows. `examples`: some of them, pii redacted.
        warnings: rule → accepted rows that broke it, where the rule only warns; for a rule over a batch, batches.
        replayed: the idempotency key was used before; this is what was answered then, and nothing was stored now.
    """

    source: str
    received: int = 0
    accepted: int = 0
    quarantined: int = 0
    duplicates: int = 0
    first_lsn: int = 0
    last_lsn: int = 0
    known_at: int = 0
    ignored: tuple[str, ...] = ()
    reasons: dict[str, int] = field(default_factory=dict)
    warnings: dict[str, int] = field(default_factory=dict)
    examples: tuple[dict[str, Any], ...] = ()
    replayed: bool = False

    def to_data(self) -> dict[str, Any]:
        """The receipt as it travels over HTTP."""
        data: dict[str, Any] = msgspec.to_builtins(self)
        return data


def answer_of(
    spec: SourceSpec,
    *,
    received: int,
    duplicates: int,
    rejected: Sequence[Rejected],
    ignored: Sequence[str],
    warnings: Mapping[str, int],
) -> dict[str, Any]:
    """The part of a receipt that is known before the commit; JSON-able, kept under the idempotency key."""
    return {
        "received": received,
        "duplicates": duplicates,
        "quarantined": len(rejected),
        "ignored": list(ignored),
        "reasons": dict(Counter(str(row.rule) for row in rejected)),
        "warnings": dict(warnings),
        "examples": [row.to_data() | {"row": redact(spec, row.row)} for row in rejected[:EXAMPLES]],
    }


def receipt_of(
    source: str, answer: dict[str, Any], *, first_lsn: int, count: int, known_at: int, replayed: bool = False
) -> Receipt:
    return Receipt(
        source=source,
        received=answer["received"],
        accepted=count,
        quarantined=answer["quarantined"],
        duplicates=answer["duplicates"],
        first_lsn=first_lsn if count else 0,
        last_lsn=first_lsn + count - 1 if count else 0,
        known_at=known_at,
        ignored=tuple(answer["ignored"]),
        reasons=answer["reasons"],
        warnings=answer["warnings"],
        examples=tuple(answer["examples"]),
        replayed=replayed,
    )


def replayed(source: str, stored: StoredAnswer) -> Receipt:
    """The first receipt again."""
    return receipt_of(
        source,
        stored.answer,
        first_lsn=stored.first_lsn,
        count=stored.count,
        known_at=stored.known_at,
        replayed=True,
    )


def total(source: str, parts: Sequence[Receipt]) -> Receipt:
    """One receipt for the chunks of a file. `replayed` where nothing was stored that was not stored before."""
    stored = [part for part in parts if part.accepted]
    return Receipt(
        source=source,
        received=sum(part.received for part in parts),
        accepted=sum(part.accepted for part in parts),
        quarantined=sum(part.quarantined for part in parts),
        duplicates=sum(part.duplicates for part in parts),
        first_lsn=stored[0].first_lsn if stored else 0,
        last_lsn=stored[-1].last_lsn if stored else 0,
        known_at=max((part.known_at for part in parts), default=0),
        ignored=parts[0].ignored if parts else (),
        reasons=added([part.reasons for part in parts]),
        warnings=added([part.warnings for part in parts]),
        examples=tuple(example for part in parts for example in part.examples)[:EXAMPLES],
        replayed=bool(parts) and all(part.replayed for part in parts),
    )


def added(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """Counts by rule, added up."""
    total: Counter[str] = Counter()
    for some in counts:
        total.update(some)
    return dict(total)


def fingerprint(rows: Any) -> str:
    """A digest of what was pushed, so that an idempotency key is not used for something else."""
    if isinstance(rows, JsonBody | ArrowBody):
        data = rows.data
    elif isinstance(rows, pl.DataFrame):
        buffer = io.BytesIO()
        rows.write_ipc_stream(buffer)
        data = buffer.getvalue()
    else:
        data = msgspec.json.encode(rows, enc_hook=str)
    return hashlib.blake2b(data, digest_size=16).hexdigest()
