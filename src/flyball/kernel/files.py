"""Files that survive a crash: written beside, fsynced, renamed; and the lock on a part of the state directory.

Every format of ours begins with a format version and a key id (0: not encrypted); `write_document` and
`read_document` are the boundary for the JSON ones.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

from flyball.kernel.errors import ConflictError, ExhaustedError, InvalidError

FORMAT_VERSION = 1
KEY_ID_NONE = 0


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `data`: after this returns, a crash leaves the new file; before, the old one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise translate_os_error(error, path) from error


def sync_directory(path: Path) -> None:
    """Make renames and new names in a directory durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def translate_os_error(error: OSError, path: Path) -> Exception:
    """`ENOSPC` and `EDQUOT` as an `ExhaustedError`; anything else unchanged."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ExhaustedError(
            f"the disk that holds {path.parent} is full; nothing was acknowledged and nothing is lost",
            code="disk_full",
            hint="free some space; what was not acknowledged can be sent again",
        )
    return error


def write_document(path: Path, kind: str, body: dict[str, Any]) -> None:
    """Write a JSON document of ours, atomically."""
    document = {"format": kind, "version": FORMAT_VERSION, "key_id": KEY_ID_NONE, "body": body}
    write_atomic(path, json.dumps(document, sort_keys=True, indent=1).encode())


def read_document(path: Path, kind: str) -> dict[str, Any]:
    """Read what `write_document` wrote; a foreign, broken or newer document is refused by name."""
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise InvalidError(f"{path.name} is not a {kind} document: {error}", code="bad_document") from None
    if not isinstance(document, dict) or document.get("format") != kind:
        raise InvalidError(f"{path.name} is not a {kind} document", code="bad_document")
    if document.get("version", 0) > FORMAT_VERSION:
        raise ConflictError(
            f"{path.name} has format version {document['version']}; this Flyball reads up to {FORMAT_VERSION}",
            code="newer_format",
            hint="install the version of Flyball that wrote it, or a newer one",
        )
    body: dict[str, Any] = document["body"]
    return body


class FileLock:
    """An exclusive lock on a file for the life of the process; the kernel drops it when the process dies."""

    def __init__(self, path: Path, what: str) -> None:
        self._file: BinaryIO = path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().decode(errors="replace").strip() or "unknown"
            self._file.close()
            raise ConflictError(
                f"{what} of the state directory {path.parent} is in use by process {holder}",
                code="state_in_use",
                hint="stop that process, or give this platform a state directory of its own with --state DIR",
            ) from None
        self._file.seek(0)
        self._file.truncate()
        self._file.write(str(os.getpid()).encode())
        self._file.flush()

    def release(self) -> None:
        self._file.close()
