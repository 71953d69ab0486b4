"""How expressions are written: the text of one, and the spelling to use for what Python cannot hand over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flyball.define.expression import OPERATORS

if TYPE_CHECKING:
    from flyball.define.algebra import Expr

SYMBOLS = {
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


POWER = "for other powers use fb.exp(exponent * fb.log(x)), or fb.sqrt(x)"
ANY_FUNCTION = (
    "use fb.log, fb.log1p, fb.exp, fb.sqrt, fb.abs, fb.floor, fb.minimum, fb.maximum, fb.where or fb.coalesce"
)
FUNCTIONS = {
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
    "power": POWER,
}


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


def truth_spelling(line: str) -> str:
    """What to write in place of the truth of an expression, judged by the user's line; else all."""
    for words, spelling in _SPELLINGS:
        if any(word in line for word in words):
            return spelling
    if sum(line.count(sign) for sign in "<>") > 1:
        return "use (0 < x) & (x < 5) in place of the chained comparison 0 < x < 5"
    return _ALL_SPELLINGS


def show(expr: Expr) -> str:
    """The expression as one would write it."""
    op, args = expr._op, expr._args
    if op == "lit":
        return repr(args[0])
    if op == "time":
        return "fb.row_time()"
    if op not in OPERATORS:
        return str(expr)
    if op in SYMBOLS:
        return f"{_nested(args[0])} {SYMBOLS[op]} {_nested(args[1])}"
    if op in ("neg", "not"):
        return f"{'-' if op == 'neg' else '~'}{_nested(args[0])}"
    if op in ("is_null", "hour", "weekday"):
        return f"{_nested(args[0])}.{op}()"
    if op == "in":
        return f"{_nested(args[0])}.isin({', '.join(map(show, args[1:]))})"
    return f"fb.{op}({', '.join(map(show, args))})"


def _nested(expr: Expr) -> str:
    return f"({show(expr)})" if expr._op in SYMBOLS else show(expr)
