"""Expressions as values: what `Trips.tips > 0.2 * Trips.fare` is.

An `Expr` is immutable, knows its type, and compiles to the list form of `flyball.define.expression`. It has no truth
value: `if`, `and`, `or`, `not` and chained comparisons raise an error that names the spelling to use.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from decimal import Decimal as PythonDecimal
from typing import Any, NoReturn

from flyball.define.mistake import mistake, user_location
from flyball.define.notation import ANY_FUNCTION, FUNCTIONS, POWER, SYMBOLS, show, truth_spelling
from flyball.define.spec import ExprData, ValueType
from flyball.kernel.errors import did_you_mean
from flyball.kernel.times import from_datetime

NUMBERS = frozenset({"decimal", "float", "integer", "boolean"})
TEXTS = frozenset({"string", "category"})


class Expr:
    """A value computed from columns and features of views, row by row. Immutable."""

    __slots__ = ("_args", "_categories", "_op", "_type")
    __array_priority__ = 1000  # NumPy leaves operators to us

    _op: str
    _args: tuple[Any, ...]
    _type: ValueType
    _categories: tuple[str, ...]

    def __init__(self, op: str, args: tuple[Any, ...], type: ValueType, categories: tuple[str, ...] = ()) -> None:
        self._set(_op=op, _args=args, _type=type, _categories=categories)

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise mistake(f"an expression does not change; {name!r} cannot be set", code="frozen")

    def __delattr__(self, name: str) -> None:
        raise mistake(f"an expression does not change; {name!r} cannot be deleted", code="frozen")

    # What it is

    @property
    def type(self) -> ValueType:
        """The type of the value; all arithmetic is `float`."""
        return self._type

    @property
    def categories(self) -> tuple[str, ...]:
        """The values a `category` may have; empty for other types."""
        return self._categories

    def to_data(self) -> ExprData:
        """The expression as nested lists (`flyball.define.expression`)."""
        return [self._op, *(a.to_data() for a in self._args)]

    def leaves(self) -> Iterator[Expr]:
        """Columns, features and the row's time that are read, left to right, literals left out."""
        for argument in self._args:
            yield from argument.leaves()

    def parts(self) -> Iterator[Expr]:
        """This expression and all those it is built from."""
        yield self
        for argument in self._args:
            if isinstance(argument, Expr):
                yield from argument.parts()

    def __repr__(self) -> str:
        return show(self)

    __hash__ = object.__hash__

    # Arithmetic

    def __add__(self, other: Any) -> Expr:
        return build("add", self, other)

    def __radd__(self, other: Any) -> Expr:
        return build("add", other, self)

    def __sub__(self, other: Any) -> Expr:
        return build("sub", self, other)

    def __rsub__(self, other: Any) -> Expr:
        return build("sub", other, self)

    def __mul__(self, other: Any) -> Expr:
        return build("mul", self, other)

    def __rmul__(self, other: Any) -> Expr:
        return build("mul", other, self)

    def __truediv__(self, other: Any) -> Expr:
        return build("div", self, other)

    def __rtruediv__(self, other: Any) -> Expr:
        return build("div", other, self)

    def __floordiv__(self, other: Any) -> Expr:
        return build("floor", build("div", self, other))

    def __rfloordiv__(self, other: Any) -> Expr:
        return build("floor", build("div", other, self))

    def __mod__(self, other: Any) -> Expr:
        whole = build("mul", build("floor", build("div", self, other)), other)
        return build("sub", self, whole)

    def __pow__(self, exponent: Any) -> Expr:
        if exponent == 2 and not isinstance(exponent, Expr):
            return self * self
        raise mistake(f"{show(self)} ** {exponent!r} has no operator; only ** 2 has", code="not_traceable", hint=POWER)

    def __neg__(self) -> Expr:
        return build("neg", self)

    def __pos__(self) -> Expr:
        return self

    def __abs__(self) -> Expr:
        return build("abs", self)

    def __floor__(self) -> Expr:
        return build("floor", self)

    # Comparison and logic

    def __lt__(self, other: Any) -> Expr:
        return build("lt", self, other)

    def __le__(self, other: Any) -> Expr:
        return build("le", self, other)

    def __gt__(self, other: Any) -> Expr:
        return build("gt", self, other)

    def __ge__(self, other: Any) -> Expr:
        return build("ge", self, other)

    def __eq__(self, other: Any) -> Expr:  # type: ignore[override]
        return build("eq", self, other)

    def __ne__(self, other: Any) -> Expr:  # type: ignore[override]
        return build("ne", self, other)

    def __and__(self, other: Any) -> Expr:
        return build("and", self, other)

    def __rand__(self, other: Any) -> Expr:
        return build("and", other, self)

    def __or__(self, other: Any) -> Expr:
        return build("or", self, other)

    def __ror__(self, other: Any) -> Expr:
        return build("or", other, self)

    def __invert__(self) -> Expr:
        return build("not", self)

    def is_null(self) -> Expr:
        """True where the value is missing."""
        return build("is_null", self)

    def isin(self, *values: Any) -> Expr:
        """True where the value is one of the literals, given one by one or as one list, tuple or set."""
        if len(values) == 1 and isinstance(values[0], (list, tuple, set, frozenset)):
            given = values[0]
            values = tuple(sorted(given, key=repr)) if isinstance(given, (set, frozenset)) else tuple(given)
        if not values:
            raise mistake(f"{show(self)}.isin() needs at least one value")
        if any(isinstance(v, Expr) for v in values):
            raise mistake(
                f"{show(self)}.isin(…) takes literals; compare with an expression by == and join with |",
            )
        return build("in", self, *values)

    def hour(self) -> Expr:
        """The hour of a timestamp, 0 to 23, UTC."""
        return build("hour", self)

    def weekday(self) -> Expr:
        """The day of the week of a timestamp, Monday is 0, UTC."""
        return build("weekday", self)

    def named(self, name: str) -> Named:
        """This expression under a name of its own, to stand in a list of features."""
        return Named(name, self)

    # What cannot be traced

    def __bool__(self) -> bool:
        raise _no_truth(self)

    def __float__(self) -> float:
        raise _no_number(self, "float")

    def __int__(self) -> int:
        raise _no_number(self, "int")

    def __index__(self) -> int:
        raise _no_number(self, "an index")

    def __round__(self, digits: int = 0) -> NoReturn:
        raise mistake(f"round({show(self)}) has no operator; use fb.floor(x + 0.5)", code="not_traceable")

    def __iter__(self) -> Iterator[Any]:
        raise mistake(
            f"{show(self)} is one value per row and cannot be looped over",
            code="not_traceable",
            hint="use fb.WindowView to aggregate over events, or fb.minimum and fb.maximum over two values",
        )

    def __len__(self) -> int:
        raise mistake(f"{show(self)} is one value per row and has no length", code="not_traceable")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> NoReturn:
        name = getattr(ufunc, "__name__", str(ufunc))
        raise mistake(f"NumPy's {name} cannot be traced", code="not_traceable", hint=FUNCTIONS.get(name, ANY_FUNCTION))

    def __array__(self, *args: Any, **options: Any) -> NoReturn:
        raise mistake(f"{show(self)} cannot become a NumPy array", code="not_traceable", hint=ANY_FUNCTION)


