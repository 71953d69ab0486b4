"""Labels: what a model learns, and when it is certain."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from flyball.define.algebra import Expr, Literal
from flyball.define.column import Column
from flyball.define.mistake import mistake
from flyball.define.source import AnyEvent
from flyball.define.spec import AnyLabelSpec, LabelSpec, SplitSpec
from flyball.kernel.times import duration, show_duration


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """What a model learns.

    Args:
        of: an expression over the row itself, or `Source.any(on=…, within=…)`: true where that source has an event
            for the row within that time, false once the time has passed without one, unknown before.
        matures: how long after the row an expression is certain; without it, as soon as the row is known.
            Of `Source.any`, `within`, or longer.
        given: columns of the expression that are known when a prediction is asked for, and may be features. Without
            it: where a bare column is compared with an expression of others, those others.
    """

    of: Expr | AnyEvent
    _: KW_ONLY
    matures: str | None = None
    given: Column | tuple[Column, ...] = ()

    def __post_init__(self) -> None:
        given: object = self.of
        if isinstance(given, AnyEvent):
            self._check_any(given)
        elif isinstance(given, Expr) and not isinstance(given, Literal):
            self._check_expression(given)
        else:
            raise mistake(
                f"fb.Label takes an expression or Source.any(…), not {given!r}",
                hint='such as fb.Label(Trips.tips > 0, matures="1h")',
            )
        if self.matures is not None and duration(self.matures) < 0:
            raise mistake(f"matures is {self.matures!r}; a length of time is not negative")

    def _check_any(self, event: AnyEvent) -> None:
        if self._given():
            raise mistake("given= belongs to a label over the row itself, not to Source.any(…)")
        if self.matures is not None and duration(self.matures) < event.within:
            raise mistake(
                f"the label is looked for within {show_duration(event.within)} and cannot mature after {self.matures}",
                hint="leave matures= out, or make it longer than within=",
            )

    def _check_expression(self, expr: Expr) -> None:
        for leaf in expr.leaves():
            if not isinstance(leaf, Column):
                raise mistake(
                    f"the label reads {leaf!r}; it may read columns of the row only",
                    hint="for a label over another source write Source.any(on=…, within=…)",
                )
        read = [leaf.to_data() for leaf in expr.leaves()]
        for column in self._given():
            item: object = column
            if not isinstance(item, Column) or item.to_data() not in read:
                raise mistake(f"given= names {item!r}, which the label does not read")
        if not outcome_of(expr.to_data(), tuple(c.name for c in self._given())):
            raise mistake("all columns of the label are given; then there is nothing to learn")

    def _given(self) -> tuple[Column, ...]:
        return (self.given,) if isinstance(self.given, Expr) else tuple(self.given)

    def to_spec(self, known_after: int) -> LabelSpec:
        """The label as data; `known_after` is when a row itself is known, after its event."""
        if isinstance(self.of, AnyEvent):
            event = self.of
            return LabelSpec(
                any=AnyLabelSpec(
                    source=event.source.__name__,
                    on=event.on.name,
                    rows_on=event.rows_on.name,
                    within=event.within,
                    where=None if event.where is None else event.where.to_data(),
                ),
                matures=event.within if self.matures is None else duration(self.matures),
            )
        return LabelSpec(
            expr=self.of.to_data(),
            given=tuple(c.name for c in self._given()),
            matures=known_after if self.matures is None else duration(self.matures),
        )


def outcome_of(label: list[object], given: tuple[str, ...]) -> set[str]:
    """The columns of a label's expression that are unknown when a prediction is asked for: they are no features.

    All of them but the `given` ones. Where nothing is given and one bare column is compared with an expression that
    does not read it (`tips > 0.2 * fare`), that column is the outcome and the others are what it is measured by.
    """
    read = _columns(label)
    if given:
        return read - set(given)
    if label[0] in ("lt", "le", "gt", "ge", "eq", "ne"):
        sides = label[1:]
        for side, other in ((sides[0], sides[1]), (sides[1], sides[0])):
            assert isinstance(side, list)
            assert isinstance(other, list)
            if side[0] == "col" and other[0] != "col" and side[2] not in _columns(other):
                return {side[2]}
    return read


def _columns(expr: list[object]) -> set[str]:
    if expr[0] == "col":
        return {str(expr[2])}
    found: set[str] = set()
    for argument in expr[1:]:
        if isinstance(argument, list):
            found |= _columns(argument)
    return found


def by_time(*, test: float = 0.2) -> SplitSpec:
    """The last share `test` of the rows by time is held out."""
    if not 0 < test < 1:
        raise mistake(f"fb.by_time holds out a share between 0 and 1, not {test}")
    return SplitSpec(kind="time", test=test)
