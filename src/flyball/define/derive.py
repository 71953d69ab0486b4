"""Derived sources: events computed from the events of another source, and from what was known beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from flyball.define.aggregate import Feature, Latest
from flyball.define.algebra import TEXTS, Expr, RowTime
from flyball.define.column import Column
from flyball.define.declaration import Declared, check_name, description_of, members, seal
from flyball.define.mistake import mistake
from flyball.define.source import Source
from flyball.define.spec import KERNEL_VERSION, ColumnSpec, DerivedColumnSpec, DeriveSpec, SourceSpec, ViewSpec
from flyball.kernel.ids import digest
from flyball.kernel.times import duration

DEFINITION_DIGITS = 8  # of the hash of a derivation that stand in its source's name


class DerivedColumn(Column):
    """A column that `fb.derive` adds, until its class gives it a name."""

    __slots__ = ("expr",)

    expr: Expr

    def __init__(self, expr: Expr, description: str) -> None:
        given: object = expr
        if not isinstance(given, Expr):
            raise mistake(f"fb.derive takes an expression over columns, not {expr!r}", hint="such as S.tips / S.fare")
        super().__init__(
            expr.type,
            nullable=True,  # an expression can always give null: of a null, by a division by zero, for want of a view
            categories=expr.categories,
            scale=_scale(expr),
            pii=any(column.spec.pii for column in _columns(expr)),
            sensitive=any(column.spec.sensitive for column in _columns(expr)),
            description=description,
        )
        self._set(expr=expr)

    def bound(self, owner: type, name: str) -> Column:
        raise mistake(
            f"{owner.__name__}.{name} is fb.derive(…), and {owner.__name__} is not a derived source",
            hint=f"write class {owner.__name__}(fb.Derived, source=…)",
        )


def derive(value: Expr, *, description: str = "") -> Column:
    """A column of a derived source: an expression over the columns of its parent and over latest views.

    A latest view is read as it was known when the parent's event became known: from events that happened before the
    parent's event, and were known by the time it was. Arithmetic gives floats; a bare column keeps its exact type.
    """
    return DerivedColumn(value, description)


class Deriving(Declared):
    """The metaclass of derived sources: a type checker takes it that the parent's columns are there."""

    if TYPE_CHECKING:

        def __getattr__(cls, name: str) -> Column: ...


class Derived(Source, metaclass=Deriving, event_time="", key="", base=True):
    """The events of another source for which `where` holds, with more columns: a filter, a join as known, or both.

    It has its parent's columns, event time and key, and each of its events is known when the parent's event is. It is
    computed by the platform: nobody pushes into it. A correction or deletion of the parent's event is one of its own.

    Its name carries the hash of its definition (`BigTrips@1f2e3d4c`), so a changed definition is another source, built
    from the parent's first event on, while the old one is kept up as long as a served version reads it.

    Class keywords:
        source: the parent.
        where: which of the parent's events count; it may read latest views too.
        retention: how long events are kept; as the parent's where it is not said.
        owner: who answers for it.
    """

    _parent: ClassVar[type[Source]]
    _reads: ClassVar[tuple[Expr, ...]]

    def __init_subclass__(
        cls, *, source: type[Source], where: Expr | None = None, retention: str | None = None, owner: str = ""
    ) -> None:
        stem = cls.__name__
        check_name(stem, stem, reserved=("predictions", "quarantine"))
        given: object = source
        if not (isinstance(given, Declared) and issubclass(given, Source) and given not in (Source, Derived)):
            raise mistake(f"{stem}: source is {source!r}, not a class that extends fb.Source")
        if cls.__mro__[1] is not Derived:
            raise mistake(f"{stem} extends {cls.__mro__[1].__name__}; write class {stem}(fb.Derived, source=…)")
        added = _added(cls, source, where)
        if where is not None:
            condition: object = where
            if not isinstance(condition, Expr) or where.type != "boolean":
                raise mistake(f"{stem}: where is not a condition; write a comparison, such as {source.__name__}.x > 0")
            _check_reads(f"{stem}: where", where, source)
        reads = (*((where,) if where is not None else ()), *(column.expr for column in added.values()))
        spec = DeriveSpec(
            source=source.__name__,
            where=None if where is None else where.to_data(),
            columns=tuple(DerivedColumnSpec(name=n, expr=c.expr.to_data()) for n, c in added.items()),
            views=_views(reads),
        )
        # Everything that refers to the source does so by this name: views, rows of models, tables, expressions.
        cls.__name__ = derived_name(stem, spec)
        columns = {name: Column.bound(column, cls, name) for name, column in source._columns.items()}
        columns |= {name: _plain(column).bound(cls, name) for name, column in added.items()}
        parent = source._spec
        cls._parent, cls._reads, cls._columns = source, reads, columns
        cls._spec = msgspec.structs.replace(
            parent,
            name=cls.__name__,
            columns=tuple(column.spec for column in columns.values()),
            retention=parent.retention if retention is None else duration(retention),
            owner=owner or parent.owner,
            description=description_of(cls),
            rules=(),  # the parent's events were judged already
            origin=None,
            derive=spec,
        )
        seal(cls, columns)


