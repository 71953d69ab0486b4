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

from flyball.define.expression import OPERATORS
from flyball.define.mistake import mistake, user_location
from flyball.define.spec import ExprData, ValueType
from flyball.kernel.errors import did_you_mean
from flyball.kernel.times import from_datetime

NUMBERS = frozenset({"decimal", "float", "integer", "boolean"})
TEXTS = frozenset({"string", "category"})
_SYMBOLS = {
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "lt": "<",
    "le": "<=",
    "gt": ">",
    "ge": ">=",
    "eq": "==",
    "ne": "!=",
    "and": "&",
    "or": "|",
}

Operand = "Expr | bool | int | float | str | datetime | PythonDecimal"


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
        raise mistake(f"{show(self)} ** {exponent!r} has no operator; only ** 2 has", code="not_traceable", hint=_POWER)

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
        raise mistake(
            f"NumPy's {name} cannot be traced", code="not_traceable", hint=_FUNCTIONS.get(name, _ANY_FUNCTION)
        )

    def __array__(self, *args: Any, **options: Any) -> NoReturn:
        raise mistake(f"{show(self)} cannot become a NumPy array", code="not_traceable", hint=_ANY_FUNCTION)


_POWER = "for other powers use fb.exp(exponent * fb.log(x)), or fb.sqrt(x)"
_ANY_FUNCTION = (
    "use fb.log, fb.log1p, fb.exp, fb.sqrt, fb.abs, fb.floor, fb.minimum, fb.maximum, fb.where or fb.coalesce"
)
_FUNCTIONS = {
    "log": "use fb.log(x)",
    "log1p": "use fb.log1p(x)",
    "exp": "use fb.exp(x)",
    "sqrt": "use fb.sqrt(x)",
    "absolute": "use fb.abs(x)",
    "fabs": "use fb.abs(x)",
    "floor": "use fb.floor(x)",
    "minimum": "use fb.minimum(a, b)",
    "maximum": "use fb.maximum(a, b)",
    "isnan": "use x.is_null()",
    "logical_and": "use a & b",
    "logical_or": "use a | b",
    "logical_not": "use ~a",
    "power": _POWER,
}


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
                f"{show(argument)} is a {argument.type}, and {_SYMBOLS.get(op, op)} takes {what}", code="bad_type"
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


# Functions of the language


def where(condition: Any, then: Any, otherwise: Any) -> Expr:
    """`then` where the condition is true, else `otherwise`; null where the condition is null."""
    return build("where", condition, then, otherwise)


def coalesce(*values: Any) -> Expr:
    """The first value that is not null."""
    if len(values) < 2:
        raise mistake("fb.coalesce needs a value and what to use in its place, such as fb.coalesce(x, 0)")
    return build("coalesce", *values)


def is_null(value: Any) -> Expr:
    """True where the value is missing."""
    return build("is_null", value)


def log(value: Any) -> Expr:
    """The natural logarithm; null where the value is not positive."""
    return build("log", value)


def log1p(value: Any) -> Expr:
    """The natural logarithm of 1 + value; null where that is not positive."""
    return build("log1p", value)


def exp(value: Any) -> Expr:
    """e to the power of the value; null where that is not finite."""
    return build("exp", value)


def sqrt(value: Any) -> Expr:
    """The square root; null where the value is negative."""
    return build("sqrt", value)


def abs(value: Any) -> Expr:
    """The absolute value."""
    return build("abs", value)


def floor(value: Any) -> Expr:
    """The greatest whole number that is not above the value."""
    return build("floor", value)


def minimum(left: Any, right: Any) -> Expr:
    """The smaller of two values of one row."""
    return build("minimum", left, right)


def maximum(left: Any, right: Any) -> Expr:
    """The greater of two values of one row."""
    return build("maximum", left, right)


def row_time() -> Expr:
    """The time of the row itself, a timestamp; the difference of two timestamps is in seconds."""
    return RowTime("time", (), "timestamp")


# Showing


def show(expr: Expr) -> str:
    """The expression as one would write it."""
    op, args = expr._op, expr._args
    if isinstance(expr, Literal):
        return repr(args[0])
    if isinstance(expr, RowTime):
        return "fb.row_time()"
    if isinstance(expr, Named):
        return expr.name
    if op not in OPERATORS:
        return str(expr)
    if op in _SYMBOLS:
        return f"{_nested(args[0])} {_SYMBOLS[op]} {_nested(args[1])}"
    if op in ("neg", "not"):
        return f"{'-' if op == 'neg' else '~'}{_nested(args[0])}"
    if op in ("is_null", "hour", "weekday"):
        return f"{_nested(args[0])}.{op}()"
    if op == "in":
        return f"{_nested(args[0])}.isin({', '.join(map(show, args[1:]))})"
    return f"fb.{op}({', '.join(map(show, args))})"


def _nested(expr: Expr) -> str:
    return f"({show(expr)})" if expr._op in _SYMBOLS else show(expr)


_SPELLINGS = (
    (("max(",), "use fb.maximum(a, b)"),
    (("min(",), "use fb.minimum(a, b)"),
    ((" and ",), "use (a) & (b) in place of `and`, with brackets around each side"),
    ((" or ",), "use (a) | (b) in place of `or`, with brackets around each side"),
    (("if ", " if ", "elif ", "while "), "use fb.where(condition, then, otherwise) in place of `if`"),
    (("not ",), "use ~(a) in place of `not`"),
    ((" in ",), "use x.isin(…) in place of `in`"),
)
_ALL_SPELLINGS = (
    "use fb.where(condition, then, otherwise) for `if`; & | ~ for `and` `or` `not`, with brackets around each side; "
    "(0 < x) & (x < 5) for a chained comparison"
)


def _no_truth(expr: Expr) -> Exception:
    place = user_location()
    line = place.text if place else ""
    hint = _ALL_SPELLINGS
    if line:
        hint = next((spelling for words, spelling in _SPELLINGS if any(w in line for w in words)), hint)
        if hint is _ALL_SPELLINGS and sum(line.count(sign) for sign in "<>") > 1:
            hint = "use (0 < x) & (x < 5) in place of the chained comparison 0 < x < 5"
    return mistake(
        f"{show(expr)} has no truth value: it is computed for each row later", code="not_traceable", hint=hint, at=place
    )


def _no_number(expr: Expr, what: str) -> Exception:
    return mistake(
        f"{show(expr)} cannot become {what}: it is computed for each row later",
        code="not_traceable",
        hint=_ANY_FUNCTION,
    )
