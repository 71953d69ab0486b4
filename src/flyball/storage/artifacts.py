"""Content-addressed bytes in a local directory (`registry.ports.ArtifactStore`): `blobs/ab/DIGEST`."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from flyball.kernel.errors import InternalError, InvalidError, NotFoundError
from flyball.kernel.files import sync_directory, write_atomic

_DIGEST = re.compile(r"[0-9a-f]{64}")


class LocalArtifacts:
    """Below `root` (the layout's `artifacts`), beside the version directories in `versions/`."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"

    def put(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        path = self._path(digest)
        if not (path.exists() and _digest_of(path) == digest):  # a blob that rotted is healed by a good copy
            path.parent.mkdir(parents=True, exist_ok=True)
            sync_directory(self._blobs)
            write_atomic(path, data, mode=0o444)
        return digest

    def get(self, digest: str) -> bytes:
        data = self._existing(digest).read_bytes()
        _check(digest, hashlib.sha256(data).hexdigest())
        return data

    def has(self, digest: str) -> bool:
        return self._path(digest).exists()

    def path(self, digest: str) -> Path:
        path = self._existing(digest)
        _check(digest, _digest_of(path))
        return path

    def _existing(self, digest: str) -> Path:
        path = self._path(digest)
        if not path.exists():
            raise NotFoundError(
                f"there is no artifact {digest[:12]}",
                code="artifact_not_found",
                hint="flyball apply uploads a project's artifacts",
            )
        return path

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidError(f"{digest[:80]!r} is not a digest; a digest is 64 hexadecimal digits", code="bad_digest")
        return self._blobs / digest[:2] / digest


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(expected: str, actual: str) -> None:
    if actual != expected:
        raise InternalError(
            f"the artifact {expected[:12]} is corrupt: its bytes have the digest {actual[:12]}",
            code="artifact_corrupt",
            hint="restore it from a backup, or upload it again with flyball apply",
        )