class Literal(Expr):
    """A constant."""

    __slots__ = ()

    def to_data(self) -> ExprData:
        return ["lit", self._args[0]]

    def leaves(self) -> Iterator[Expr]:
        return iter(())


class RowTime(Expr):
    """The time of the row for which a value is computed."""

    __slots__ = ()

    def to_data(self) -> ExprData:
        return ["time"]

    def leaves(self) -> Iterator[Expr]:
        yield self


class Named(Expr):
    """An expression with a name, as `@fb.transform` and `.named()` give it; compiles to the expression itself."""

    __slots__ = ("_module", "_name")

    _name: str
    _module: str

    def __init__(self, name: str, expr: Expr, module: str = "") -> None:
        if not name.isidentifier() or name.startswith("_"):
            raise mistake(f"{name!r} is not a name for a feature; use letters, digits and _, and begin with a letter")
        super().__init__("named", (expr,), expr.type, expr.categories)
        self._set(_name=name, _module=module)

    def __str__(self) -> str:
        return self._name

    @property
    def name(self) -> str:
        return self._name

    @property
    def module(self) -> str:
        """Where the transform is declared; empty for what `.named()` gives."""
        return self._module

    def to_data(self) -> ExprData:
        data: ExprData = self._args[0].to_data()
        return data


# Building


