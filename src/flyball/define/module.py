"""Where a user's module stands: the folder that must be importable, and its name there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_FLYBALL = Path(__file__).resolve().parent.parent


def module_at(path: Path) -> tuple[Path, str]:
    """The folder and the dotted name by which a file is imported; packages are followed upwards.

    A project that Flyball itself carries, such as the demonstration's, counts as one in a folder of its own.
    """
    parts = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").exists() and _FLYBALL not in (folder, *folder.parents):
        parts.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(parts)


def module_of(function: Callable[..., Any]) -> str:
    """The module by which a training process imports a function from the bundle."""
    name = function.__module__
    if name == "__main__" or name.startswith("flyball."):
        file = getattr(sys.modules.get(name), "__file__", None)
        return module_at(Path(file).resolve())[1] if file else name
    return name
