"""Version directories: `DIGEST/manifest.json` and the files that it names; immutable, verified whenever read."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyball.kernel.errors import InternalError, NotFoundError
from flyball.kernel.files import read_document, sync_directory, translate_os_error, write_atomic, write_document
from flyball.kernel.ids import canonical, digest, new_id, short

FORMAT = "flyball.version"
MANIFEST = "manifest.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """A verified version directory."""

    digest: str
    path: Path
    manifest: dict[str, Any]

    def file(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


def write(manifest: Mapping[str, Any], files: Mapping[str, bytes], folder: Path) -> Version:
    """Write a version as `folder`, which must not exist; complete and durable, or not there at all."""
    body = dict(manifest) | {"files": {name: digest(data) for name, data in sorted(files.items())}}
    body = json.loads(canonical(body))  # as it will be read: lists, not tuples
    with _beside(folder) as place:
        for name, data in files.items():
            write_atomic(place / name, data, mode=0o444)
        write_document(place / MANIFEST, FORMAT, body)
        (place / MANIFEST).chmod(0o444)
    return Version(digest=digest(body), path=folder, manifest=body)


def read(folder: Path, *, expected: str = "") -> Version:
    """Read and verify a version; `expected` is its digest, by default the directory's name where that is one.

    Raises `version_not_found`, or `version_corrupt` where a byte differs, a file is missing, or one is not listed.
    """
    if not (folder / MANIFEST).is_file():
        raise NotFoundError(f"there is no version directory {short(folder.name)}", code="version_not_found")
    body = read_document(folder / MANIFEST, FORMAT)
    actual = digest(body)
    wanted = expected or (folder.name if re.fullmatch(r"[0-9a-f]{64}", folder.name) else actual)
    if actual != wanted:
        raise _corrupt(wanted, f"its manifest has the digest {short(actual)}")
    files: dict[str, str] = body["files"]
    present = {path.name for path in folder.iterdir()} - {MANIFEST}
    if present != set(files):
        raise _corrupt(wanted, f"its files are {sorted(present)}, its manifest names {sorted(files)}")
    for name, sha256 in files.items():
        if not _NAME.fullmatch(name) or (folder / name).is_symlink():
            raise _corrupt(wanted, f"{name!r} is not a plain file of its own")
        with (folder / name).open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                raise _corrupt(wanted, f"{name} was changed")
    return Version(digest=actual, path=folder, manifest=body)


def install(source: Path, root: Path, *, expected: str = "") -> Version:
    """Verify the version in `source` and copy it to `root/DIGEST`. Idempotent; an installed one is verified again.

    `root` is `artifacts/versions`. The source stays: a run directory is complete by itself.
    """
    version = read(source, expected=expected)
    target = root / version.digest
    if not target.exists():
        root.mkdir(parents=True, exist_ok=True)
        with _beside(target) as place:
            for name in (*version.manifest["files"], MANIFEST):
                write_atomic(place / name, version.file(name), mode=0o444)
    return read(target)


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A new directory that becomes `folder` when the block ends well; if another made it meanwhile, that one stays."""
    place = folder.with_name(f".{new_id(folder.name[:12])}.new")
    try:
        place.mkdir(parents=True)
        yield place
        sync_directory(place)
        try:
            place.rename(folder)
        except OSError:
            if not (folder / MANIFEST).is_file():
                raise
        sync_directory(folder.parent)
    except OSError as error:
        raise translate_os_error(error, folder) from error
    finally:
        if place.exists():
            shutil.rmtree(place, ignore_errors=True)


def sweep(root: Path) -> int:
    """Remove what writers that were killed left beside the versions; how many. Only while no one writes."""
    left = [path for path in root.glob(".*.new") if path.is_dir()] if root.exists() else []
    for path in left:
        shutil.rmtree(path)
    return len(left)


def _corrupt(wanted: str, why: str) -> InternalError:
    return InternalError(
        f"the version {short(wanted)} is corrupt: {why}",
        code="version_corrupt",
        hint="restore it from a backup, or train it again",
    )
