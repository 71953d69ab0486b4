"""The bundle: the user's code, as training processes import it. Content-addressed, so equal code has one digest."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import digest

MAX_FILES = 5_000
MAX_BYTES = 32 * 1024 * 1024
_LOCKS = frozenset(
    {"pyproject.toml", "uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "Pipfile", "Pipfile.lock", "setup.cfg"}
)
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})
_MOMENT = (1980, 1, 1, 0, 0, 0)


def bundle_files(root: Path) -> dict[str, bytes]:
    """The user's code below `root`, by path: `*.py`, and files that pin what it needs.

    Left out: hidden files and folders (so `.env` and `.git`), virtual environments, state directories, links, data.

    Raises:
        InvalidError: there is no code, or more than code would be.
    """
    files: dict[str, bytes] = {}
    size = 0
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = sorted(f for f in folders if _enters(here / f))
        for name in sorted(names):
            path = here / name
            if name.startswith(".") or not _belongs(name) or path.is_symlink() or not path.is_file():
                continue
            data = path.read_bytes()
            size += len(data)
            files[path.relative_to(root).as_posix()] = data
            if len(files) > MAX_FILES or size > MAX_BYTES:
                raise InvalidError(
                    f"the code below {root} is more than {MAX_FILES} files or {MAX_BYTES >> 20} MiB",
                    code="bundle_too_large",
                    hint="keep the project in a folder of its own",
                )
    if not any(name.endswith(".py") for name in files):
        raise InvalidError(f"there is no Python file below {root}", code="bundle_empty")
    return files


def bundle_zip(files: Mapping[str, bytes]) -> bytes:
    """The files as a zip archive: equal files give equal bytes, on any machine."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _MOMENT)
            entry.external_attr = 0o100644 << 16
            entry.create_system = 3
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def bundle_digest(files: Mapping[str, bytes]) -> str:
    """SHA-256 of `bundle_zip(files)`: what the bundle is stored under."""
    return digest(bundle_zip(files))


def _belongs(name: str) -> bool:
    return name.endswith(".py") or name in _LOCKS or (name.startswith("requirements") and name.endswith(".txt"))


def _enters(folder: Path) -> bool:
    if folder.name.startswith(".") or folder.name in _SKIPPED or folder.name.endswith(".egg-info"):
        return False
    if folder.is_symlink() or (folder / "pyvenv.cfg").exists():
        return False
    return not ((folder / "format.json").exists() and (folder / "metadata.sqlite").exists())
