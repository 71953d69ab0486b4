from pathlib import Path

import pytest

from flyball.kernel.errors import ConflictError
from flyball.kernel.files import FORMAT_VERSION, write_document
from flyball.kernel.layout import Layout


def test_creating_twice_changes_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state")
    layout.create()
    (layout.runs / "r").mkdir()
    layout.create()
    assert (layout.runs / "r").is_dir()
    assert layout.root.stat().st_mode & 0o777 == 0o700


def test_the_folders_of_all_processes_are_made(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.create()
    for folder in (layout.event_log, layout.online, layout.lake, layout.acknowledgements, layout.artifacts):
        assert folder.is_dir()


def test_a_state_directory_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_document(layout.format, "flyball.state", {"state_version": FORMAT_VERSION + 1})
    with pytest.raises(ConflictError, match="reads up to") as caught:
        layout.create()
    assert caught.value.code == "newer_state"


def test_every_process_has_a_lock_of_its_own(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert layout.lock("control") != layout.lock("ingest")
