import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flyball.kernel import files
from flyball.kernel.errors import ConflictError, ExhaustedError, InvalidError
from flyball.kernel.files import FileLock, read_document, write_atomic, write_document

CRASH = """
import os, signal, sys
from pathlib import Path
from flyball.kernel.files import write_atomic

def die(self, target):
    os.kill(os.getpid(), signal.SIGKILL)

Path.replace = die
write_atomic(Path(sys.argv[1]), b"new")
"""


def test_a_crash_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_atomic(path, b"old")
    done = subprocess.run([sys.executable, "-c", CRASH, str(path)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    write_atomic(path, b"newer")
    assert path.read_bytes() == b"newer"


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "plan.json"
    write_atomic(path, b"old")

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ExhaustedError, match="nothing is lost") as caught:
        write_atomic(path, b"new")
    assert caught.value.code == "disk_full"
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["plan.json"]


def test_an_error_that_is_not_about_space_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "folder", b"")


def test_the_mode_of_a_new_file_is_the_one_asked_for(tmp_path: Path) -> None:
    write_atomic(tmp_path / "token", b"secret", mode=0o600)
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def test_a_document_reads_back_and_a_foreign_one_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    write_document(path, "flyball.plan", {"epoch": 3})
    assert read_document(path, "flyball.plan") == {"epoch": 3}
    for content in (b"{", b"[]", b'{"format": "other"}'):
        path.write_bytes(content)
        with pytest.raises(InvalidError, match=r"plan\.json is not a flyball\.plan") as caught:
            read_document(path, "flyball.plan")
        assert caught.value.code == "bad_document"


def test_a_document_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({"format": "flyball.plan", "version": files.FORMAT_VERSION + 1, "body": {}}))
    with pytest.raises(ConflictError) as caught:
        read_document(path, "flyball.plan")
    assert caught.value.code == "newer_format"


def test_a_held_lock_names_its_holder_and_a_released_one_is_free(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "control.lock", "control")
    with pytest.raises(ConflictError, match=f"in use by process {os.getpid()}") as caught:
        FileLock(tmp_path / "control.lock", "control")
    assert caught.value.code == "state_in_use"
    lock.release()
    FileLock(tmp_path / "control.lock", "control").release()


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom flyball.kernel.files import FileLock\n"
        "lock = FileLock(Path(sys.argv[1]), 'control')\nos.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "control.lock")], check=False, env=dict(os.environ))
    FileLock(tmp_path / "control.lock", "control").release()
