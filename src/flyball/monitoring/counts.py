"""Adding binned counts, whatever their nesting: numbers add, lists add by position, mappings by name."""

from __future__ import annotations

from typing import Any


def add(left: Any, right: Any) -> Any:
    """The sum of two counts of the same profile; an empty one is nothing.

    >>> add({"fare": [1, 2]}, {"fare": [3, 4]})
    {'fare': [4, 6]}
    """
    if isinstance(left, dict) and isinstance(right, dict):
        names = [*left, *(name for name in right if name not in left)]
        return {
            name: add(left[name], right[name]) if name in left and name in right else left.get(name, right.get(name))
            for name in names
        }
    if isinstance(left, list) and isinstance(right, list):
        if len(left) != len(right):
            raise ValueError(f"counts of {len(left)} and of {len(right)} bins are of different profiles")
        return [add(a, b) for a, b in zip(left, right, strict=True)]
    return left + right
