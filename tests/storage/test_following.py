"""A reader that lives longer than the state that it reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flyball.kernel.errors import UnavailableError
from flyball.storage.following import FollowingStore, open_writable


class Watch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0  # each look is a new one
        return self.now


def fill(path: Path, value: bytes, *, boot: str = "one") -> None:
    """What a writer leaves; a process opens a file once, so it is closed again."""
    store = open_writable(path, boot=boot)
    if store.needs_rebuild():
        store.reset()
    with store.write() as transaction:
        transaction.put("a", b"k", value)
    store.close()


def read(store: FollowingStore) -> bytes | None:
    with store.read() as transaction:
        return transaction.get("a", b"k")


def code(ask: Callable[[], object]) -> str:
    with pytest.raises(UnavailableError) as caught:
        ask()
    return caught.value.code


def test_state_of_another_boot_is_followed_and_never_the_old_one(tmp_path: Path) -> None:
    fill(tmp_path, b"old")
    reader = FollowingStore(tmp_path, boot="one", monotonic=Watch())
    assert read(reader) == b"old"
    later = FollowingStore(tmp_path, boot="two", monotonic=Watch())
    assert code(lambda: read(later)) == "online_rebuilding"
    fill(tmp_path, b"new", boot="two")
    assert read(later) == b"new"
    assert code(lambda: read(reader)) == "online_rebuilding"  # it is of the first boot
    for store in (reader, later):
        store.close()


def test_a_folder_that_goes_and_comes_again_is_read_again(tmp_path: Path) -> None:
    fill(tmp_path, b"old")
    reader = FollowingStore(tmp_path, boot="one", monotonic=Watch())
    assert read(reader) == b"old"
    for path in tmp_path.iterdir():
        path.unlink()
    assert code(lambda: read(reader)) == "online_rebuilding"
    fill(tmp_path, b"new")
    assert read(reader) == b"new"
    reader.close()


def test_the_old_file_is_kept_while_someone_looks_at_it(tmp_path: Path) -> None:
    fill(tmp_path, b"old")
    reader = FollowingStore(tmp_path, boot="one", monotonic=Watch())
    with reader.read() as look:
        (tmp_path / "boot.json").unlink()
        fill(tmp_path, b"new")
        assert read(reader) == b"new"
        assert look.get("a", b"k") == b"old"
    assert read(reader) == b"new"
    reader.close()


def test_a_writer_sees_that_its_file_was_taken_away(tmp_path: Path) -> None:
    store = open_writable(tmp_path, boot="one")
    store.reset()
    assert not store.lost()
    with store.write() as transaction:
        transaction.put("a", b"k", b"MARKER")
        transaction.put("a", b"kept", b"1")
    with store.write() as transaction:
        transaction.delete("a", b"k")
    store.compact()
    assert not store.lost()
    assert b"MARKER" not in (tmp_path / "data.mdb").read_bytes()
    with store.read() as look:
        assert list(look.items("a")) == [(b"kept", b"1")]
    (tmp_path / "data.mdb").unlink()
    assert store.lost()
    store.close()


@pytest.mark.parametrize("broken", ["torn", "junk"])
def test_a_broken_file_is_begun_anew(tmp_path: Path, broken: str) -> None:
    fill(tmp_path, b"old")
    writer = open_writable(tmp_path, boot="one")
    with writer.write() as transaction:
        for i in range(2_000):
            transaction.put("a", i.to_bytes(4, "big"), b"v" * 100)
    writer.close()
    data = tmp_path / "data.mdb"
    if broken == "torn":
        data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    else:
        data.write_bytes(b"junk" * 4_000)
    reader = FollowingStore(tmp_path, boot="one", monotonic=Watch())
    writer = open_writable(tmp_path, boot="one")
    assert writer.needs_rebuild()
    assert code(lambda: read(reader)) == "online_rebuilding"
    writer.close()
