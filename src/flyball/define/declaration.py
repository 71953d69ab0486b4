"""What sources, requests and views have in common: classes that declare, and are never made into objects."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from flyball.define.mistake import mistake, user_location
from flyball.kernel.errors import InvalidError, did_you_mean

T = TypeVar("T")

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PLAIN = frozenset({"__module__", "__qualname__", "__doc__", "__annotations__", "__slots__", "__firstlineno__"})
_PLAIN = _PLAIN | {"__static_attributes__", "__orig_bases__", "__parameters__"}


class MissingAttributeError(InvalidError, AttributeError):
    """A declaration has no such column or feature; an `AttributeError` too, so that `hasattr` works."""


class Body(dict[str, Any]):
    """The body of a declaration while it is run; `made` are things that must get a name in it, or would be lost."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[tuple[str, object]] = []


class Declared(type):
    """The metaclass of declarations: attributes do not change, unknown ones are refused by name."""

    @classmethod
    def __prepare__(cls, name: str, bases: tuple[type, ...], /, **keywords: Any) -> Body:
        return Body()

    def __new__(cls, name: str, bases: tuple[type, ...], body: dict[str, Any], /, **keywords: Any) -> Any:
        for what, item in body.made if isinstance(body, Body) else ():
            if not any(value is item for value in body.values()):
                raise mistake(f"{name}: {what} stands there without a name, and would be lost; write name = {what}(…)")
        return super().__new__(cls, name, bases, dict(body), **keywords)

    def __call__(cls, *args: Any, **kwargs: Any) -> NoReturn:
        raise mistake(f"{cls.__name__} is a declaration; it has no instances", hint=f"use {cls.__name__}.column")

    def __setattr__(cls, name: str, value: object) -> None:
        if "_sealed" in cls.__dict__ and not name.startswith("__"):
            raise mistake(f"{cls.__name__} does not change once it is declared; {name!r} cannot be set", code="frozen")
        super().__setattr__(name, value)

    def __delattr__(cls, name: str) -> None:
        raise mistake(f"{cls.__name__} does not change; {name!r} cannot be deleted", code="frozen")

    def __repr__(cls) -> str:
        return cls.__name__

    if not TYPE_CHECKING:  # a type checker shall refuse what does not exist

        def __getattr__(cls, name: str) -> NoReturn:
            members = cls.__dict__.get("_members")
            if name.startswith("_") or members is None:
                raise AttributeError(name)
            place = user_location()
            raise MissingAttributeError(
                f"{f'{place}: ' if place else ''}{cls.__name__} has no {cls._noun} {name!r}; "
                f"{did_you_mean(name, members)}",
                code="unknown_attribute",
            )


def members(
    cls: type,
    kind: type[T],
    noun: str,
    example: str,
    *,
    reserved: tuple[str, ...],
    beside: tuple[type, ...] = (),
) -> dict[str, T]:
    """The declared attributes of a class body, in order; whatever else stands there, but `beside`, is refused.

    Attributes may also come from plain classes that are mixed in.
    """
    found: dict[str, T] = {}
    for base in reversed(cls.__mro__):
        if isinstance(base, Declared) and base is not cls:
            continue
        if base is object:
            continue
        for name, value in base.__dict__.items():
            if name in _PLAIN or (name.startswith("__") and name.endswith("__")):
                continue
            if isinstance(value, beside):
                found.pop(name, None)
                continue
            check_name(name, f"{cls.__name__}.{name}", reserved=reserved)
            found[name] = _member(cls, name, value, kind, noun, example)
        for name in inspect.get_annotations(base):
            if name not in base.__dict__ and not name.startswith("_"):
                raise mistake(f"{cls.__name__}.{name} has a type but no value; write {name} = {example}")
    if not found:
        raise mistake(f"{cls.__name__} declares no {noun}s; write at least one, such as name = {example}")
    return found


def besides(cls: type, kind: type[T]) -> dict[str, T]:
    """The attributes of another kind that stand in a class body among its members, in order."""
    found: dict[str, T] = {}
    for base in reversed(cls.__mro__):
        if not isinstance(base, Declared) or base is cls:
            found |= {name: value for name, value in base.__dict__.items() if isinstance(value, kind)}
    return {name: value for name, value in found.items() if getattr(cls, name, None) is value}


def _member(cls: type, name: str, value: object, kind: type[T], noun: str, example: str) -> T:
    if isinstance(value, kind):
        return value
    if isinstance(value, type) and issubclass(value, kind):
        raise mistake(f"{cls.__name__}.{name} is the class fb.{value.__name__}; call it: fb.{value.__name__}(…)")
    raise mistake(
        f"{cls.__name__}.{name} is a {type(value).__name__}, not a {noun}; write {name} = {example}",
        code="not_a_member",
    )


def check_name(name: str, shown: str, *, reserved: tuple[str, ...] = ()) -> None:
    """Refuse names that the platform keeps for itself, and those that other systems would not take."""
    if name.startswith("_"):
        raise mistake(f"{shown}: names that begin with _ are reserved", code="reserved_name")
    if name in reserved or name.startswith("flyball_"):
        raise mistake(f"{shown}: the name {name!r} is reserved", code="reserved_name")
    if not _NAME.fullmatch(name):
        raise mistake(f"{shown}: {name!r} is not a name; use letters, digits and _, and begin with a letter")


def seal(cls: type, members: dict[str, Any]) -> None:
    """Put the bound attributes into the class and let it change no more."""
    for name, value in members.items():
        setattr(cls, name, value)
    cls._members = tuple(members)  # type: ignore[attr-defined]
    cls._sealed = True  # type: ignore[attr-defined]


def description_of(cls: type) -> str:
    """The docstring of the class itself, first paragraph, in one line."""
    text = cls.__dict__.get("__doc__") or ""
    return " ".join(text.strip().split("\n\n")[0].split())
