"""Bundles: what is unpacked, what is refused, and where modules come from."""

from __future__ import annotations

import io
import sys
import zipfile
from pathlib import Path

import pytest

from flyball.kernel.errors import FlyballError
from flyball.kernel.ids import digest
from flyball.training.bundle import importable, load_function, unpack


def zipped(files: dict[str, str], *, link: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        if link:
            entry = zipfile.ZipInfo(link)
            entry.external_attr = 0o120777 << 16
            archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def test_a_bundle_is_unpacked_and_its_function_found(tmp_path: Path) -> None:
    data = zipped(
        {
            "shop/__init__.py": "",
            "shop/models.py": "from shop.other import N\ndef tip(): return N",
            "shop/other.py": "N = 7",
        }
    )
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "stale.py").write_text("")
    unpack(data, digest(data), tmp_path / "code")
    assert not (tmp_path / "code" / "stale.py").exists()
    with importable(tmp_path / "code"):
        assert load_function(tmp_path / "code", "shop.models", "tip")() == 7
    assert "shop.models" not in sys.modules
    assert str(tmp_path / "code") not in sys.path


def test_the_bundle_wins_over_a_module_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, number in (("tree", 1), ("code", 2)):
        (tmp_path / place).mkdir()
        (tmp_path / place / "shadowed_project.py").write_text(f"def tip(): return {number}")
    monkeypatch.syspath_prepend(str(tmp_path / "tree"))
    import shadowed_project  # type: ignore[import-not-found]

    with importable(tmp_path / "code"):
        assert load_function(tmp_path / "code", "shadowed_project", "tip")() == 2
    assert sys.modules["shadowed_project"] is shadowed_project


def test_a_module_that_the_bundle_lacks_is_not_taken_from_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "only_here.py").write_text("def tip(): return 1")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "only_her.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path / "tree"))
    with importable(tmp_path / "code"), pytest.raises(FlyballError, match="did you mean 'only_her'"):
        load_function(tmp_path / "code", "only_here", "tip")


@pytest.mark.parametrize("name", ["../evil.py", "/evil.py", "a/../../evil.py", "..\\evil.py", "C:evil.py"])
def test_a_path_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    data = zipped({name: "x"})
    with pytest.raises(FlyballError) as caught:
        unpack(data, digest(data), tmp_path / "runs" / "code")
    assert caught.value.code == "bad_bundle"
    assert not list(tmp_path.rglob("evil.py"))


def test_links_other_bytes_and_no_zip_are_refused(tmp_path: Path) -> None:
    link, good, text = zipped({}, link="data"), zipped({"a.py": ""}), b"text"
    for data, expected, code in (
        (link, digest(link), "bad_bundle"),
        (good, "0" * 64, "bundle_corrupt"),
        (text, digest(text), "bad_bundle"),
    ):
        with pytest.raises(FlyballError) as caught:
            unpack(data, expected, tmp_path / "code")
        assert caught.value.code == code


def test_a_decorated_function_is_found_inside_its_declaration(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("class D:\n  def __init__(s, f): s.function = f\n@D\ndef tip(): return 3\nN = 1\n")
    with importable(tmp_path):
        assert load_function(tmp_path, "m", "tip")() == 3
        with pytest.raises(FlyballError):
            load_function(tmp_path, "m", "N")
