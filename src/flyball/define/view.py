"""Views: what is known of an entity from its events, as windows over time or as latest values."""

from __future__ import annotations

from typing import ClassVar, Self, TypeVar, cast

import msgspec

from flyball.define.aggregate import Aggregate, Feature, LastK, Latest, Windowed
from flyball.define.algebra import TEXTS, Expr
from flyball.define.column import Column
from flyball.define.declaration import Declared, check_name, description_of, members, seal
from flyball.define.mistake import mistake
from flyball.define.source import Source, check_columns, check_condition
from flyball.define.spec import ViewSpec
from flyball.kernel.times import duration

_RESERVED = ("by",)


FeatureT = TypeVar("FeatureT", bound="Feature | Windowed")
SpecT = TypeVar("SpecT", bound=msgspec.Struct)


class View(metaclass=Declared):
    """What window views and latest views share."""

    _noun = "feature"
    _spec: ClassVar[ViewSpec]
    _source: ClassVar[type[Source]]
    _entity: ClassVar[tuple[Column, ...]]
    _features: ClassVar[dict[str, Feature]]
    _lists: ClassVar[dict[str, LastK]] = {}

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
        body = _declare(cls, source, entity, where, Windowed, 'fb.count("7d")')
        declared = _scalars(cls.__name__, body)
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
        cls._lists = {
            name: LastK(tuple(_features_of(features, value, name)), f"{cls.__name__}.{name}")
            for name, value in body.items()
            if isinstance(value, LastK)
        }
        seal(cls, features | cls._lists)


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


def _scalars(view: str, body: dict[str, Windowed]) -> dict[str, Aggregate]:
    """The features of a class body, those of fb.last_k one by one."""
    found: dict[str, Aggregate] = {}
    for name, value in body.items():
        mine = value.named(name) if isinstance(value, LastK) else {name: cast("Aggregate", value)}
        for each in mine:
            if each in found or (each != name and each in body):
                raise mistake(f"{view}.{name} stands for {each} among others, which {view} declares too")
        found |= mine
    return found


def _features_of(features: dict[str, Feature], last: LastK, name: str) -> list[Aggregate]:
    return [cast("Aggregate", features[each]) for each in last.named(name)]


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

    def __getattr__(self, name: str) -> Feature | LastK:
        if name.startswith("_"):
            raise AttributeError(name)
        last = self.view._lists.get(name)
        if last is not None:
            return LastK(tuple(f.bound(self.view, f._name, self.columns) for f in last), f"{self!r}.{name}")
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
