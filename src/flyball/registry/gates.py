"""Whether a candidate may be released: pure, from numbers on the same held-out rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """What a candidate must meet.

    Args:
        metric: the name of the number that decides.
        higher_is_better: its direction.
        tolerance: how much worse than the champion a candidate may be, in units of the metric.
        minimum_rows: below this many held-out rows, numbers prove nothing.
    """

    metric: str
    higher_is_better: bool = True
    tolerance: float = 0.01
    minimum_rows: int = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class GateResult:
    """The verdict. `reasons` say why it failed; `note` says what a pass rests on."""

    passed: bool
    reasons: tuple[str, ...] = ()
    note: str = ""
    values: dict[str, float | None] = field(default_factory=dict)

    def to_data(self) -> dict[str, Any]:
        return {"passed": self.passed, "reasons": list(self.reasons), "note": self.note, "values": self.values}


def decide(candidate: Mapping[str, Any], champion: Mapping[str, Any] | None, *, rows: int, gate: Gate) -> GateResult:
    """Compare a candidate with the champion evaluated on the same `rows` held-out rows; None: there is no champion.

    >>> decide({"auc": 0.80}, {"auc": 0.82}, rows=500, gate=Gate(metric="auc")).reasons
    ('auc 0.8 is worse than the champion’s 0.82 by 0.02; up to 0.01 is allowed',)
    """
    reasons = []
    if rows < gate.minimum_rows:
        reasons.append(f"{rows} held-out rows are too few to judge by; at least {gate.minimum_rows} are needed")
    value = _number(candidate.get(gate.metric))
    if value is None:
        reasons.append(f"{gate.metric} of the candidate is not a finite number")
    reference = None if champion is None else _number(champion.get(gate.metric))
    note = ""
    if champion is None:
        note = "there is no champion to compare with"
    elif reference is None:
        note = f"{gate.metric} of the champion is not a finite number, so there is nothing to compare with"
    elif value is not None:
        worse = reference - value if gate.higher_is_better else value - reference
        note = f"{gate.metric} {value:.6g}, the champion’s {reference:.6g}, on the same {rows} rows"
        if worse > gate.tolerance * (1 + 1e-9):
            reasons.append(
                f"{gate.metric} {value:.6g} is worse than the champion’s {reference:.6g} by {worse:.6g}; "
                f"up to {gate.tolerance:.6g} is allowed"
            )
    return GateResult(
        passed=not reasons, reasons=tuple(reasons), note=note, values={"candidate": value, "champion": reference}
    )


def decide_skew(service: str, version: str, *, compared: int, bound: float, limit: float) -> GateResult:
    """Whether the served values of a version agree with training closely enough to go on.

    Args:
        compared: how many values the audit compared.
        bound: the largest rate of mismatches that these do not rule out.
        limit: the service's `max_skew`.

    >>> decide_skew("tip", "tip/3", compared=0, bound=1.0, limit=0.001).passed
    False
    """
    values: dict[str, float | None] = {"skew": bound, "limit": limit}
    if bound <= limit:
        note = f"up to {bound:.3g} of the served values may differ from training; {limit:g} is allowed"
        return GateResult(passed=True, note=note, values=values)
    seen = f"{compared} values compared" if compared else "nothing compared yet"
    least = math.ceil(3 / limit)
    reason = (
        f"the audit of {version} cannot rule out that {bound:.3g} of the served values differ from training "
        f"({seen}); max_skew is {limit:g}: flyball skew {service} shows what differs"
    )
    if compared < least:
        reason += f"; without a mismatch {least} compared values are enough"
    return GateResult(passed=False, reasons=(reason,), values=values)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None
