"""What every online store must do; `tests/storage/test_online.py` runs it for each adapter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flyball.features.ports import OnlineStore

Check = Callable[[OnlineStore], None]


def a_new_store_needs_a_rebuild_until_it_is_reset(store: OnlineStore) -> None:
    assert store.needs_rebuild()
    store.reset()
    assert not store.needs_rebuild()


def a_committed_write_is_read(store: OnlineStore) -> None:
    with store.write() as txn:
        txn.put("a", b"k", b"1")
        assert txn.get("a", b"k") == b"1"
    with store.read() as txn:
        assert txn.get("a", b"k") == b"1"
        assert txn.get_many("a", [b"none", b"k"]) == [None, b"1"]


def a_failed_write_leaves_nothing(store: OnlineStore) -> None:
    with store.write() as txn:
        txn.put("a", b"k", b"1")

    def fail() -> None:
        with store.write() as txn:
            txn.put("a", b"k", b"2")
            txn.put("a", b"new", b"2")
            txn.delete("a", b"k")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with store.read() as look:
        assert list(look.items("a")) == [(b"k", b"1")]


def spaces_are_apart_and_ordered(store: OnlineStore) -> None:
    with store.write() as txn:
        for key in (b"\xff", b"\x00", b"b", b"a", b""):
            txn.put("a", b"-" + key, key)
        txn.put("a1", b"x", b"other")
        txn.put("", b"x", b"other")
    with store.read() as txn:
        assert [value for _, value in txn.items("a")] == [b"", b"\x00", b"a", b"b", b"\xff"]
        assert list(txn.items("a1")) == [(b"x", b"other")]
        assert list(txn.items("none")) == []


def a_space_can_be_walked_while_it_is_emptied(store: OnlineStore) -> None:
    with store.write() as txn:
        for i in range(50):
            txn.put("a", bytes([i]), b"v")
    with store.write() as txn:
        for key, _ in txn.items("a"):
            if key < b"\x28":
                txn.delete("a", key)
    with store.read() as txn:
        assert [key[0] for key, _ in txn.items("a")] == list(range(40, 50))


def clearing_takes_one_space(store: OnlineStore) -> None:
    with store.write() as txn:
        txn.put("a", b"1", b"v")
        txn.put("a", b"2", b"v")
        txn.put("b", b"1", b"v")
        txn.delete("b", b"never there")
    with store.write() as txn:
        txn.clear("a")
        txn.clear("never there")
    with store.read() as txn:
        assert list(txn.items("a")) == []
        assert list(txn.items("b")) == [(b"1", b"v")]


def a_reset_forgets_everything(store: OnlineStore) -> None:
    with store.write() as txn:
        txn.put("a", b"1", b"v")
    store.reset()
    with store.read() as txn:
        assert list(txn.items("a")) == []


CHECKS: tuple[Check, ...] = (
    a_new_store_needs_a_rebuild_until_it_is_reset,
    a_committed_write_is_read,
    a_failed_write_leaves_nothing,
    spaces_are_apart_and_ordered,
    a_space_can_be_walked_while_it_is_emptied,
    clearing_takes_one_space,
    a_reset_forgets_everything,
)
