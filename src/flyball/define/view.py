"""Views: what is known of an entity from its events, as windows over time or as latest values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Self, TypeVar, cast

import msgspec

from flyball.define.algebra import NUMBERS, TEXTS, Expr
from flyball.define.column import Column
from flyball.define.declaration import Declared, check_name, description_of, members, seal
from flyball.define.mistake import mistake
from flyball.define.source import Source, check_columns, check_condition
from flyball.define.spec import AggregateOp, AggregateSpec, ExprData, LatestSpec, ValueType, ViewSpec
from flyball.kernel.errors import did_you_mean
from flyball.kernel.times import duration, hop

_RESERVED = ("by",)
_EXACT = frozenset({"decimal", "integer"})


FeatureT = TypeVar("FeatureT", bound="Feature")
SpecT = TypeVar("SpecT", bound=msgspec.Struct)


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


class Aggregate(Feature):
    """An aggregation over the events of a window."""

    __slots__ = ("_aggregate", "_value", "_where")

    _aggregate: AggregateSpec
    _value: Expr | None
    _where: Expr | None

    def __init__(
        self, op: AggregateOp, value: Expr | None, window: str, where: Expr | None, default: float | None
    ) -> None:
        length = duration(window)
        if length <= 0:
            raise mistake(f"the window of fb.{op} must be longer than 0, not {window!r}")
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
            ),
        )
        self._unbound(type)


def _result(op: AggregateOp, value: Expr | None) -> tuple[ValueType, int]:
    """Sums and picked values of whole numbers and decimals stay exact; all else is a float."""
    if op == "count":
        return "integer", 0
    if not isinstance(value, Expr):
        raise mistake(f"fb.{op} aggregates a column or an expression, not {value!r}", hint="such as fb.mean(S.x, '1d')")
    if value.type == "timestamp" and op in ("min", "max", "first", "last"):
        return "timestamp", 0
    if value.type not in NUMBERS:
        better = "; use fb.LatestView with fb.latest(…)" if op in ("first", "last") else "; aggregate a number"
        raise mistake(f"fb.{op} takes numbers, and {value!r} is a {value.type}{better}", code="bad_type")
    if op in ("sum", "min", "max", "first", "last") and isinstance(value, Column) and value.type in _EXACT:
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


class View(metaclass=Declared):
    """What window views and latest views share."""

    _noun = "feature"
    _spec: ClassVar[ViewSpec]
    _source: ClassVar[type[Source]]
    _entity: ClassVar[tuple[Column, ...]]
    _features: ClassVar[dict[str, Feature]]

    @classmethod
    def by(cls, *columns: Column) -> type[Self]:
        """This view looked up by other columns of the rows, in the order of its entity."""
        return cast("type[Self]", Role(cls, columns))


class WindowView(View):
    """Aggregations over the events of an entity within windows of time.

    Class keywords:
        source: the source whose events are aggregated.
        entity: the column, or several, whose values make an entity; without it there is one global entity.
        where: which events count at all.
    """

    def __init_subclass__(
        cls,
        *,
        source: type[Source],
        entity: Column | tuple[Column, ...] | None = None,
        where: Expr | None = None,
    ) -> None:
        declared = _declare(cls, source, entity, where, Aggregate, 'fb.count("7d")')
        features: dict[str, Feature] = {}
        for name, aggregate in declared.items():
            shown = f"{cls.__name__}.{name}"
            if aggregate._value is not None:
                check_columns(shown, aggregate._value, source)
            if aggregate._where is not None:
                check_condition(f"{shown}: where", aggregate._where, source)
            features[name] = aggregate.bound(cls, name)
        cls._spec = ViewSpec(
            name=cls.__name__,
            kind="window",
            source=source.__name__,
            entity=tuple(c.name for c in cls._entity),
            aggregates=tuple(_renamed(a._aggregate, name) for name, a in declared.items()),
            where=None if where is None else where.to_data(),
            description=description_of(cls),
        )
        cls._features = features
        seal(cls, features)


class LatestView(View):
    """The latest values of an entity.

    Class keywords:
        source, entity, where: as for `WindowView`.
        ttl: how old an event may be; for ever where it is not said.
    """

    def __init_subclass__(
        cls,
        *,
        source: type[Source],
        entity: Column | tuple[Column, ...] | None = None,
        where: Expr | None = None,
        ttl: str | None = None,
    ) -> None:
        declared = _declare(cls, source, entity, where, Latest, "fb.latest(Source.column)")
        for name, feature in declared.items():
            check_columns(f"{cls.__name__}.{name}", feature._column, source)
        cls._spec = ViewSpec(
            name=cls.__name__,
            kind="latest",
            source=source.__name__,
            entity=tuple(c.name for c in cls._entity),
            latest=tuple(_renamed(f._latest, name) for name, f in declared.items()),
            where=None if where is None else where.to_data(),
            ttl=None if ttl is None else duration(ttl),
            description=description_of(cls),
        )
        cls._features = {name: feature.bound(cls, name) for name, feature in declared.items()}
        seal(cls, cls._features)


def _renamed(spec: SpecT, name: str) -> SpecT:
    return msgspec.structs.replace(spec, name=name)


def _declare(
    cls: type[View],
    source: type[Source],
    entity: Column | tuple[Column, ...] | None,
    where: Expr | None,
    kind: type[FeatureT],
    example: str,
) -> dict[str, FeatureT]:
    """Check what both kinds of view share, and give the features of the class body."""
    check_name(cls.__name__, cls.__name__)
    given: object = source
    if not (isinstance(given, Declared) and issubclass(given, Source) and given is not Source):
        raise mistake(f"{cls.__name__}: source is {source!r}, not a class that extends fb.Source")
    columns = () if entity is None else (entity,) if isinstance(entity, Expr) else tuple(entity)
    for column in columns:
        if not isinstance(column, Column):
            raise mistake(
                f"{cls.__name__}: entity is {column!r}, not a column", hint=f"write entity={source.__name__}.column"
            )
        check_columns(f"{cls.__name__}: entity", column, source)
        if column.type in ("float", "timestamp"):
            raise mistake(f"{cls.__name__}: {column!r} is a {column.type}; an entity is a text, a number or a category")
    if len({c.name for c in columns}) < len(columns):
        raise mistake(f"{cls.__name__}: a column stands twice in entity")
    if where is not None:
        check_condition(f"{cls.__name__}: where", where, source)
    declared = members(cls, kind, "feature", example, reserved=_RESERVED)
    cls._source, cls._entity = source, columns
    return declared


class Role:
    """A view looked up by other columns of the rows; its attributes are the view's features in that role."""

    __slots__ = ("columns", "view")

    view: type[View]
    columns: tuple[Column, ...]

    def __init__(self, view: type[View], columns: tuple[Column, ...]) -> None:
        entity = view._entity
        if len(columns) != len(entity):
            names = ", ".join(c.name for c in entity) or "none"
            raise mistake(f"{view.__name__}.by takes {len(entity)} columns (for {names}), not {len(columns)}")
        for column, key in zip(columns, entity, strict=True):
            if not isinstance(column, Column):
                raise mistake(f"{view.__name__}.by takes columns of the rows, not {column!r}")
            if column.type != key.type and not {column.type, key.type} <= TEXTS:
                raise mistake(
                    f"{view.__name__}.by: {column!r} is a {column.type} and {key!r} a {key.type}", code="bad_type"
                )
        if len({c.owner for c in columns}) > 1:
            raise mistake(f"{view.__name__}.by takes columns of one source, the rows'")
        object.__setattr__(self, "view", view)
        object.__setattr__(self, "columns", columns)

    def __setattr__(self, name: str, value: object) -> None:
        raise mistake(f"{self!r} does not change; {name!r} cannot be set", code="frozen")

    def __getattr__(self, name: str) -> Feature:
        if name.startswith("_"):
            raise AttributeError(name)
        feature = self.view._features.get(name)
        if feature is None:
            getattr(self.view, name)  # says what there is instead
            raise AttributeError(name)
        return feature.bound(self.view, name, self.columns)

    def features(self) -> tuple[Feature, ...]:
        """All features of the view, in this role."""
        return tuple(f.bound(self.view, name, self.columns) for name, f in self.view._features.items())

    def __repr__(self) -> str:
        return f"{self.view.__name__}.by({', '.join(map(repr, self.columns))})"
