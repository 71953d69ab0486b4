"""What `error.json` says: the error, and the frames of the user's code alone."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

from flyball.kernel.errors import ErrorKind, FlyballError
from flyball.training.secrecy import Mask


def failure(error: BaseException, code: Path, mask: Mask) -> dict[str, Any]:
    """The error as plain data with `frames` (`file` relative to `code`, `line`, `function`, `text`), innermost last.

    An exception that passed through the user's code is theirs (`user_code`); one that did not is ours (`internal`).
    Values of secrets are masked everywhere.
    """
    frames = user_frames(error, code)
    if isinstance(error, FlyballError):
        data = error.to_data()
    else:
        what = _describe(error)
        place = f" at {frames[-1]['file']}:{frames[-1]['line']} in {frames[-1]['function']}" if frames else ""
        data = {
            "code": "user_code" if frames else "internal",
            "kind": (ErrorKind.INVALID if frames else ErrorKind.INTERNAL).value,
            "message": f"the training code raised {what}{place}" if frames else f"the run failed with {what}",
        }
    return _masked(data | {"type": type(error).__name__, "frames": frames}, mask)  # type: ignore[no-any-return]


def user_frames(error: BaseException, code: Path) -> list[dict[str, Any]]:
    """The frames of a traceback whose files lie below `code`; of a syntax error, the line that has it."""
    root = code.resolve()
    frames = [
        {"file": path, "line": frame.lineno, "function": frame.name, "text": frame.line or ""}
        for frame in traceback.extract_tb(error.__traceback__)
        if (path := _below(frame.filename, root))
    ]
    if isinstance(error, SyntaxError) and (path := _below(error.filename or "", root)):
        text = (error.text or "").strip()
        frames.append({"file": path, "line": error.lineno, "function": "<module>", "text": text})
    return frames


def _describe(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"SystemExit({error.code!r}): it ended the process instead of returning run.package(model)"
    return "".join(traceback.format_exception_only(error)[-1:]).strip()


def _below(file: str, root: Path) -> str:
    path = Path(file).resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else ""


def _masked(data: Any, mask: Mask) -> Any:
    if isinstance(data, dict):
        return {key: _masked(value, mask) for key, value in data.items()}
    if isinstance(data, list):
        return [_masked(value, mask) for value in data]
    return mask(data) if isinstance(data, str) else data
