"""Caches of compiled functions that are dropped when any of their files changed.

Numba knows that a cached function is stale when its own file changed, not when a file changed whose functions were
compiled into it. So a cache's folder carries a digest of all of a kernel's files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_checked: set[tuple[Path, Path]] = set()


def drop_stale(folder: Path, package: Path, modules: Sequence[str]) -> None:
    """Drop from the cache `folder` what was compiled from other files than the `modules` of `package` are now.

    Looked at once a process.
    """
    if (folder, package) in _checked:
        return
    _checked.add((folder, package))
    digest = hashlib.sha256(b"".join((package / f"{name}.py").read_bytes() for name in modules)).hexdigest()
    stamp = folder / "flyball-kernel.sha256"
    with suppress(OSError):  # a cache that cannot be written is not ours to clean
        if stamp.exists() and stamp.read_text() == digest:
            return
        for name in modules:
            for index in folder.glob(f"{name}.*.nbi"):
                index.unlink(missing_ok=True)
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.write_text(digest)
