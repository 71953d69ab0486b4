"""The training code of a project: a zip of its sources, stored by digest, unpacked into the run directory."""

from __future__ import annotations

import contextlib
import importlib
import io
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from flyball.kernel.errors import InternalError, InvalidError, did_you_mean
from flyball.kernel.ids import digest, short

MAX_BYTES = 256 * 1024 * 1024  # of the unpacked sources: code, not data


def unpack(data: bytes, expected: str, folder: Path) -> None:
    """Unpack a bundle into `folder`, replacing it. Refuses bytes of another digest, links, and paths that lead out."""
    if digest(data) != expected:
        raise InternalError(
            f"the bundle {short(expected)} is corrupt: its bytes have the digest {short(digest(data))}",
            code="bundle_corrupt",
            hint="upload the project again with flyball apply",
        )
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except zipfile.BadZipFile as error:
        raise InvalidError(f"the bundle {short(expected)} is not a zip file: {error}", code="bad_bundle") from None
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with archive:
        _check_size(archive)
        for entry in archive.infolist():
            target = folder.joinpath(*_safe_parts(entry))
            if entry.is_dir():
                target.mkdir(parents=True, exist_ok=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("xb") as file:
                shutil.copyfileobj(source, file)


def _check_size(archive: zipfile.ZipFile) -> None:
    size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise InvalidError(
            f"the bundle unpacks to {size} bytes; the limit is {MAX_BYTES}",
            code="bad_bundle",
            hint="keep data out of the project's folder",
        )
    names = [entry.filename.rstrip("/") for entry in archive.infolist()]
    if len(set(names)) < len(names):
        raise InvalidError("the bundle has two entries of one name", code="bad_bundle")


def _safe_parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    path = PurePosixPath(entry.filename)
    bad = path.is_absolute() or ".." in path.parts or "\\" in entry.filename or ":" in entry.filename or not path.parts
    if bad or stat.S_ISLNK(entry.external_attr >> 16):
        raise InvalidError(
            f"the bundle's entry {entry.filename!r} is a link or leads out of its folder",
            code="bad_bundle",
            hint="a bundle holds plain files at relative paths",
        )
    return path.parts


@contextlib.contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Within, names import from `folder` first and never from the current directory; after, all is as before.

    Modules of the same names that were loaded from elsewhere are set aside, so a run sees the code of its bundle.
    """
    names = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
    path, set_aside = list(sys.path), _take_modules(names)
    sys.path[:] = [str(folder), *(entry for entry in path if entry not in ("", "."))]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        _take_modules(names)
        sys.modules.update(set_aside)


def _take_modules(names: set[str]) -> dict[str, Any]:
    taken = [name for name in sys.modules if name.partition(".")[0] in names - {"flyball"}]
    return {name: sys.modules.pop(name) for name in taken}


def load_function(folder: Path, module: str, function: str) -> Callable[..., Any]:
    """The training function of a module in `folder`, within `importable(folder)`.

    A decorated one (`@fb.model`) carries its function as `function`. An exception while the module is imported is the
    user's and passes through.
    """
    if not _has_module(folder, module):
        raise InvalidError(
            f"the bundle has no module {module!r}; {did_you_mean(module, _modules(folder))}",
            code="bad_bundle",
            hint="flyball apply makes a new bundle of the project",
        )
    found = getattr(importlib.import_module(module), function, None)
    found = getattr(found, "function", found)
    if not callable(found):
        raise InvalidError(
            f"the module {module!r} has no training function {function!r}",
            code="bad_bundle",
            hint="flyball apply makes a new bundle of the project",
        )
    called: Callable[..., Any] = found
    return called


def _has_module(folder: Path, module: str) -> bool:
    path = folder.joinpath(*module.split("."))
    return path.with_name(path.name + ".py").is_file() or (path / "__init__.py").is_file()


def _modules(folder: Path) -> list[str]:
    return [".".join(path.relative_to(folder).with_suffix("").parts) for path in folder.rglob("*.py")]
