"""The values of views: aggregations over a window, and latest values. As `View.feature`, each is an expression."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

from flyball.define.algebra import NUMBERS, Expr
from flyball.define.column import Column
from flyball.define.mistake import mistake
from flyball.define.spec import AggregateOp, AggregateSpec, ExprData, LatestSpec, ValueType
from flyball.kernel.errors import did_you_mean
from flyball.kernel.times import duration, hop

if TYPE_CHECKING:
    from flyball.define.view import View

_EXACT = frozenset({"decimal", "integer"})
_PICKS = frozenset({"first", "last", "nth_last"})
_PICKED = frozenset({"min", "max", "first", "last", "nth_last"})
_SPELLED = {"nth_last": "last_k"}
MOST_LAST = 100  # values of fb.last_k
MOST_DISTINCT = 1000  # unless a cap is declared


class Feature(Expr):
    """One value of a view; as `View.feature` it is an expression."""

    __slots__ = ("_lookup", "_name", "_view")

    _view: type[View] | None
    _name: str
    _lookup: tuple[Column, ...] | None

    def _unbound(self, type: ValueType, categories: tuple[str, ...] = ()) -> None:
        self._set(_view=None, _name="", _lookup=None)
        Expr.__init__(self, "view", (), type, categories)

    def bound(self, view: type[View], name: str, lookup: tuple[Column, ...] | None = None) -> Self:
        """A copy that belongs to `view` as its attribute `name`, looked up by columns of the rows."""
        feature = object.__new__(self.__class__)
        feature._set(**{slot: getattr(self, slot) for slot in self.__class__.__slots__})
        feature._set(_view=view, _name=name, _lookup=lookup)
        Expr.__init__(feature, "view", (), self._type, self._categories)
        return feature

    @property
    def view(self) -> type[View]:
        if self._view is None:
            raise mistake("this aggregation belongs to no view yet; use it as View.feature")
        return self._view

    @property
    def lookup(self) -> tuple[str, ...]:
        """The columns of the rows whose values are the entity: those of `.by`, else those of the entity's names."""
        return self.view._spec.entity if self._lookup is None else tuple(c.name for c in self._lookup)

    @property
    def full_name(self) -> str:
        """`View.feature`, or `View.by_payee.feature` in another role: its name among a model's features."""
        role = "" if self._lookup is None else f".by_{'_'.join(self.lookup)}"
        return f"{self.view.__name__}{role}.{self._name}"

    def to_data(self) -> ExprData:
        return ["view", self.view.__name__, self._name, list(self.lookup)]

    def leaves(self) -> Iterator[Expr]:
        yield self

    def __str__(self) -> str:
        return self.full_name if self._view else "an aggregation"


class Windowed:
    """What stands in the body of a window view."""

    __slots__ = ()


class Aggregate(Feature, Windowed):
    """An aggregation over the events of a window."""

    __slots__ = ("_aggregate", "_value", "_where")

    _aggregate: AggregateSpec
    _value: Expr | None
    _where: Expr | None

    def __init__(
        self,
        op: AggregateOp,
        value: Expr | None,
        window: str,
        where: Expr | None,
        default: float | None,
        *,
        nth: int = 1,
        cap: int = MOST_DISTINCT,
    ) -> None:
        length = duration(window)
        if length <= 0:
            raise mistake(f"the window of fb.{_SPELLED.get(op, op)} must be longer than 0, not {window!r}")
        if op in _PICKS and default is not None and isinstance(value, Expr) and value.type == "boolean":
            raise mistake(f"{value!r} is true or false, and what fb.{_SPELLED.get(op, op)} picks of it has no default")
        type, scale = _result(op, value)
        self._set(
            _value=value,
            _where=where,
            _aggregate=AggregateSpec(
                name="",
                op=op,
                value=None if value is None else value.to_data(),
                where=None if where is None else where.to_data(),
                window=length,
                hop=hop(length),
                type=type,
                scale=scale,
                default=None if default is None else float(default),
                nth=nth,
                cap=cap,
            ),
        )
        self._unbound(type)


class LastK(Windowed):
    """The newest k values of a window, each a feature of its own: `View.name[1]` is the newest."""

    __slots__ = ("_name", "_parts")

    def __init__(self, parts: tuple[Aggregate, ...], name: str = "fb.last_k(…)") -> None:
        self._parts = parts
        self._name = name

    def named(self, name: str) -> dict[str, Aggregate]:
        """The features that it stands for, by their names: `name_1` is the newest."""
        return {f"{name}_{n}": part for n, part in enumerate(self._parts, 1)}

    def nth(self, n: int) -> Aggregate:
        """The n-th newest value; 1 is the newest."""
        if type(n) is not int or not 1 <= n <= len(self._parts):
            raise mistake(f"{self._name} has the values 1 (the newest) to {len(self._parts)}, not {n!r}")
        return self._parts[n - 1]

    __getitem__ = nth

    def __len__(self) -> int:
        return len(self._parts)

    def __iter__(self) -> Iterator[Aggregate]:
        return iter(self._parts)

    def __repr__(self) -> str:
        return self._name


