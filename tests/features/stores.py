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


def a_walk_goes_on_behind_a_key_and_gives_as_much_of_values_as_is_asked(store: OnlineStore) -> None:
    keys = [i.to_bytes(2, "big") for i in range(0, 2_000, 2)]
    with store.write() as txn:
        txn.put_many("a", [(key, b"value " + key) for key in keys])
        txn.put("a0", b"x", b"other")
        assert [key for key, _ in txn.items("a", after=keys[-3])] == keys[-2:]
    with store.read() as look:
        assert list(look.items("a")) == [(key, b"value " + key) for key in keys]
        assert list(look.items("a", after=(7).to_bytes(2, "big"), size=3)) == [(key, b"val") for key in keys[4:]]
        assert next(iter(look.items("a", after=keys[7])))[0] == keys[8]
        assert list(look.items("a", after=keys[-1])) == []
        assert next(iter(look.items("a")))[0] == keys[0]


def many_are_put_in_any_order_and_replace_what_was_there(store: OnlineStore) -> None:
    with store.write() as txn:
        txn.put("a", b"b", b"old")
        txn.put_many("a", [])
        txn.put_many("a", [(b"c", b"3"), (b"b", memoryview(b"2")), (b"a", b"x" * 10_000), (b"c", b"4")])
        assert txn.get_many("a", [b"c", b"none", b"a"]) == [b"4", None, b"x" * 10_000]
    with store.read() as look:
        assert list(look.items("a", size=1)) == [(b"a", b"x"), (b"b", b"2"), (b"c", b"4")]


def a_value_is_copied_into_memory_that_is_large_enough(store: OnlineStore) -> None:
    with store.write() as txn:
        txn.put("a", b"k", b"12345678")
        txn.put("a", b"empty", b"")
    memory = bytearray(b"-" * 10)
    with store.read() as look:
        assert look.get_into("a", b"none", memoryview(memory)) == -1
        assert look.get_into("a", b"empty", memoryview(memory)) == 0
        assert look.get_into("a", b"k", memoryview(memory)[:7]) == 8
        assert memory == b"-" * 10
        assert look.get_into("a", b"k", memoryview(memory)) == 8
        assert memory == b"12345678--"


def values_are_looked_at_without_a_copy_of_one_s_own(store: OnlineStore) -> None:
    with store.write() as txn:
        txn.put("a", b"k", b"1")
        found = txn.look("a", [b"none", b"k"])
        assert [None if value is None else bytes(value) for value in found] == [None, b"1"]
        txn.put("a", b"k", b"2")
    with store.read() as look:
        assert [bytes(value or b"") for value in look.look("a", [b"k", b"none"])] == [b"2", b""]


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
    a_walk_goes_on_behind_a_key_and_gives_as_much_of_values_as_is_asked,
    many_are_put_in_any_order_and_replace_what_was_there,
    a_value_is_copied_into_memory_that_is_large_enough,
    values_are_looked_at_without_a_copy_of_one_s_own,
    clearing_takes_one_space,
    a_reset_forgets_everything,
)
