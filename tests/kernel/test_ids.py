import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.kernel.ids import canonical, digest, new_id, short

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def test_ids_are_unique_and_carry_their_prefix() -> None:
    ids = {new_id("run") for _ in range(2_000)}
    assert len(ids) == 2_000
    assert all(i.startswith("run_") and len(i) == len("run_") + 26 for i in ids)


def test_ids_sort_by_the_millisecond_they_were_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([1_700_000_000_000_000_000, 1_700_000_000_001_000_000, 1_800_000_000_000_000_000])
    monkeypatch.setattr(time, "time_ns", lambda: next(moments))
    ids = [new_id("p") for _ in range(3)]
    assert ids == sorted(ids)


@settings(max_examples=60)
@given(st.dictionaries(st.text(max_size=5), plain, max_size=5))
def test_a_digest_does_not_depend_on_the_order_of_keys(data: dict[str, object]) -> None:
    assert digest(data) == digest(dict(reversed(list(data.items()))))


def test_bytes_are_hashed_as_they_are() -> None:
    assert digest(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert short(digest(b"")) == "e3b0c44298fc"


def test_numbers_that_json_cannot_say_are_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"x": float("nan")})
