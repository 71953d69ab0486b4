import json
from pathlib import Path

import click
import pytest

from flyball.cli import errors
from flyball.cli.errors import EXIT_STATUS, PLAN_HAS_CHANGES, report
from flyball.kernel import errors as kernel_errors
from flyball.kernel.errors import ErrorKind, FlyballError


@pytest.mark.parametrize("cls", FlyballError.__subclasses__())
def test_every_kind_has_the_status_that_the_kernels_docstring_gives(cls: type[FlyballError]) -> None:
    assert kernel_errors.__doc__ is not None
    line = next(line for line in kernel_errors.__doc__.splitlines() if cls.__name__ in line)
    assert f"exit {EXIT_STATUS[cls.kind]}," in line


def test_the_table_is_total_and_its_docstring_names_every_status() -> None:
    assert set(EXIT_STATUS) == set(ErrorKind)
    assert errors.__doc__ is not None
    assert all(f"    {status} " in errors.__doc__ for status in EXIT_STATUS.values())
    assert PLAN_HAS_CHANGES == 2


@pytest.mark.parametrize("cls", FlyballError.__subclasses__())
def test_an_error_prints_message_and_hint_and_no_traceback(
    cls: type[FlyballError], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(cls("no model 'tpi'", hint="flyball status"), as_json=False) == EXIT_STATUS[cls.kind]
    assert capsys.readouterr().err == "error: no model 'tpi'\n  flyball status\n"


def test_for_scripts_an_error_is_a_json_object_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    report(kernel_errors.NotFoundError("gone", code="run_not_found"), as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"code": "run_not_found", "kind": "not_found", "message": "gone"}}
    assert err == ""


def test_an_exception_in_the_users_code_shows_the_users_frames_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("import json\n\ndef train():\n    return json.loads('{')\n")
    space: dict[str, object] = {}
    exec(compile((tmp_path / "mine.py").read_text(), str(tmp_path / "mine.py"), "exec"), space)
    with pytest.raises(ValueError, match="Expecting") as caught:
        space["train"]()  # type: ignore[operator]
    # The test itself stands for the frames of a user, so it shows as well; those of `json` do not.
    assert report(caught.value, as_json=False) == 2
    err = capsys.readouterr().err
    assert "mine.py" in err
    assert "decoder.py" not in err
    assert "error: your code raised JSONDecodeError" in err


def test_a_defect_of_ours_says_so_and_shows_where(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyError("x"), as_json=False) == 1
    assert "a defect of Flyball: KeyError" in capsys.readouterr().err


def test_ctrl_c_is_130_and_a_wrong_option_is_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(KeyboardInterrupt(), as_json=False) == 130
    assert report(click.Abort(), as_json=False) == 130
    assert report(click.UsageError("no such option: --x"), as_json=False) == 2
    assert "no such option" in capsys.readouterr().err
