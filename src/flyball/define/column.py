"""The columns of a source: typed attributes, and expressions at once."""

from __future__ import annotations

import builtins
import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec

from flyball.define.algebra import Expr
from flyball.define.mistake import mistake
from flyball.define.spec import Action, ColumnSpec, ColumnType, ExprData, ValueType

MAX_SCALE = 15  # digits after the point; amounts are kept in 64-bit integers


class Column(Expr):
    """A column of a source. It gets its name and its source from the class in which it stands.

    `on_violation` says what becomes of a value that breaks the column's contract: `reject_row` quarantines its row,
    `reject_batch` refuses the whole push, and `warn` counts and accepts values out of bounds, of a wrong pattern or too
    long. A value that cannot be read, an unknown category and a missing value are never accepted.
    """

    __slots__ = ("_owner", "_spec")

    _owner: builtins.type | None
    _spec: ColumnSpec

    def __init__(self, type: ColumnType, **spec: Any) -> None:
        self._set(_owner=None, _spec=_violation(ColumnSpec(name="", type=type, **spec)))
        super().__init__("col", (), type, self._spec.categories)

    def bound(self, owner: builtins.type, name: str) -> Column:
        """A copy that belongs to `owner` as its attribute `name`."""
        column = object.__new__(self.__class__)
        column._set(_owner=owner, _spec=msgspec.structs.replace(self._spec, name=name))
        Expr.__init__(column, "col", (), self._type, self._categories)
        return column

    @property
    def spec(self) -> ColumnSpec:
        return self._spec

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def type(self) -> ValueType:
        return self._spec.type

    @property
    def owner(self) -> builtins.type:
        """The source or request that declares the column."""
        if self._owner is None:
            raise mistake(f"this {self._spec.type} column belongs to no source yet; use it as Source.column")
        return self._owner

    def to_data(self) -> ExprData:
        return ["col", self.owner.__name__, self.name]

    def leaves(self) -> Iterator[Expr]:
        yield self

    def __str__(self) -> str:
        return f"{self._owner.__name__}.{self.name}" if self._owner else f"fb.{self.__class__.__name__}()"


def _violation(spec: ColumnSpec) -> ColumnSpec:
    """Refuse an `on_violation` that is none, or that could never do anything."""
    if spec.on_violation not in get_args(Action):
        raise mistake(
            f"on_violation {spec.on_violation!r} is none of {', '.join(map(repr, get_args(Action)))}",
        )
    rules = (spec.ge, spec.gt, spec.le, spec.lt, spec.max_length, spec.pattern or None)
    if spec.on_violation == "warn" and all(rule is None for rule in rules):
        raise mistake(
            f'on_violation="warn" of a {spec.type} column has nothing to warn of: it accepts values out of bounds, of '
            "a wrong pattern or too long, and never one that cannot be read",
            hint="give the column a bound or a pattern, or write a rule: fb.check(…, action='warn')",
        )
    return spec


