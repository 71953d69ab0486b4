from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyball.features.ports import OnlineStore
from flyball.kernel.errors import ExhaustedError, UnavailableError
from flyball.storage.online import FORMAT, LmdbStore, MemoryStore, boot_id
from tests.features.stores import CHECKS, Check


@pytest.fixture(params=["lmdb", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OnlineStore]:
    made: OnlineStore = LmdbStore(tmp_path / "online", map_size=1 << 24) if request.param == "lmdb" else MemoryStore()
    yield made
    made.close()


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_an_online_store(check: Check, store: OnlineStore) -> None:
    check(store)


def test_state_survives_the_process_and_not_the_boot(tmp_path: Path) -> None:
    first = LmdbStore(tmp_path, boot="one")
    first.reset()
    with first.write() as txn:
        txn.put("a", b"k", b"v")
    first.close()
    again = LmdbStore(tmp_path, boot="one")
    assert not again.needs_rebuild()
    with again.read() as txn:
        assert txn.get("a", b"k") == b"v"
    again.close()
    after = LmdbStore(tmp_path, boot="two")
    assert after.needs_rebuild()
    with after.read() as txn:
        assert txn.get("a", b"k") is None
    after.close()


def test_a_store_of_another_format_is_built_again_and_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("flyball.storage.online.FORMAT", FORMAT - 1)
        old = LmdbStore(tmp_path, boot="one")
        old.reset()
        with old.write() as txn:
            txn.put("a", b"k", b"of old")
        old.close()
    with pytest.raises(UnavailableError) as error:
        LmdbStore(tmp_path, boot="one", readonly=True)
    assert error.value.code == "online_rebuilding"
    store = LmdbStore(tmp_path, boot="one")
    assert store.needs_rebuild()
    with store.read() as txn:
        assert txn.get("a", b"k") is None
    store.close()


def test_a_compacted_store_is_trusted_after_a_restart(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, boot="one")
    store.reset()
    with store.write() as txn:
        txn.put("a", b"k", b"v")
    store.compact()
    store.close()
    again = LmdbStore(tmp_path, boot="one")
    assert not again.needs_rebuild()
    with again.read() as txn:
        assert txn.get("a", b"k") == b"v"
    again.close()


def test_a_reader_waits_for_the_writer_of_this_boot(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as error:
        LmdbStore(tmp_path / "none", readonly=True)
    assert error.value.code == "online_rebuilding"
    LmdbStore(tmp_path, boot="one").close()
    with pytest.raises(UnavailableError):
        LmdbStore(tmp_path, readonly=True, boot="one")


def test_another_process_reads_what_was_committed(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    store.reset()
    with store.write() as txn:
        txn.put("a", b"k", b"v")
    script = (
        "import sys; from pathlib import Path; from flyball.storage.online import LmdbStore\n"
        "store = LmdbStore(Path(sys.argv[1]), readonly=True)\n"
        "with store.read() as txn: print(txn.get('a', b'k'))\n"
        "assert 'polars' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "b'v'\n", done.stderr
    store.close()


def test_a_full_store_is_an_error_that_loses_nothing(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path, map_size=1 << 17)
    store.reset()
    with store.write() as txn:
        txn.put("a", b"k", b"v")

    def fill() -> None:
        with store.write() as txn:
            for i in range(1000):
                txn.put("a", i.to_bytes(8, "big"), b"x" * 1000)

    with pytest.raises(ExhaustedError) as error:
        fill()
    assert error.value.code == "online_full"
    with store.read() as look:
        assert [key for key, _ in look.items("a")] == [b"k"]
    store.close()


def test_the_boot_has_a_name() -> None:
    assert boot_id() == boot_id() != ""
