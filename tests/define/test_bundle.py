"""The bundle: the user's code and nothing else, with one digest for equal code."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from flyball.define import bundle
from flyball.define.bundle import bundle_digest, bundle_files, bundle_zip
from flyball.kernel.errors import InvalidError
from flyball.kernel.ids import digest

KEPT = {
    "project.py": "x = 1\n",
    "shop/__init__.py": "",
    "shop/model.py": "y = 2\n",
    "requirements.txt": "numpy\n",
    "requirements-train.txt": "lightgbm\n",
    "uv.lock": "version = 1\n",
}
LEFT_OUT = (
    ".env",
    ".env.py",
    ".git/hooks/x.py",
    ".flyball/runs/run_1/code/project.py",
    "state/format.json",
    "state/metadata.sqlite",
    "state/runs/r/code/project.py",
    "venv/pyvenv.cfg",
    "venv/lib/other.py",
    "__pycache__/project.py",
    "data/trips.csv",
    "model.pkl",
    "secrets.toml",
)


def fill(root: Path) -> None:
    for name, text in KEPT.items() | dict.fromkeys(LEFT_OUT, "secret").items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "linked.py").symlink_to("/etc/hostname")


def test_a_bundle_is_the_code_and_what_pins_it(tmp_path: Path) -> None:
    fill(tmp_path)
    assert bundle_files(tmp_path) == {name: text.encode() for name, text in KEPT.items()}


def test_equal_code_has_equal_bytes(tmp_path: Path) -> None:
    fill(tmp_path)
    files = bundle_files(tmp_path)
    data = bundle_zip(files)
    assert data == bundle_zip(dict(reversed(files.items())))
    assert bundle_digest(files) == digest(data)
    assert bundle_digest(files) != bundle_digest(files | {"project.py": b"x = 2\n"})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == sorted(KEPT)
        assert archive.read("shop/model.py") == b"y = 2\n"


def test_too_much_code_and_no_code_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidError, match="no Python file"):
        bundle_files(tmp_path)
    fill(tmp_path)
    monkeypatch.setattr(bundle, "MAX_FILES", 3)
    with pytest.raises(InvalidError, match="a folder of its own"):
        bundle_files(tmp_path)
