"""Transforms: functions that are traced once, when they are declared, into expressions."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable
from types import FunctionType
from typing import Any, overload

from flyball.define.algebra import Expr, Literal, Named
from flyball.define.mistake import Location, is_ours, mistake, show_path
from flyball.kernel.errors import InvalidError

_HINT = (
    "use fb.where for `if`, & | ~ for `and` `or` `not`, fb.coalesce for missing values, and fb.log, fb.exp, fb.sqrt, "
    "fb.abs, fb.floor, fb.minimum and fb.maximum for functions"
)
_METHODS = {
    "fillna": "use fb.coalesce(x, value)",
    "fill_null": "use fb.coalesce(x, value)",
    "isna": "use x.is_null()",
    "isnull": "use x.is_null()",
    "notna": "use ~x.is_null()",
    "clip": "use fb.minimum(fb.maximum(x, low), high)",
    "is_in": "use x.isin(…)",
    "dayofweek": "use x.weekday()",
    "log": "use fb.log(x)",
    "exp": "use fb.exp(x)",
    "sqrt": "use fb.sqrt(x)",
    "abs": "use fb.abs(x)",
    "astype": "a condition counts as 1 or 0 in arithmetic; use fb.where(condition, a, b) for other values",
}


@overload
def transform(function: Callable[..., object], /) -> Named: ...
@overload
def transform(*, python: bool = False) -> Callable[[Callable[..., object]], Named]: ...
def transform(
    function: Callable[..., object] | None = None, /, *, python: bool = False
) -> Named | Callable[[Callable[..., object]], Named]:
    """A feature computed from others: the function is called once, with expressions, and its result is kept.

    Each parameter takes its expression from its default value. What a worker computes is the expression, never
    the function.
    """
    if python:
        raise mistake(
            "transforms in Python (python=True) come with a later version; this one traces them",
            code="not_yet",
            hint=_HINT,
        )
    return trace if function is None else trace(function)


def trace(function: Callable[..., object]) -> Named:
    """Call the function with the expressions of its defaults, and name the result after it."""
    if not isinstance(function, FunctionType):
        raise mistake(f"@fb.transform takes a function, not a {type(function).__name__}")
    place = _place(function)
    shown = f"transform {function.__name__}"
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise mistake(f"{shown} is asynchronous or a generator; write a plain function", at=place)
    values = _arguments(function, shown, place)
    try:
        result = function(**values)
    except InvalidError as error:
        raise _wrapped(error, shown) from None
    except Exception as error:
        raise _foreign(error, shown, place) from None
    return Named(function.__name__, _expression(result, shown, place), place.module)


def _place(function: FunctionType) -> Location:
    code = function.__code__
    return Location(
        file=show_path(code.co_filename),
        line=code.co_firstlineno,
        function=function.__name__,
        module=function.__module__,
        path=code.co_filename,
    )


def _arguments(function: FunctionType, shown: str, place: Location) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise mistake(f"{shown}: parameter {name!r} must be one that can be given by name", at=place)
        if parameter.default is parameter.empty:
            raise mistake(
                f"{shown}: parameter {name!r} has no default, so what it stands for is not known",
                hint=f"write {name}=Source.column or {name}=View.feature",
                at=place,
            )
        values[name] = parameter.default
    if not any(isinstance(v, Expr) for v in values.values()):
        raise mistake(
            f"{shown} has no parameter that stands for a column or a feature",
            hint=f"write def {function.__name__}(fare=Trips.fare): …",
            at=place,
        )
    return values


def _expression(result: object, shown: str, place: Location) -> Expr:
    if isinstance(result, Expr) and not isinstance(result, Literal):
        return result
    what = "nothing" if result is None else f"a {type(result).__name__}"
    if isinstance(result, (int, float, str, Literal)):
        what = f"the constant {result!r}"
    raise mistake(
        f"{shown} returns {what}, not an expression over its parameters",
        code="not_traceable",
        hint="return one expression; for several features write several transforms",
        at=place,
    )


def _wrapped(error: InvalidError, shown: str) -> InvalidError:
    """A refused operation; it names its line already."""
    return InvalidError(f"{shown}: {error.message}", code=error.code, hint=error.hint, details=error.details)


def _foreign(error: Exception, shown: str, place: Location) -> InvalidError:
    """Any other exception, at the user's line that caused it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_ours(f.filename)]
    at = place
    if frames:
        last = frames[-1]
        at = Location(
            file=show_path(last.filename),
            line=last.lineno or place.line,
            function=last.name,
            module=place.module,
            path=last.filename,
        )
    hint = _HINT
    if isinstance(error, AttributeError) and error.name in _METHODS:
        hint = _METHODS[error.name]
    return mistake(f"{shown} cannot be traced: {type(error).__name__}: {error}", code="not_traceable", hint=hint, at=at)
