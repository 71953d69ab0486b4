"""Files, directories and globs: each file is a load of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flyball.cli import ingest as module
from flyball.cli.ingest import batches, files, load_all
from flyball.kernel.errors import InvalidError, NotFoundError, UnavailableError


class Platform:
    """Takes uploads; a file that says so is refused, or finds nobody."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def upload(self, source: str, path: str, progress: Any) -> dict[str, Any]:
        text = Path(path).read_text()
        if text == "bad":
            raise InvalidError("column 'fare' is missing", code="missing_column")
        if text == "down":
            raise UnavailableError("nothing answers", code="not_running")
        self.loaded.append(Path(path).name)
        return {"accepted": 2, "quarantined": 1, "duplicates": 0, "reasons": {"ge": 1}, "replayed": text == "again"}


def tree(folder: Path, **texts: str) -> list[Path]:
    paths = []
    for name, text in texts.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        paths.append(path)
    return paths


def test_a_directory_gives_its_files_of_known_formats_in_order(tmp_path: Path) -> None:
    tree(tmp_path, b_csv="", a__x_parquet="", a__notes_txt="", c_JSONL="")
    assert [p.name for p in files([str(tmp_path)])] == ["x.parquet", "b.csv", "c.JSONL"]
    assert [p.name for p in files([str(tmp_path / "*.csv"), str(tmp_path / "b.csv")])] == ["b.csv"], "each once"
    assert [p.name for p in files([str(tmp_path / "**/*.parquet")])] == ["x.parquet"]
    assert files(["absent.csv"]) == [Path("absent.csv")], "told when it is loaded"
    for nothing in (str(tmp_path / "*.pq"), str(tmp_path / "empty")):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(NotFoundError):
            files([nothing])


def test_a_bad_file_is_named_and_the_others_are_loaded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    platform: Any = Platform()
    paths = tree(tmp_path, a_csv="good", b_csv="bad", c_csv="again")
    assert load_all(platform, "Trips", paths, False) == 2, "as a single invalid file would end"
    assert platform.loaded == ["a.csv", "c.csv"]
    out = capsys.readouterr().out
    assert "Trips: 4 rows accepted, 2 quarantined" in out
    assert "2 of 3 files are loaded, 1 of them were before" in out
    assert "b.csv was refused: column 'fare' is missing" in out
    assert load_all(platform, "Trips", paths[:1], True) == 0


def test_where_nothing_answers_the_rest_is_not_tried(tmp_path: Path) -> None:
    platform: Any = Platform()
    with pytest.raises(UnavailableError):
        load_all(platform, "Trips", tree(tmp_path, a_csv="down", b_csv="good"), True)
    assert platform.loaded == []
    assert module.FORMATS[0] == ".csv"


def test_a_line_from_a_pipe_that_is_not_utf8_is_named() -> None:
    assert list(batches([b'{"a": "\xc3\xa9"}\n', b"\n"])) == [[{"a": "é"}]]
    with pytest.raises(InvalidError, match="line 2 is not JSON in UTF-8") as caught:
        list(batches([b'{"a": 1}\n', b'{"a": "\xe9"}\n']))
    assert caught.value.code == "bad_row"
