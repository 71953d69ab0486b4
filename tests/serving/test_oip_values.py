"""Values of the Open Inference Protocol: JSON and bytes to arrays and back."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball.kernel.errors import InvalidError
from flyball.serving.oip_values import MAX_VALUES, check_shape, from_bytes, from_list, to_bytes, to_list
from flyball.serving.tensors import DTYPES, datatype_of

NUMBERS = [name for name in DTYPES if name != "BYTES"]
ENCODABLE = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


def arrays(**elements: Any) -> st.SearchStrategy[Any]:
    shapes = hnp.array_shapes(min_dims=0, min_side=0, max_side=4)
    return st.sampled_from(NUMBERS).flatmap(
        lambda name: hnp.arrays(DTYPES[name], shapes, elements=elements if name.startswith("FP") else None)
    )


def listed(datatype: str, shape: Any, data: Any) -> Any:
    """The tensor of a list as a request brings it."""
    sent = msgspec.json.encode(data)
    return from_list("a", datatype, shape, msgspec.json.decode(sent), may_hold_booleans=b"true" in sent)


def same(found: Any, expected: Any) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@given(array=arrays(), start=st.integers(0, 9))
def test_an_array_survives_as_bytes_wherever_they_lie(array: Any, start: int) -> None:
    raw = bytes(to_bytes(array))
    found = from_bytes("a", datatype_of(array), array.shape, b"?" * start + raw + b"?", start, len(raw))
    same(found, array)
    assert found.flags.aligned


@given(array=arrays(allow_nan=False, allow_infinity=False))
def test_an_array_survives_as_a_list_flat_and_nested(array: Any) -> None:
    same(listed(datatype_of(array), array.shape, to_list(array)), array)
    if array.ndim and 0 not in array.shape[:-1]:
        same(listed(datatype_of(array), array.shape, array.tolist()), array)


@given(st.lists(ENCODABLE, max_size=5))
def test_texts_survive_both_ways(texts: list[str]) -> None:
    array = np.empty(len(texts), dtype=object)
    array[:] = texts
    raw = bytes(to_bytes(array))
    assert from_bytes("a", "BYTES", [len(texts)], b"??" + raw, 2, len(raw)).tolist() == texts
    assert listed("BYTES", [len(texts), 1], [[text] for text in texts]).ravel().tolist() == texts
    assert to_list(array) == texts


def test_aligned_bytes_are_not_copied() -> None:
    body = bytes(64)
    found = from_bytes("a", "FP32", [8], body, 16, 32)
    assert np.shares_memory(found, np.frombuffer(body, dtype=np.uint8))


def test_values_at_the_ends_of_their_type_survive_and_those_beyond_are_refused() -> None:
    for name in NUMBERS:
        dtype = np.dtype(DTYPES[name])
        if dtype.kind == "b":
            continue
        ends = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
        array = np.array([ends.min, ends.max], dtype=dtype)
        same(listed(name, [2], array.tolist()), array)
        beyond = [2**64 if name == "UINT64" else int(ends.max) + 1] if dtype.kind in "iu" else [2.0 * float(ends.max)]
        if name != "FP64":  # there JSON itself ends
            with pytest.raises(InvalidError, match=f"not {name}"):
                listed(name, [1], beyond)


def test_null_is_nan_in_a_tensor_of_floats_and_refused_elsewhere() -> None:
    np.testing.assert_array_equal(listed("FP32", [3], [1, None, 2.5]), np.array([1, np.nan, 2.5], dtype=np.float32))
    for name, data in (("INT32", [1, None]), ("BOOL", [True, None]), ("BYTES", ["a", None])):
        with pytest.raises(InvalidError, match=f"not {name}: null at position 1"):
            listed(name, [2], data)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "words"),
    [
        ("INT8", [1], [200], "out of range at position 0, not INT8: from -128 to 127"),
        ("INT64", [1], [1.5], "a fraction at position 0"),
        ("INT64", [2], [1, 2**70], "not INT64"),
        ("UINT8", [1], [-1], "from 0 to 255"),
        ("FP32", [2], [1, 1e39], "out of range at position 1"),
        ("FP16", [1], [70000], "out of range"),
        ("FP32", [2], [1, True], "a boolean at position 1"),
        ("INT32", [2], [1, True], "a boolean at position 1, where a whole number"),
        ("BOOL", [1], [1], "a whole number at position 0, where true or false"),
        ("FP32", [1], ["1"], "a text at position 0, where a number"),
        ("BYTES", [1], [1], "where a text belongs"),
        ("FP32", [1], [{}], "an object at position 0"),
        ("FP32", [2], [1, [2]], "a list at position 1"),
        ("FP32", [3], [[1], [2, 3]], "nested data of 2 lists"),
        ("FP32", [2, 2], [[1, 2], [3]], "not 2 long at depth 1"),
        ("FP32", [2, 1, 2], [[1, 2], [3, 4]], "not 1 long at depth 1"),
        ("FP32", [2, 2, 1], [[1, 2], [3, 4]], "nested in part"),
        ("FP32", [], [[1]], "its shape is \\[\\]"),
        ("FP32", [2], [1], "1 values; its shape \\[2\\] holds 2"),
        ("FP32", [0], [1], "holds 0"),
    ],
)
def test_lists_that_are_not_the_tensor_are_refused_with_what_is_wrong(
    datatype: str, shape: list[int], data: list[Any], words: str
) -> None:
    with pytest.raises(InvalidError, match=words) as caught:
        listed(datatype, shape, data)
    assert caught.value.code == "bad_tensor"


@pytest.mark.parametrize(
    ("datatype", "shape", "raw", "words"),
    [
        ("FP32", [2], bytes(7), "7 bytes of binary data; its shape \\[2\\] of FP32 holds 8"),
        ("FP32", [2], bytes(12), "12 bytes"),
        ("BOOL", [2], b"\x00\x02", "neither 0 nor 1"),
        ("BYTES", [2], b"\x01\x00\x00\x00a", "2 texts with their lengths take 8"),
        ("BYTES", [1], b"\x05\x00\x00\x00a", "beyond its 5 bytes"),
        ("BYTES", [1], b"\xff\xff\xff\xffa", "beyond its 5 bytes"),
        ("BYTES", [1], b"\x01\x00\x00\x00ab", "1 bytes of binary data after its last text"),
        ("BYTES", [0], b"a", "1 bytes"),
        ("BYTES", [1], b"\x01\x00\x00\x00\xff", "not UTF-8"),
    ],
)
def test_bytes_that_are_not_the_tensor_are_refused_with_what_is_wrong(
    datatype: str, shape: list[int], raw: bytes, words: str
) -> None:
    with pytest.raises(InvalidError, match=words):
        from_bytes("a", datatype, shape, raw, 0, len(raw))


@given(st.binary(max_size=40), st.integers(0, 6), st.integers(0, 4))
def test_no_bytes_are_taken_beyond_those_of_the_tensor(raw: bytes, count: int, after: int) -> None:
    body = raw + b"\x01" * after
    try:
        found = from_bytes("a", "BYTES", [count], body, 0, len(raw))
    except InvalidError:
        return
    assert bytes(to_bytes(found)) == raw


@pytest.mark.parametrize(
    "shape", [[2**63], [2**32, 2**32], [0, 2**62, 2**62], [MAX_VALUES + 1], [-1], [2, -3], [1] * 33, [10**30, 0]]
)
def test_absurd_shapes_are_refused_before_anything_is_made_of_them(shape: list[int]) -> None:
    with pytest.raises(InvalidError, match="shape"):
        from_bytes("a", "FP64", shape, b"", 0, 0)


def test_types_that_are_not_served_are_refused_by_name() -> None:
    with pytest.raises(InvalidError, match="BF16, which is not served"):
        check_shape("a", "BF16", [1])
    with pytest.raises(InvalidError, match="'FP99'; known are BOOL"):
        check_shape("a", "FP99", [1])


def test_arrays_of_any_order_and_byte_order_are_sent_row_by_row_and_little_endian() -> None:
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    assert bytes(to_bytes(array.astype("<i4").T)) == np.array([0, 3, 1, 4, 2, 5], dtype="<i4").tobytes()
    assert to_list(array.T) == [0, 3, 1, 4, 2, 5]
    assert to_list(np.array([b"\xc3\xa9", "é"], dtype=object)) == ["é", "é"]
    assert bytes(to_bytes(np.array([b"\xff"], dtype=object))) == b"\x01\x00\x00\x00\xff"