def literal(value: object) -> Expr:
    """An expression for a Python constant; datetimes become microseconds, decimals become floats."""
    if isinstance(value, Expr):
        return value
    if isinstance(value, bool):
        return Literal("lit", (value,), "boolean")
    if isinstance(value, int):
        return Literal("lit", (value,), "integer")
    if isinstance(value, (float, PythonDecimal)):
        if not math.isfinite(value):
            raise mistake(f"{value} is not a finite number; a missing value is tested with x.is_null()")
        return Literal("lit", (float(value),), "float")
    if isinstance(value, str):
        return Literal("lit", (value,), "string")
    if isinstance(value, datetime):
        return Literal("lit", (from_datetime(value),), "timestamp")
    if value is None:
        raise mistake(
            "None cannot be used in an expression",
            code="bad_expression",
            hint="test with x.is_null(), and replace with fb.coalesce(x, value)",
        )
    extra = "; write a datetime" if isinstance(value, date) else ""
    raise mistake(
        f"a {type(value).__name__} cannot be used in an expression{extra}",
        code="bad_expression",
        hint="use columns, features of views, numbers, texts, booleans and datetimes",
    )


def build(op: str, *operands: Any) -> Expr:
    """Apply an operator, checking the types of what it is given."""
    args = tuple(literal(o) for o in operands)
    if op in ("lt", "le", "gt", "ge", "eq", "ne", "in"):
        _check_comparison(op, args)
        return Expr(op, args, "boolean")
    if op in ("and", "or", "not"):
        _require(op, args, frozenset({"boolean"}), "a condition")
        return Expr(op, args, "boolean")
    if op == "is_null":
        return Expr(op, args, "boolean")
    if op in ("hour", "weekday"):
        _require(op, args, frozenset({"timestamp"}), "a timestamp")
        return Expr(op, args, "float")
    if op == "where":
        _require(op, args[:1], frozenset({"boolean"}), "a condition")
        return Expr(op, args, *_common(op, args[1:]))
    if op == "coalesce":
        return Expr(op, args, *_common(op, args))
    if op == "sub" and all(a.type == "timestamp" for a in args):
        return Expr("div", (Expr("sub", args, "float"), literal(1e6)), "float")  # seconds, not microseconds
    _require(op, args, NUMBERS, "a number")
    return Expr(op, args, "float")


def _require(op: str, args: Iterable[Expr], types: frozenset[str], what: str) -> None:
    for argument in args:
        if argument.type not in types:
            raise mistake(
                f"{show(argument)} is a {argument.type}, and {SYMBOLS.get(op, op)} takes {what}", code="bad_type"
            )


def _check_comparison(op: str, args: tuple[Expr, ...]) -> None:
    first, *rest = args
    for other in rest:
        family = _family(first)
        if family != _family(other):
            raise mistake(
                f"{show(first)} is a {first.type} and {show(other)} a {other.type}; they cannot be compared",
                code="bad_type",
            )
        if family == "text" and op in ("lt", "le", "gt", "ge"):
            raise mistake(f"texts have no order here; {show(first)} can only be tested for equality", code="bad_type")
        for value, among in ((other, first), (first, other)):
            if isinstance(value, Literal) and among.type == "category":
                _check_category(value, among)


def _check_category(value: Expr, among: Expr) -> None:
    text = value._args[0]
    if text not in among.categories:
        raise mistake(
            f"{text!r} is not a category of {show(among)}; {did_you_mean(str(text), among.categories)}",
            code="unknown_category",
        )


def _family(expr: Expr) -> str:
    if expr.type in NUMBERS:
        return "number"
    return "text" if expr.type in TEXTS else "time"


def _common(op: str, args: tuple[Expr, ...]) -> tuple[ValueType, tuple[str, ...]]:
    """The type that all results of `where` or `coalesce` share, and its categories."""
    types = {a.type for a in args}
    if len({_family(a) for a in args}) > 1:
        shown = " and ".join(f"{show(a)} (a {a.type})" for a in args)
        raise mistake(f"fb.{op} gives one type, not {shown}", code="bad_type")
    if types <= NUMBERS:
        return (types.pop() if types in ({"boolean"}, {"integer"}) else "float"), ()
    if "category" in types:
        names: dict[str, None] = {}
        for argument in args:
            if not argument.categories and not isinstance(argument, Literal):
                return "string", ()
            names |= dict.fromkeys(argument.categories or (argument._args[0],))
        return "category", tuple(names)
    return types.pop(), ()


def _no_truth(expr: Expr) -> Exception:
    place = user_location()
    return mistake(
        f"{show(expr)} has no truth value: it is computed for each row later",
        code="not_traceable",
        hint=truth_spelling(place.text if place else ""),
        at=place,
    )


def _no_number(expr: Expr, what: str) -> Exception:
    return mistake(
        f"{show(expr)} cannot become {what}: it is computed for each row later",
        code="not_traceable",
        hint=ANY_FUNCTION,
    )