def derived_name(stem: str, spec: DeriveSpec) -> str:
    """The name of a derived source: what it is called, and the hash of what it means."""
    return f"{stem}@{digest([KERNEL_VERSION, spec.to_data()])[:DEFINITION_DIGITS]}"


def stem_of(source: str) -> str:
    """What a source is called, without the hash of a derivation."""
    return source.partition("@")[0]


def inputs_of(source: SourceSpec) -> tuple[str, ...]:
    """The sources that a derived source is computed from, its parent first; none for any other."""
    if source.derive is None:
        return ()
    return tuple(dict.fromkeys([source.derive.source, *(view.source for view in source.derive.views)]))


def _added(cls: type[Source], source: type[Source], where: Expr | None) -> dict[str, DerivedColumn]:
    bare = not any(not name.startswith("__") for name in cls.__dict__)
    if bare and where is None:
        raise mistake(f"{cls.__name__} derives nothing; give it where=…, or a column such as name = fb.derive(…)")
    added = {} if bare else members(cls, DerivedColumn, "column", "fb.derive(…)", reserved=("any",))
    for name, column in added.items():
        if name in source._columns:
            raise mistake(f"{cls.__name__}.{name}: {source.__name__} has a column of this name, which is inherited")
        _check_reads(f"{cls.__name__}.{name}", column.expr, source)
    return added


def _check_reads(shown: str, expr: Expr, source: type[Source]) -> None:
    for leaf in expr.leaves():
        if isinstance(leaf, RowTime) or (isinstance(leaf, Column) and leaf.owner is source):
            continue
        if not isinstance(leaf, Latest):
            raise mistake(
                f"{shown} reads {leaf!r}; it may read columns of {source.__name__}, and features of latest views",
                hint="give a window view's feature to the model instead" if isinstance(leaf, Feature) else "",
                code="foreign_column",
            )
        _check_lookup(shown, leaf, source)


def _check_lookup(shown: str, feature: Latest, source: type[Source]) -> None:
    for name, key in zip(feature.lookup, feature.view._entity, strict=True):
        column = source._columns.get(name)
        if column is None or (feature._lookup and any(c.owner is not source for c in feature._lookup)):
            raise mistake(
                f"{shown} looks up {feature!r} by {name!r}, which is not a column of {source.__name__}",
                hint=f"write {feature.view.__name__}.by({source.__name__}.column).{feature._name}",
                code="unknown_column",
            )
        if column.type != key.type and not {column.type, key.type} <= TEXTS:
            raise mistake(f"{shown}: {column!r} is a {column.type} and {key!r} a {key.type}", code="bad_type")


def _views(reads: tuple[Expr, ...]) -> tuple[ViewSpec, ...]:
    """The views that are read, by name, without what changes no value."""
    found = {
        leaf.view.__name__: leaf.view._spec for expr in reads for leaf in expr.leaves() if isinstance(leaf, Latest)
    }
    return tuple(msgspec.structs.replace(found[name], description="") for name in sorted(found))


def _columns(expr: Expr) -> list[Column]:
    """The columns whose values an expression shows, through views as well."""
    leaves = [leaf._column if isinstance(leaf, Latest) else leaf for leaf in expr.leaves()]
    return [leaf for leaf in leaves if isinstance(leaf, Column)]


def _scale(expr: Expr) -> int:
    columns = _columns(expr)
    return columns[0].spec.scale if expr.type == "decimal" and columns else 0


def _plain(column: DerivedColumn) -> Column:
    spec: dict[str, Any] = {
        f: getattr(column.spec, f) for f in ColumnSpec.__struct_fields__ if f not in ("name", "type")
    }
    return Column(column.spec.type, **spec)
