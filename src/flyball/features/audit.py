"""The skew audit: served features against their recomputation, value by value, with the cause of each mismatch."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from flyball.features.accumulator import Flags, Floats
from flyball.features.arrival import SEALED
from flyball.features.assemble import leaf_requirements
from flyball.features.causes import Cause, Known, classify, equal, is_exact, usable
from flyball.features.ports import EventSlices
from flyball.features.recompute import Computed, Conditions, Definition, Recomputation, Seal, Served
from flyball.kernel.ids import canonical

Score = Callable[[Floats], Floats | None]
EXAMPLES = 20  # of mismatches, that a report keeps


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What became of the values of one feature: how many were compared, skipped (by reason), and wrong (by cause)."""

    compared: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    causes: dict[str, int] = field(default_factory=dict)

    @property
    def mismatched(self) -> int:
        return sum(self.causes.values())

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            compared=self.compared + other.compared,
            skipped=_sum(self.skipped, other.skipped),
            causes=_sum(self.causes, other.causes),
        )


@dataclass(frozen=True, kw_only=True)
class Example:
    """One mismatch. `entity` has digests where pii is."""

    prediction: str
    feature: str
    cause: str
    at: int
    entity: dict[str, Any]
    served: float | None
    recomputed: float | None

    def to_data(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What mismatches did to predictions: rows with one that could be scored both ways, and |Δ| of their scores."""

    rows: int = 0
    total: float = 0.0
    largest: float = 0.0

    @property
    def mean(self) -> float | None:
        return self.total / self.rows if self.rows else None

    def __add__(self, other: Effect) -> Effect:
        return Effect(
            rows=self.rows + other.rows, total=self.total + other.total, largest=max(self.largest, other.largest)
        )


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What an audit of some predictions of one version found."""

    rows: int
    features: dict[str, Tally]
    examples: tuple[Example, ...] = ()
    effect: Effect = Effect()

    @property
    def compared(self) -> int:
        return sum(tally.compared for tally in self.features.values())

    @property
    def mismatched(self) -> int:
        return sum(tally.mismatched for tally in self.features.values())


def entity_of(definition: Definition, record: Served) -> dict[str, Any]:
    """What a prediction is about: the fields under which its first view is looked up, else its key."""
    views = leaf_requirements(definition.features).views
    by = next((role.by for role in views if role.by), ())
    return {name: record.inputs.get(name) for name in by} if by else dict(record.key or {"id": record.id})


def position(entity: Mapping[str, Any], *salt: str | int) -> float:
    """A place in [0, 1) by the entity and what salts it alone: those below a share are sampled, with all of their
    predictions. Salted with a service and a period, it is other entities each period."""
    number = hashlib.blake2b(canonical([*salt, dict(entity)]), digest_size=8).digest()
    return int.from_bytes(number, "big") / 2.0**64


def audit(
    definition: Definition,
    records: Sequence[Served],
    history: EventSlices,
    *,
    known: Known,
    seal: Seal = lambda value: value,
    score: Score | None = None,
) -> Audited:
    """Recompute predictions of one version from what their replies saw, and explain each difference.

    Args:
        history: must reach to every LSN that a record logged.
        score: the version's model on a matrix; None where it cannot be run here.
    """
    if not records or not definition.features:
        return Audited(rows=len(records), features={})
    again = Recomputation(definition, records, history, seal=seal)
    rows = np.arange(len(records))
    base = again.compute(Conditions(), rows)
    served, sealed, missing = _served(definition, records)
    exact = np.array([is_exact(f, definition) for f in definition.features], np.bool_)
    same = equal(served, base.matrix, exact, base.slack)
    unopened = _unopened(definition, records, base, sealed, seal, same)
    compared = base.known & ~missing & ~unopened
    wrong = compared & ~same
    where = np.flatnonzero(wrong.any(axis=1))
    chosen = Known(others=usable(known.others), kept_from=known.kept_from)
    part = Computed(matrix=base.matrix[where], known=base.known[where], slack=base.slack[where])
    causes = classify(again, chosen, rows[where], served[where], part, wrong[where]) if len(where) else []
    found = [(int(where[i]), k, cause) for i, k, cause in causes]
    return Audited(
        rows=len(records),
        features=_tallies(definition, compared, base.known, unopened, found),
        examples=tuple(_example(definition, records[i], k, c, served, base.matrix, i) for i, k, c in found[:EXAMPLES]),
        effect=_effect(served, base.matrix, wrong, sealed, where, score),
    )


def _served(definition: Definition, records: Sequence[Served]) -> tuple[Floats, Flags, Flags]:
    """The served matrix, which values are digests, and which were not logged."""
    shape = (len(records), len(definition.features))
    matrix, sealed, missing = np.full(shape, np.nan), np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for i, record in enumerate(records):
        for k, feature in enumerate(definition.features):
            if feature.name not in record.features:
                missing[i, k] = True
                continue
            value = record.features[feature.name]
            if isinstance(value, str):
                sealed[i, k] = value.startswith(SEALED)
                missing[i, k] = not sealed[i, k]
            elif value is not None:
                matrix[i, k] = float(value)
    return matrix, sealed, missing


def _unopened(
    definition: Definition, records: Sequence[Served], base: Computed, sealed: Flags, seal: Seal, same: Flags
) -> Flags:
    """Digests that the recomputed value does not have: nothing tells a mismatch from a last bit there, so they are
    skipped. Those that it has are equal; `same` is set there."""
    unopened = np.zeros(sealed.shape, np.bool_)
    for i, k in zip(*np.nonzero(sealed), strict=True):
        value = float(base.matrix[i, k])
        same[i, k] = math.isfinite(value) and records[i].features[definition.features[k].name] == seal(value)
        unopened[i, k] = not same[i, k]
    return unopened


def _tallies(
    definition: Definition, compared: Flags, known: Flags, unopened: Flags, found: Sequence[tuple[int, int, Cause]]
) -> dict[str, Tally]:
    causes: list[dict[str, int]] = [{} for _ in definition.features]
    for _, k, cause in found:
        causes[k][cause.value] = causes[k].get(cause.value, 0) + 1
    tallies = {}
    for k, feature in enumerate(definition.features):
        skipped = {"pii": int(unopened[:, k].sum()), "not_computable": int((~known[:, k] & ~unopened[:, k]).sum())}
        tallies[feature.name] = Tally(
            compared=int(compared[:, k].sum()),
            skipped={reason: count for reason, count in skipped.items() if count},
            causes=causes[k],
        )
    return tallies


def _example(
    definition: Definition, record: Served, k: int, cause: Cause, served: Floats, again: Floats, i: int
) -> Example:
    return Example(
        prediction=record.id,
        feature=definition.features[k].name,
        cause=cause.value,
        at=record.at,
        entity=entity_of(definition, record),
        served=_plain(served[i, k]),
        recomputed=_plain(again[i, k]),
    )


def _effect(
    served: Floats, again: Floats, wrong: Flags, sealed: Flags, where: np.ndarray[Any, Any], score: Score | None
) -> Effect:
    """The scores of the rows with a mismatch, as served and with those values put right; other values are the same on
    both sides."""
    if score is None or not len(where):
        return Effect()
    left = np.where(sealed, again, served)[where]
    right = np.where(wrong[where], again[where], left)
    a, b = score(left), score(right)
    if a is None or b is None:
        return Effect()
    apart = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).reshape(len(where), -1).max(axis=1)
    apart = apart[np.isfinite(apart)]
    return Effect(rows=len(apart), total=float(apart.sum()), largest=float(apart.max(initial=0.0)))


def _plain(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _sum(a: Mapping[str, int], b: Mapping[str, int]) -> dict[str, int]:
    return {name: a.get(name, 0) + b.get(name, 0) for name in [*a, *(n for n in b if n not in a)]}
