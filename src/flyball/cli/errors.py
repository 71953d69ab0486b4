"""Error kind → exit status: the one table; and how an error is told on a terminal.

    0    done
    1    internal: a defect of ours
    2    invalid: the caller's value is wrong; also what click gives for a wrong option
    3    not found
    4    conflict
    5    denied
    6    exhausted
    7    unavailable: nothing answers; `flyball up`
    8    late: a deadline passed
    130  interrupted by Ctrl-C

`flyball plan` ends with `PLAN_HAS_CHANGES`, which is 2 as well, as `terraform plan -detailed-exitcode` does. The two
are told apart by what is printed: a plan with changes prints the plan on standard output and nothing on standard error
(with `--json`: an object with `changes`); an invalid project prints nothing on standard output but, with `--json`, an
object with `error`.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import click

from flyball.kernel.errors import ErrorKind, FlyballError

EXIT_STATUS: dict[ErrorKind, int] = {
    ErrorKind.INTERNAL: 1,
    ErrorKind.INVALID: 2,
    ErrorKind.NOT_FOUND: 3,
    ErrorKind.CONFLICT: 4,
    ErrorKind.DENIED: 5,
    ErrorKind.EXHAUSTED: 6,
    ErrorKind.UNAVAILABLE: 7,
    ErrorKind.LATE: 8,
}
PLAN_HAS_CHANGES = 2
INTERRUPTED = 130

OURS = Path(__file__).resolve().parents[1]
NOT_THE_USERS = ("site-packages", "dist-packages", f"{Path(json.__file__).resolve().parents[1]}/", "<frozen")


def report(error: BaseException, *, as_json: bool) -> int:
    """Tell an error, once, and give the exit status of its kind."""
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, KeyboardInterrupt | click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    if isinstance(error, BrokenPipeError):
        sys.stdout = None  # whoever read us left; nothing more to say
        return 0
    if isinstance(error, click.UsageError):
        tell({"code": "bad_usage", "kind": "invalid", "message": error.format_message()}, as_json, usage(error))
        return EXIT_STATUS[ErrorKind.INVALID]
    if isinstance(error, FlyballError):
        tell(error.to_data(), as_json)
        return EXIT_STATUS[error.kind]
    frames = user_frames(error)
    if frames:
        message = f"your code raised {type(error).__name__}: {error}"
        tell({"code": "user_code_failed", "kind": "invalid", "message": message}, as_json, "".join(frames))
        return EXIT_STATUS[ErrorKind.INVALID]
    trace = "".join(traceback.format_exception(error))
    message = f"a defect of Flyball: {type(error).__name__}: {error}"
    tell({"code": "defect", "kind": "internal", "message": message}, as_json, trace)
    return EXIT_STATUS[ErrorKind.INTERNAL]


def tell(data: dict[str, Any], as_json: bool, more: str = "") -> None:
    """`error: message` and the hint on standard error; or, for scripts, an object on standard output."""
    if as_json:
        click.echo(json.dumps({"error": data}))
        return
    if more:
        click.echo(more.rstrip("\n"), err=True)
    click.echo(click.style("error: ", fg="red", bold=True) + str(data["message"]), err=True)
    if data.get("hint"):
        click.echo(f"  {data['hint']}", err=True)


def usage(error: click.UsageError) -> str:
    return error.ctx.get_usage() if error.ctx is not None else ""


def user_frames(error: BaseException) -> list[str]:
    """The frames of the user's own files, and the lines they stand on; empty where no such file is involved."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if is_users(frame.filename)]
    return traceback.format_list(frames)


def is_users(filename: str) -> bool:
    if any(part in filename for part in NOT_THE_USERS):
        return False
    path = Path(filename).resolve()
    return path.suffix == ".py" and not path.is_relative_to(OURS)