def _result(op: AggregateOp, value: Expr | None) -> tuple[ValueType, int]:
    """Sums and picked values of whole numbers and decimals stay exact; all else is a float."""
    if op == "count":
        return "integer", 0
    if not isinstance(value, Expr):
        raise mistake(
            f"fb.{_SPELLED.get(op, op)} aggregates a column or an expression, not {value!r}",
            hint="such as fb.mean(S.x, '1d')",
        )
    if op == "distinct":
        return "integer", 0
    if value.type == "timestamp" and op in _PICKED:
        return "timestamp", 0
    if value.type not in NUMBERS:
        better = "; use fb.LatestView with fb.latest(…)" if op in ("first", "last") else "; aggregate a number"
        raise mistake(
            f"fb.{_SPELLED.get(op, op)} takes numbers, and {value!r} is a {value.type}{better}", code="bad_type"
        )
    if (op == "sum" or op in _PICKED) and isinstance(value, Column) and value.type in _EXACT:
        return value.type, value.spec.scale
    return "float", 0


def count(window: str, *, where: Expr | None = None) -> Aggregate:
    """How many events, or how many for which `where` is true."""
    return Aggregate("count", None, window, where, 0)


def sum(value: Expr, window: str, *, where: Expr | None = None, default: float | None = 0) -> Aggregate:
    """The sum; exact for a bare column of whole numbers or decimals. 0 where nothing was seen."""
    return Aggregate("sum", value, window, where, default)


def mean(value: Expr, window: str, *, where: Expr | None = None, default: float | None = None) -> Aggregate:
    """The mean; of a condition, the share of events for which it holds."""
    return Aggregate("mean", value, window, where, default)


def std(value: Expr, window: str, *, where: Expr | None = None, default: float | None = None) -> Aggregate:
    """The sample standard deviation; null for fewer than two events."""
    return Aggregate("std", value, window, where, default)


def min(value: Expr, window: str, *, where: Expr | None = None, default: float | None = None) -> Aggregate:
    """The smallest value in the window."""
    return Aggregate("min", value, window, where, default)


def max(value: Expr, window: str, *, where: Expr | None = None, default: float | None = None) -> Aggregate:
    """The greatest value in the window."""
    return Aggregate("max", value, window, where, default)


def first(value: Expr, window: str, *, where: Expr | None = None, default: float | None = None) -> Aggregate:
    """The value of the earliest event in the window."""
    return Aggregate("first", value, window, where, default)


def last(value: Expr, window: str, *, where: Expr | None = None, default: float | None = None) -> Aggregate:
    """The value of the newest event in the window."""
    return Aggregate("last", value, window, where, default)


def last_k(value: Expr, k: int, window: str, *, where: Expr | None = None, default: float | None = None) -> LastK:
    """The newest k values in the window, as k features: `name_1` is the newest, `View.name[1]` its expression."""
    if type(k) is not int or not 1 <= k <= MOST_LAST:
        raise mistake(f"fb.last_k keeps 1 to {MOST_LAST} values, not {k!r}", hint="write fb.last_k(S.x, 3, '7d')")
    return LastK(tuple(Aggregate("nth_last", value, window, where, default, nth=n) for n in range(1, k + 1)))


def distinct(value: Expr, window: str, *, cap: int = MOST_DISTINCT, where: Expr | None = None) -> Aggregate:
    """How many different values there are; exact up to `cap` of them, and then `cap`."""
    if type(cap) is not int or not 1 <= cap <= 10 * MOST_DISTINCT:
        raise mistake(f"the cap of fb.distinct is 1 to {10 * MOST_DISTINCT}, not {cap!r}")
    return Aggregate("distinct", value, window, where, 0, cap=cap)


class Latest(Feature):
    """The value of a column in the entity's newest event."""

    __slots__ = ("_column", "_latest")

    _column: Column
    _latest: LatestSpec

    def __init__(self, column: Column, default: float | str | None) -> None:
        if not isinstance(column, Column):
            raise mistake(f"fb.latest takes a column, not {column!r}", hint="compute with it in a transform")
        spec = column.spec
        if spec.type == "string":
            raise mistake(
                f"{column!r} is free text, and a feature is a number or a category",
                hint="declare it with fb.Category and its values",
                code="bad_type",
            )
        if isinstance(default, str) != (spec.type == "category") and default is not None:
            raise mistake(f"the default {default!r} of fb.latest does not fit {column!r}, a {spec.type}")
        if spec.type == "category" and default is not None and default not in spec.categories:
            near = did_you_mean(str(default), spec.categories)
            raise mistake(f"the default {default!r} is not a category of {column!r}; {near}", code="unknown_category")
        self._set(
            _column=column,
            _latest=LatestSpec(
                name="",
                column=column.name,
                type=spec.type,
                scale=spec.scale,
                categories=spec.categories,
                default=float(default) if isinstance(default, (int, float)) else default,
            ),
        )
        self._unbound(spec.type, spec.categories)


def latest(column: Column, *, default: float | str | None = None) -> Latest:
    """The value of a column in the entity's newest event."""
    return Latest(column, default)
