"""Prometheus' text format, https://prometheus.io/docs/instrumenting/exposition_formats/."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    return f"{name}{label_text(labels)} {number(value)}"


def histogram(name: str, labels: Mapping[str, str], bounds: Sequence[float], cells: Sequence[float]) -> Iterator[str]:
    """The lines of a histogram. `cells`: a count a bound, the count above all of them, and the sum of the values."""
    *counts, total = cells
    found = 0.0
    for bound, found in zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True):
        yield sample(f"{name}_bucket", {**labels, "le": bound}, found)
    yield sample(f"{name}_sum", labels, total)
    yield sample(f"{name}_count", labels, found)


def text(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def number(value: float) -> str:
    """Counts as integers, however large; other values with all that a float holds."""
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def label_text(labels: Mapping[str, str]) -> str:
    """`{a="x",b="y"}`, escaped; empty without labels."""
    if not labels:
        return ""
    shown = ",".join(f'{name}="{_escape(value)}"' for name, value in labels.items())
    return "{" + shown + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
