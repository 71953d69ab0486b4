"""Loading: the user's file is imported, and what goes wrong is shown with the user's frames alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.define.check import check
from flyball.define.compile import compile_project
from flyball.define.load import load_project
from flyball.kernel.errors import InvalidError, NotFoundError

TAXI = (Path(__file__).parent / "taxi_project.py").read_text()


@pytest.fixture(autouse=True)
def same_imports() -> Iterator[None]:
    """What a test imports is forgotten after it."""
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


def write(folder: Path, text: str, name: str = "project.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_file_or_its_folder_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path, TAXI)
    project = load_project(path)
    assert (project.name, project.root, project.module) == ("taxi", tmp_path, "project")
    assert compile_project(project).model("tip").module == "project"
    assert check(project) == []
    assert load_project(tmp_path).name == "taxi"


def test_a_file_is_loaded_again_as_it_is_now(tmp_path: Path) -> None:
    path = write(tmp_path, TAXI)
    before = compile_project(load_project(path))
    write(tmp_path, TAXI.replace("default=0.1", "default=0.25"))
    after = compile_project(load_project(path))
    assert (before.services[0].default, after.services[0].default) == (0.1, 0.25)


def test_a_file_of_a_package_is_loaded_as_its_module(tmp_path: Path) -> None:
    write(tmp_path, "", "shop_one/__init__.py")
    write(tmp_path, TAXI, "shop_one/flow.py")
    write(tmp_path, "from .flow import project\n", "shop_one/main.py")
    project = load_project(tmp_path / "shop_one" / "main.py")
    assert (project.root, project.module) == (tmp_path, "shop_one.flow")


def test_a_module_and_an_attribute_are_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, TAXI, "shop_two.py")
    monkeypatch.chdir(tmp_path)
    assert load_project("shop_two:project").name == "taxi"
    assert load_project("shop_two").name == "taxi"
    with pytest.raises(InvalidError, match="did you mean 'project'") as error:
        load_project("shop_two:projet")
    assert error.value.code == "no_project"


def test_a_missing_file_and_a_missing_project_say_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="flyball init"):
        load_project(tmp_path / "project.py")
    with pytest.raises(InvalidError, match=r'write project = fb\.Project\("name", services=\[…\]\)'):
        load_project(write(tmp_path, "import flyball as fb\n"))
    with pytest.raises(InvalidError, match="there is no module 'nowhere_at_all'"):
        load_project("nowhere_at_all:project")
    with pytest.raises(InvalidError, match="not a module's name"):
        load_project(write(tmp_path, TAXI, "my-project.py"))


def test_several_projects_must_be_told_apart(tmp_path: Path) -> None:
    text = TAXI.replace("project = fb.Project", "one = fb.Project")
    path = write(tmp_path, text + "\ntwo = fb.Project('two', sources=[Trips])\n")
    with pytest.raises(InvalidError, match="several projects: one, two"):
        load_project(path)
    assert load_project(f"{path}:two").name == "two"


def test_an_exception_at_import_shows_the_users_frames_alone(tmp_path: Path) -> None:
    write(tmp_path, "def half(x: int) -> float:\n    return x / 0\n", "numbers_of_ours.py")
    path = write(tmp_path, "from numbers_of_ours import half\n\nVALUE = half(3)\n")
    with pytest.raises(InvalidError) as error:
        load_project(path)
    text = str(error.value)
    assert "project does not import: ZeroDivisionError: division by zero" in text
    assert "project.py:3 in <module>\n    VALUE = half(3)" in text
    assert "numbers_of_ours.py:2 in half\n    return x / 0" in text
    assert "load.py" not in text
    assert "importlib" not in text
    assert error.value.details["line"] == 2


def test_a_syntax_error_shows_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"SyntaxError") as error:
        load_project(write(tmp_path, "import flyball as fb\nclass (\n"))
    assert "project.py:2\n    class (" in str(error.value)


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="install the package that has the module 'no_such_package_here'"):
        load_project(write(tmp_path, "import no_such_package_here\n"))


def test_a_wrong_declaration_is_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"project.py:\d+: Trips has no column 'tps'; did you mean 'tips'"):
        load_project(write(tmp_path, TAXI.replace("Trips.tips >", "Trips.tps >")))


def test_a_wrong_duration_is_shown_at_its_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match=r"project.py:\d+: '7 days' is not a duration") as error:
        load_project(write(tmp_path, TAXI.replace('fb.count("7d")', 'fb.count("7 days")')))
    assert error.value.code == "bad_duration"


def test_a_script_that_exits_does_not_end_us(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="SystemExit"):
        load_project(write(tmp_path, "import sys\nsys.exit(3)\n"))
