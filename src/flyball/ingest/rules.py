"""Rules beyond columns: checks across the columns of a row, and what a whole push must be.

A rule is judged over the rows that broke nothing before it. What it says of a row goes into the same verdict as the
columns'; what it says of a push is a refusal: the push is stored not at all, and the refusal is kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from flyball.define.rule import told
from flyball.define.spec import ExprData, RuleSpec, SourceSpec
from flyball.ingest.parsing import Mask, mask
from flyball.ingest.ports import Conditions, LogTotals, RefusedBatch
from flyball.ingest.rejection import Rejected, redact
from flyball.ingest.verdict import Verdict
from flyball.kernel.errors import InternalError, InvalidError
from flyball.kernel.times import SECOND, show_duration, show_time

EXAMPLES = 5  # rows that a refusal shows


@dataclass(frozen=True, kw_only=True, slots=True)
class Came:
    """How rows came: live or as history, in which pushes (first row, and the one after the last), of which file.

    Args:
        again: rows of the quarantine that are tried again, each for itself; no rule over a batch is judged.
        before: rows of the same file that came before these. `more`: others follow, so the file has no size yet.
    """

    live: bool
    pushes: tuple[tuple[int, int], ...]
    again: bool = False
    before: int = 0
    more: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What the rules say of each push: rows that were accepted with a warning by rule, and the refused ones."""

    warnings: tuple[dict[str, int], ...]
    refused: dict[int, RefusedBatch] = field(default_factory=dict)


def judge_rules(frame: pl.DataFrame, spec: SourceSpec, verdict: Verdict, came: Came, conditions: Conditions) -> None:
    """Mark what breaks the source's rules over rows; `frame` holds all rows, those that broke a rule before too."""
    for rule in spec.rules:
        if rule.kind == "check":
            broken = _false(conditions, rule, spec, frame)
        elif rule.kind == "unique":
            broken = _repeated(rule, frame, verdict, came)
        else:
            continue
        if rule.action == "warn":
            verdict.warn(broken, rule.name)
        else:
            verdict.mark(broken, rule.name, "")


def no_conditions(expr: ExprData, source: SourceSpec, events: pl.DataFrame) -> pl.Series:
    """`Conditions` of a core that was given none: it cannot take a source with a check."""
    raise InternalError(f"nothing here computes the checks of source {source.name}", code="no_conditions")


def _false(conditions: Conditions, rule: RuleSpec, spec: SourceSpec, frame: pl.DataFrame) -> Mask:
    if rule.expr is None:
        raise InternalError(f"rule {rule.name} of source {spec.name} has no condition", code="bad_plan")
    return mask(~conditions(rule.expr, spec, frame))


def _repeated(rule: RuleSpec, frame: pl.DataFrame, verdict: Verdict, came: Came) -> Mask:
    """The rows that are alike in the rule's columns to an earlier good one of the same push."""
    broken = np.zeros(frame.height, dtype=np.bool_)
    if came.again:
        return broken
    good = verdict.good if verdict.deleted is None else verdict.good & ~verdict.deleted
    starts = [start for start, _ in came.pushes]
    push = pl.Series("_push", np.searchsorted(starts, np.arange(frame.height), side="right"))
    asked = frame.select(rule.columns).with_columns(push)
    places = np.flatnonzero(good & mask(~asked.select(pl.any_horizontal(pl.all().is_null())).to_series()))
    broken[places] = mask(~asked[places].select(pl.struct(pl.all()).is_first_distinct()).to_series())
    return broken


def judge_pushes(
    event_time: pl.Series,
    spec: SourceSpec,
    verdict: Verdict,
    rejected: Sequence[Rejected],
    rejected_places: Sequence[int],
    came: Came,
    *,
    now: int,
) -> Judged:
    """What is to be said of each push whole, once all its rows were judged."""
    fatal = any(column.on_violation == "reject_batch" for column in spec.columns)
    if not (spec.rules or fatal or verdict.warns):  # as most sources are, and a group may be of thousands of pushes
        return Judged(warnings=({},) * len(came.pushes))
    warnings: list[dict[str, int]] = []
    refused: dict[int, RefusedBatch] = {}
    for number, (start, end) in enumerate(came.pushes):
        found = Counter(verdict.warned(start, end))
        refusal = None
        if not came.again:
            low, high = np.searchsorted(rejected_places, [start, end])
            refusal = _fatal(rejected[low:high], start, end, spec)
            for rule, problem in _over_batch(event_time, spec, verdict, came, (start, end), now):
                if rule.action == "warn":
                    found[rule.name] += 1
                elif refusal is None:
                    refusal = RefusedBatch(
                        source=spec.name, rule=rule.name, received=end - start, broken=end - start,
                        message=f"{rule.name}: the rule of {spec.name} is that {told(rule)}; {problem}",
                    )  # fmt: skip
        warnings.append(dict(found))
        if refusal is not None:
            refused[number] = refusal
    return Judged(warnings=tuple(warnings), refused=refused)


