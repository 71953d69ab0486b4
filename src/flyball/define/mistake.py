"""A user's mistake in a declaration: what is wrong, where it is written, and what would be right."""

from __future__ import annotations

import linecache
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from flyball.kernel.errors import InvalidError

_HERE = Path(__file__).resolve().parent
_OURS = (f"{_HERE}{os.sep}", f"{_HERE.parent / 'kernel'}{os.sep}", "<frozen ", "<string>")


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """A line of the user's code. `file` is relative to the working directory where it lies below it."""

    file: str
    line: int
    function: str
    module: str
    path: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def text(self) -> str:
        """The line itself, stripped; empty where the source is not at hand."""
        return linecache.getline(self.path, self.line).strip()


def is_ours(filename: str) -> bool:
    """Whether a file is part of the language or of the import machinery, not of a project."""
    return filename.startswith(_OURS) or "importlib" in Path(filename).parts


def show_path(path: str) -> str:
    try:
        relative = os.path.relpath(path)
    except ValueError:  # another drive
        return path
    return path if relative.startswith("..") else relative


def locate(frame: FrameType) -> Location:
    code = frame.f_code
    return Location(
        file=show_path(code.co_filename),
        line=frame.f_lineno,
        function=code.co_name,
        module=str(frame.f_globals.get("__name__", "")),
        path=code.co_filename,
    )


def user_location() -> Location | None:
    """The innermost frame on the stack that is not ours: where the user wrote what is being evaluated."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_ours(frame.f_code.co_filename):
            return locate(frame)
        frame = frame.f_back
    return None


def mistake(message: str, *, code: str = "bad_declaration", hint: str = "", at: Location | None = None) -> InvalidError:
    """An `InvalidError` that says in which line of the user's code the wrong declaration stands."""
    place = at or user_location()
    if place is None:
        return InvalidError(message, code=code, hint=hint)
    return InvalidError(f"{place}: {message}", code=code, hint=hint, details={"file": place.file, "line": place.line})
