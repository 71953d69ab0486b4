"""The plan of an ingest process: the sources and views that it has, and the sources that it had."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from flyball.define.spec import ColumnSpec, SourceSpec, ViewSpec
from flyball.ingest.frames import lake_type, meanings
from flyball.ingest.ports import Applier, LogTotals
from flyball.kernel.errors import ConflictError, InvalidError, UnavailableError

FEEDBACK = SourceSpec(
    name="flyball_feedback",
    columns=(ColumnSpec(name="prediction_id", type="string", max_length=200), ColumnSpec(name="label", type="float")),
    event_time="at",
    key=("prediction_id",),
    description="Late labels of predictions; the first label of a prediction counts.",
)

Totals = Mapping[str, LogTotals]


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What was declared, checked against what the log has.

    Args:
        left: sources that are not in the plan: what the log has of them is still applied.
        views: None: no plan was taken yet.
        earlier: views as served versions read them, each with its source as it was declared then.
    """

    sources: dict[str, SourceSpec] = field(default_factory=lambda: {FEEDBACK.name: FEEDBACK})
    left: dict[str, SourceSpec] = field(default_factory=dict)
    views: tuple[ViewSpec, ...] | None = None
    earlier: tuple[tuple[ViewSpec, SourceSpec], ...] = ()
    epoch: int = 0
    digest: str = ""

    @property
    def names(self) -> list[str]:
        """The sources of the plan, and those that left it with events still in the log."""
        return [*self.sources, *self.left]

    def source(self, name: str) -> SourceSpec | None:
        return self.sources.get(name) or self.left.get(name)

    def hand_to(self, applier: Applier) -> None:
        applier.load_plan((*self.sources.values(), *self.left.values()), self.views or (), self.earlier)

    def after(self, before: Plan, totals: Totals) -> Plan:
        """The same where another plan was in force: what is not in it either took events until now, or has some in the
        log."""
        pending = {name: remembered(name, total) for name, total in totals.items() if total.pending_batches}
        had = pending | before.sources
        return replace(self, left={name: spec for name, spec in had.items() if name not in self.sources})

    def with_column(self, source: str, column: str, totals: Totals) -> SourceSpec | None:
        """A source with a column, though either may have left the plan: their rows stay. None: it never had any."""
        spec = self.source(source)
        if spec is None:
            if source not in totals:
                return None
            spec = remembered(source, totals[source])
        if column in {one.name for one in spec.columns}:
            return spec
        kind, scale = totals.get(spec.name, LogTotals()).columns.get(column, ("string", 0))
        former = ColumnSpec(name=column, type=kind, scale=scale, nullable=True)
        return msgspec.structs.replace(spec, columns=(*spec.columns, former))

    def recalling(self, source: str, totals: Totals) -> Plan:
        """The same with a source that left it, so that the online state knows it: it may hold events of it back.

        Raises `UnavailableError` (`plan_not_taken`): a plan without the views would drop what is kept of them.
        """
        if self.views is None:
            raise UnavailableError("ingest has not taken a plan yet; nothing was erased", code="plan_not_taken")
        return replace(self, left={**self.left, source: remembered(source, totals[source])})


def read_plan(data: Mapping[str, Any], totals: Totals) -> Plan:
    """A plan as it is published. Raises `InvalidError` (`bad_plan`), `ConflictError` (`column_type_changed`)."""
    sources = {spec.name: spec for spec in _declared(data.get("sources", ()), SourceSpec)}
    views = _declared(data.get("views", ()), ViewSpec)
    plan = Plan(
        sources=sources | {FEEDBACK.name: FEEDBACK},
        views=tuple(views),
        earlier=_earlier(data.get("earlier", ())),
        epoch=data.get("epoch", 0),
        digest=data.get("digest", ""),
    )
    if FEEDBACK.name in sources:
        raise InvalidError(f"a source cannot be named {FEEDBACK.name}: it is built in", code="bad_plan")
    for view in views:
        if view.source not in plan.sources:
            raise InvalidError(f"view {view.name} is over {view.source}, which is not in the plan", code="bad_plan")
    for spec in sources.values():
        _check_types(spec, totals.get(spec.name, LogTotals()))
    return plan


def remembered(name: str, total: LogTotals) -> SourceSpec:
    """What the log knows of a source that no plan declares any more: enough to bring its events to the lake."""
    columns = tuple(
        ColumnSpec(name=column, type=kind, scale=scale, nullable=True)
        for column, (kind, scale) in total.columns.items()
    )
    return SourceSpec(name=name, columns=columns, event_time="_event_time")


def _check_types(spec: SourceSpec, total: LogTotals) -> None:
    for name, (kind, scale) in meanings(spec).items():
        if name in total.columns and lake_type(*total.columns[name]) != lake_type(kind, scale):
            had = total.columns[name]
            raise ConflictError(
                f"column {name} of source {spec.name} has data as {had[0]} (scale {had[1]}) and is "
                f"declared as {kind} (scale {scale})",
                code="column_type_changed",
                hint=f"give the new column another name, or declare {name} as it was",
            )


def _declared(items: Sequence[Any], kind: type[Any]) -> list[Any]:
    try:
        return [item if isinstance(item, kind) else msgspec.convert(item, kind) for item in items]
    except (msgspec.ValidationError, TypeError) as error:
        raise InvalidError(f"the ingest plan cannot be read: {error}", code="bad_plan") from None


def _earlier(items: Sequence[Any]) -> tuple[tuple[ViewSpec, SourceSpec], ...]:
    views = _declared([item["view"] for item in items], ViewSpec)
    return tuple(zip(views, _declared([item["source"] for item in items], SourceSpec), strict=True))