def _fatal(rejected: Sequence[Rejected], start: int, end: int, spec: SourceSpec) -> RefusedBatch | None:
    """The refusal of a push some of whose rows broke what refuses it whole: the first such rule."""
    columns = {column.name for column in spec.columns if column.on_violation == "reject_batch"}
    rules = {rule.name for rule in spec.rules if rule.action == "reject_batch"}
    if not (columns or rules):
        return None
    worst = next((row for row in rejected if row.column in columns or str(row.rule) in rules), None)
    if worst is None:
        return None
    same = [row for row in rejected if (row.rule, row.column) == (worst.rule, worst.column)]
    first = ", ".join(str(row.position - start) for row in same[:EXAMPLES]) + (", …" if same[EXAMPLES:] else "")
    return RefusedBatch(
        source=spec.name,
        rule=str(worst.rule),
        column=worst.column,
        received=end - start,
        broken=len(same),
        message=f"{len(same)} of {end - start} rows (row {first}) break a rule that refuses the whole batch: "
        f"{worst.message}",
        examples=tuple(
            row.to_data() | {"row": redact(spec, row.row), "position": row.position - start} for row in same[:EXAMPLES]
        ),
    )


def _over_batch(
    event_time: pl.Series, spec: SourceSpec, verdict: Verdict, came: Came, push: tuple[int, int], now: int
) -> list[tuple[RuleSpec, str]]:
    """The rules over a batch that a push breaks, and how."""
    start, end = push
    broken: list[tuple[RuleSpec, str]] = []
    for rule in spec.rules:
        if rule.kind == "volume":
            rows = came.before + end - start
            few = rows < rule.min_rows and not came.more
            if few or (rule.max_rows is not None and rows > rule.max_rows):
                broken.append((rule, f"{'so far ' if came.more else ''}{rows:,} came"))
        elif rule.kind == "fresh" and came.live:
            times = event_time[start:end].filter(pl.Series(verdict.good[start:end]))
            newest = times.max()
            if isinstance(newest, int) and newest < now - rule.max_age:
                broken.append((rule, f"it is from {show_time(newest)}, {_about(now - newest)} before now"))
    return broken


def contract_state(spec: SourceSpec, totals: LogTotals, *, now: int) -> list[dict[str, Any]]:
    """How the rules over batches stand now: `[{rule, kind, ok, text}]`; `ok` None: nothing came yet."""
    states = []
    for rule in spec.rules:
        if rule.kind == "fresh":
            age = now - totals.last_event_time
            ok = None if not totals.last_event_time else age <= rule.max_age
            seen = "no event yet" if ok is None else f"the newest event is {_about(age)} old"
            text = f"{seen}, and may be {show_duration(rule.max_age)}"
        elif rule.kind == "volume":
            rows = totals.last_rows
            few = rows is not None and rows < rule.min_rows
            ok = None if rows is None else not few and (rule.max_rows is None or rows <= rule.max_rows)
            text = f"{'no push yet' if rows is None else f'the last push had {rows:,} rows'}; {told(rule)}"
        else:
            continue
        states.append({"rule": rule.name, "kind": rule.kind, "ok": ok, "text": text})
    return states


def _about(us: int) -> str:
    """A duration to the second, for people; what is ahead of the clock is no time old."""
    return show_duration(max(0, us) // SECOND * SECOND)


def refusal_error(refused: RefusedBatch) -> InvalidError:
    """What the sender of a refused push is told."""
    return InvalidError(
        f"{refused.message}; nothing of it was stored",
        code="batch_refused",
        hint="mend the rows and send the batch again; or declare the rule with action='reject_row' or 'warn'",
        details={
            "source": refused.source,
            "rule": refused.rule,
            "column": refused.column,
            "received": refused.received,
            "broken": refused.broken,
            "examples": list(refused.examples),
        },
    )
