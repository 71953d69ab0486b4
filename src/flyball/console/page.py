"""Pages from a status: Jinja templates, escaped; no asset of another host, no inline style or script."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flyball.console.stages import Stage, contract, milliseconds, number, share, stages, warned
from flyball.console.view import Status
from flyball.kernel.errors import NotFoundError
from flyball.kernel.times import show_time

HERE = Path(__file__).parent
STATIC = {"console.css": "text/css; charset=utf-8", "console.js": "text/javascript; charset=utf-8"}
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

BOX = (248, 132)  # a stage's width and height
GAP = 50
TOP, BOTTOM = 14, 218  # the two rows' upper edges
LINE = 31  # characters of a line that fit into a stage


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A stage and where it stands in the picture."""

    stage: Stage
    x: int
    y: int


def page(status: Status) -> str:
    """The whole console page."""
    return str(environment().get_template("page.html").render(context(status)))


def loop_picture(status: Status) -> str:
    """The part that is refreshed: the loop with its numbers, and the tables below it."""
    return str(environment().get_template("loop.html").render(context(status)))


def static(file: str) -> tuple[bytes, str]:
    """The content and type of one of the console's own files."""
    if file not in STATIC:
        raise NotFoundError(f"the console has no file {file!r}", code="no_such_file")
    return (HERE / "static" / file).read_bytes(), STATIC[file]


def context(status: Status) -> dict[str, Any]:
    drawn = boxes(stages(status))
    return {
        "status": status,
        "boxes": drawn,
        "box": BOX,
        "arrows": arrows(drawn),
        "bad_processes": [p for p in status.get("processes") or [] if p.get("state") != "running"],
    }


def boxes(drawn: tuple[Stage, ...]) -> tuple[Box, ...]:
    """Clockwise: the first half from left to right, the second below it from right to left."""
    half = len(drawn) // 2
    width = BOX[0] + GAP
    return tuple(
        Box(
            stage=stage,
            x=6 + (index if index < half else 2 * half - 1 - index) * width,
            y=TOP if index < half else BOTTOM,
        )
        for index, stage in enumerate(drawn)
    )


def arrows(drawn: tuple[Box, ...]) -> tuple[str, ...]:
    """SVG paths from each stage to the next, around the loop."""
    paths = []
    for box, following in zip(drawn, drawn[1:] + drawn[:1], strict=True):
        if box.y == following.y:
            right = box.x < following.x
            start = box.x + BOX[0] + 6 if right else box.x - 6
            end = following.x - 10 if right else following.x + BOX[0] + 10
            paths.append(f"M{start} {box.y + BOX[1] // 2} H{end}")
        else:
            down = box.y < following.y
            middle = box.x + BOX[0] // 2
            start = box.y + BOX[1] + 6 if down else box.y - 6
            end = following.y - 10 if down else following.y + BOX[1] + 10
            paths.append(f"M{middle} {start} V{end}")
    return tuple(paths)


@cache
def environment() -> Environment:
    env = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters |= {
        "time": lambda at: "–" if at is None else show_time(at // 1_000_000 * 1_000_000),
        "number": number,
        "share": share,
        "ms": milliseconds,
        "metrics": metrics,
        "fitted": fitted,
        "contract": contract,
        "warned": warned,
    }
    return env


def fitted(line: str, width: int = LINE) -> str:
    """A line that stays within its box; the whole of it is in the title."""
    return line if len(line) <= width else line[: width - 1].rstrip() + "…"


def metrics(values: dict[str, float] | None) -> Markup:
    """The first few metrics as `auc 0.934 · accuracy 0.91`, names escaped; a hint at what there is, not a report."""
    ordered = sorted((values or {}).items(), key=lambda item: (item[0] != "auc", item[0]))
    parts = [Markup("<span class=metric>{}</span> {:.4g}").format(name, value) for name, value in ordered]
    return Markup(" · ").join(parts[:3]) if parts else Markup("–")
