"""Loading a project: the user's file is imported in the user's own process, and nowhere else."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from types import ModuleType

from flyball.define.mistake import is_ours, show_path
from flyball.define.module import module_at
from flyball.define.project import Project
from flyball.define.secret import redact
from flyball.kernel.errors import FlyballError, InvalidError, NotFoundError, did_you_mean

_EXAMPLE = 'write project = fb.Project("name", services=[…])'


def load_project(target: str | Path = "project.py") -> Project:
    """Import a project.

    Args:
        target: a file (`project.py`), a file and an attribute (`project.py:taxi`), a folder that holds `project.py`,
            or a module and an attribute (`shop.flow:project`).

    Raises:
        NotFoundError: there is no such file.
        InvalidError: it does not import (the message has the user's frames only), or it has no project.
    """
    place, _, attribute = str(target).partition(":")
    path = Path(place)
    if path.is_dir():
        path = path / "project.py"
    if path.suffix == ".py":
        if not path.is_file():
            raise NotFoundError(
                f"there is no file {show_path(str(path))}",
                code="project_not_found",
                hint="name the project's file, or begin one with flyball init",
            )
        root, name = _module_of(path.resolve())
    else:
        root, name = Path.cwd(), place
    return _find(_import(root, name), attribute)


def _module_of(path: Path) -> tuple[Path, str]:
    folder, name = module_at(path)
    if not all(part.isidentifier() for part in name.split(".")):
        raise InvalidError(
            f"{path.name} cannot be imported: {name!r} is not a module's name; use letters, digits and _",
            code="bad_module_name",
        )
    return folder, name


def _import(root: Path, name: str) -> ModuleType:
    folder = str(root)
    if folder in sys.path:
        sys.path.remove(folder)
    sys.path.insert(0, folder)
    _forget(root, name)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except FlyballError as error:
        raise _located(error) from None
    except (Exception, SystemExit) as error:
        raise _import_failure(name, error) from None


def _forget(root: Path, name: str) -> None:
    """Drop modules of the project that were imported before, so that what is on disk is what is loaded.

    These are the modules below `root`, and one of the same name from elsewhere.
    """
    for known, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if known in ("__main__", "flyball") or known.startswith("flyball.") or not file:
            continue
        path = Path(file)
        expected = root.joinpath(*known.split("."))
        ours = path in (expected.with_suffix(".py"), expected / "__init__.py")
        if ours or known == name:
            del sys.modules[known]


def _located(error: FlyballError) -> FlyballError:
    """A refused declaration with the line of the user's that made it, where the error does not say so itself."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_ours(f.filename)]
    if "file" in error.details or not frames:
        return error
    file, line = show_path(frames[-1].filename), frames[-1].lineno
    message = f"{file}:{line}: {error.message}"
    return type(error)(message, code=error.code, hint=error.hint, details={**error.details, "file": file, "line": line})


def _import_failure(name: str, error: BaseException) -> InvalidError:
    """The exception with the frames of the user's code only; values of declared secrets are taken out."""
    if isinstance(error, ModuleNotFoundError) and error.name and name.split(".")[0] == error.name.split(".")[0]:
        return InvalidError(
            f"there is no module {error.name!r} to import {name!r} from",
            code="project_import_failed",
            hint="name a file, such as project.py, or a module that Python can import from here",
        )
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not is_ours(f.filename)]
    lines = [f"{show_path(f.filename)}:{f.lineno} in {f.name}\n    {f.line}" for f in frames]
    if isinstance(error, SyntaxError):
        lines.append(f"{show_path(error.filename or '?')}:{error.lineno}\n    {(error.text or '').strip()}")
    shown = "".join(f"\n  {line}" for line in lines)
    what = "".join(traceback.format_exception_only(error)[-1:]).strip()
    details = {"file": show_path(frames[-1].filename), "line": frames[-1].lineno} if frames else {}
    return InvalidError(
        redact(f"{name} does not import: {what}{shown}"),
        code="project_import_failed",
        hint=_missing_package(error),
        details=details,
    )


def _missing_package(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"install the package that has the module {error.name!r} into this environment"
    return ""


def _find(module: ModuleType, attribute: str) -> Project:
    found = {name: value for name, value in vars(module).items() if isinstance(value, Project)}
    if attribute:
        if attribute not in found:
            raise InvalidError(
                f"{module.__name__} has no project {attribute!r}; {did_you_mean(attribute, found)}",
                code="no_project",
                hint=_EXAMPLE,
            )
        return found[attribute]
    distinct = {id(project): name for name, project in found.items()}
    if not distinct:
        raise InvalidError(f"{module.__name__} has no project in it", code="no_project", hint=_EXAMPLE)
    if len(distinct) > 1:
        if "project" in found:
            return found["project"]
        raise InvalidError(
            f"{module.__name__} has several projects: {', '.join(sorted(found))}",
            code="no_project",
            hint=f"say which, such as {module.__name__}:{min(found)}",
        )
    return next(iter(found.values()))