class String(Column):
    """Free text. As a feature, declare it a `Category`; as an entity or a key it may be free.

    Args:
        pattern: a regular expression that the whole text must match.
        max_length: in characters.
        pii: personal data; never in logs, messages or prediction logs as it is.
        sensitive: used to evaluate by group, never a feature.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        nullable: bool = False,
        pattern: str = "",
        max_length: int | None = None,
        pii: bool = False,
        sensitive: bool = False,
        description: str = "",
        on_violation: Action = "reject_row",
    ) -> None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise mistake(f"pattern {pattern!r} is not a regular expression: {error}") from None
        if max_length is not None and max_length < 1:
            raise mistake(f"max_length must be at least 1, not {max_length}")
        super().__init__(
            "string",
            nullable=nullable,
            pattern=pattern,
            max_length=max_length,
            pii=pii,
            sensitive=sensitive,
            description=description,
            on_violation=on_violation,
        )


class Category(Column):
    """One of the named values; any other value is refused by the contract."""

    __slots__ = ()

    def __init__(
        self,
        *categories: str,
        nullable: bool = False,
        pii: bool = False,
        sensitive: bool = False,
        description: str = "",
        on_violation: Action = "reject_row",
    ) -> None:
        if not categories:
            raise mistake('fb.Category needs its values, such as fb.Category("cash", "card")')
        for value in categories:
            if not isinstance(value, str):
                raise mistake(
                    f"a category is a text, not {value!r}", hint='write the values one by one: fb.Category("a", "b")'
                )
        twice = sorted({c for c in categories if categories.count(c) > 1})
        if twice:
            raise mistake(f"the category {twice[0]!r} stands twice")
        super().__init__(
            "category",
            categories=categories,
            nullable=nullable,
            pii=pii,
            sensitive=sensitive,
            description=description,
            on_violation=on_violation,
        )


class _Number(Column):
    """A column with bounds: `ge` and `le` are inclusive, `gt` and `lt` are not."""

    __slots__ = ()

    def _init(self, type: ColumnType, **spec: Any) -> None:
        lower = [spec[k] for k in ("ge", "gt") if spec[k] is not None]
        upper = [spec[k] for k in ("le", "lt") if spec[k] is not None]
        if len(lower) > 1 or len(upper) > 1:
            raise mistake("give one lower bound (ge= or gt=) and one upper bound (le= or lt=)")
        if lower and upper and lower[0] > upper[0]:
            raise mistake(f"the lower bound {lower[0]} is above the upper bound {upper[0]}")
        for bound in ("ge", "gt", "le", "lt"):
            spec[bound] = None if spec[bound] is None else float(spec[bound])  # as it comes back from JSON
        super().__init__(type, **spec)


class Decimal(_Number):
    """An exact amount with `scale` digits after the point, such as money; sums are exact."""

    __slots__ = ()

    def __init__(
        self,
        scale: int,
        *,
        nullable: bool = False,
        ge: float | None = None,
        gt: float | None = None,
        le: float | None = None,
        lt: float | None = None,
        pii: bool = False,
        sensitive: bool = False,
        description: str = "",
        on_violation: Action = "reject_row",
    ) -> None:
        digits: object = scale
        if not isinstance(digits, int) or not 0 <= digits <= MAX_SCALE:
            raise mistake(f"fb.Decimal takes the digits after the point, 0 to {MAX_SCALE}, not {scale!r}")
        self._init(
            "decimal",
            scale=scale,
            nullable=nullable,
            ge=ge,
            gt=gt,
            le=le,
            lt=lt,
            pii=pii,
            sensitive=sensitive,
            description=description,
            on_violation=on_violation,
        )


class Float(_Number):
    """A 64-bit floating point number; NaN is read as missing."""

    __slots__ = ()

    def __init__(
        self,
        *,
        nullable: bool = False,
        ge: float | None = None,
        gt: float | None = None,
        le: float | None = None,
        lt: float | None = None,
        pii: bool = False,
        sensitive: bool = False,
        description: str = "",
        on_violation: Action = "reject_row",
    ) -> None:
        self._init(
            "float",
            nullable=nullable,
            ge=ge,
            gt=gt,
            le=le,
            lt=lt,
            pii=pii,
            sensitive=sensitive,
            description=description,
            on_violation=on_violation,
        )


class Integer(_Number):
    """A 64-bit whole number."""

    __slots__ = ()

    def __init__(
        self,
        *,
        nullable: bool = False,
        ge: int | None = None,
        gt: int | None = None,
        le: int | None = None,
        lt: int | None = None,
        pii: bool = False,
        sensitive: bool = False,
        description: str = "",
        on_violation: Action = "reject_row",
    ) -> None:
        self._init(
            "integer",
            nullable=nullable,
            ge=ge,
            gt=gt,
            le=le,
            lt=lt,
            pii=pii,
            sensitive=sensitive,
            description=description,
            on_violation=on_violation,
        )


class Boolean(Column):
    """True or false; also a condition in expressions."""

    __slots__ = ()

    def __init__(
        self,
        *,
        nullable: bool = False,
        pii: bool = False,
        sensitive: bool = False,
        description: str = "",
        on_violation: Action = "reject_row",
    ) -> None:
        super().__init__(
            "boolean",
            nullable=nullable,
            pii=pii,
            sensitive=sensitive,
            description=description,
            on_violation=on_violation,
        )


class Timestamp(Column):
    """A point in time, UTC, to the microsecond."""

    __slots__ = ()

    def __init__(
        self,
        *,
        nullable: bool = False,
        pii: bool = False,
        sensitive: bool = False,
        description: str = "",
        on_violation: Action = "reject_row",
    ) -> None:
        super().__init__(
            "timestamp",
            nullable=nullable,
            pii=pii,
            sensitive=sensitive,
            description=description,
            on_violation=on_violation,
        )
