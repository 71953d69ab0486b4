"""Bytes side by side for Numba: 64 or 128 rows in one value, compared and masked by single instructions.

The values are LLVM vectors, which LLVM splits to what the processor has: one register of AVX-512 for 64 bytes, two of
AVX2, four of SSE or NEON. An index is not checked and does not wrap around: the kernel's indices come from its own
program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model
from numba.np.arrayobj import make_array, populate_array

BLOCK = 128  # rows of a full block
HALF = 64  # rows of a block where fewer are left
EVERY_BYTE = 0x01010101  # a byte times this is a word of four of it

_BYTE, _WORD, _INDEX = ir.IntType(8), ir.IntType(32), ir.IntType(64)


def _intrinsic(function: Callable[..., Any]) -> Any:
    """Numba's own, as a function of any arguments: the typing context is not the caller's to give."""
    return intrinsic(function)


class Lanes(types.Type):
    """`width` bytes, a row each."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Lanes({width})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, ir.VectorType(_BYTE, lanes.width))


def _constant(lanes: Lanes, byte: int) -> Any:
    return ir.Constant(ir.VectorType(_BYTE, lanes.width), [byte] * lanes.width)


def _everywhere(builder: Any, lanes: Lanes, word: Any) -> Any:
    """A word of four equal bytes in all lanes: words are broadcast from memory by one instruction, bytes by two."""
    words = ir.VectorType(_WORD, lanes.width // 4)
    undefined = ir.Constant(words, ir.Undefined)
    one = builder.insert_element(undefined, word, ir.Constant(_WORD, 0))
    same = ir.Constant(ir.VectorType(_WORD, lanes.width // 4), [0] * (lanes.width // 4))
    return builder.bitcast(builder.shuffle_vector(one, undefined, same), ir.VectorType(_BYTE, lanes.width))


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    return builder.gep(context.make_array(kind)(context, builder, array).data, [index])


def _lanes_at(context: Any, builder: Any, kind: Any, array: Any, index: Any, lanes: Lanes) -> Any:
    place = _place(context, builder, kind, array, index)
    return builder.bitcast(place, ir.PointerType(ir.VectorType(_BYTE, lanes.width)))


@_intrinsic
def full_block(_typing: Any) -> Any:
    """All bits set, for 128 rows."""
    lanes = Lanes(BLOCK)
    return lanes(), lambda context, builder, signature, args: _constant(lanes, 255)


@_intrinsic
def half_block(_typing: Any) -> Any:
    """All bits set, for 64 rows."""
    lanes = Lanes(HALF)
    return lanes(), lambda context, builder, signature, args: _constant(lanes, 255)


@_intrinsic
def nothing(_typing: Any, like: Any) -> Any:
    """No bit set, for as many rows as `like`."""
    return like(like), lambda context, builder, signature, args: _constant(like, 0)


@_intrinsic
def passed(_typing: Any, alive: Any, codes: Any, entries: Any, position: Any) -> Any:
    """`alive` after one entry: the entry's mask is applied to the rows whose code reaches its bound.

    An entry is three words from `position` on: column, bound and mask, the latter two as four equal bytes.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        lanes_value, codes_value, entries_value, at = args
        place = _place(context, builder, entries, entries_value, at)
        column, bound, mask = (builder.load(builder.gep(place, [ir.Constant(_INDEX, i)])) for i in range(3))
        offset = builder.mul(builder.zext(column, _INDEX), ir.Constant(_INDEX, alive.width))
        code = builder.load(_lanes_at(context, builder, codes, codes_value, offset, alive))
        code.align = 64
        reached = builder.icmp_unsigned(">=", code, _everywhere(builder, alive, bound))
        kept = builder.select(reached, _everywhere(builder, alive, mask), _constant(alive, 255))
        return builder.and_(lanes_value, kept)

    return alive(alive, codes, entries, types.intp), generate


@_intrinsic
def where_any(_typing: Any, condition: Any, word: Any, otherwise: Any) -> Any:
    """A word's bytes where the condition has any bit, else `otherwise`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nonzero = builder.icmp_unsigned("!=", args[0], _constant(condition, 0))
        return builder.select(nonzero, _everywhere(builder, condition, args[1]), args[2])

    return condition(condition, types.uint32, condition), generate


@_intrinsic
def first_nonzero(_typing: Any, first: Any, second: Any) -> Any:
    """The first operand where it has any bit, else the second."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        nonzero = builder.icmp_unsigned("!=", args[0], _constant(first, 0))
        return builder.select(nonzero, args[0], args[1])

    return first(first, first), generate


@_intrinsic
def lowest_bit(_typing: Any, bits: Any, base: Any) -> Any:
    """The number of the lowest bit, counted from `base`."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = ir.VectorType(_BYTE, bits.width)
        kind = ir.FunctionType(vector, [vector, ir.IntType(1)])
        count = cgutils.get_or_insert_function(builder.module, kind, f"llvm.cttz.v{bits.width}i8")
        return builder.add(builder.call(count, [args[0], ir.Constant(ir.IntType(1), 0)]), args[1])

    return bits(bits, bits), generate


@_intrinsic
def keep(_typing: Any, array: Any, index: Any, value: Any) -> Any:
    """Write lanes to an array of bytes, from `index` on, which is a multiple of 64 in an aligned array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        written = builder.store(args[2], _lanes_at(context, builder, array, args[0], args[1], value))
        written.align = 64
        return context.get_dummy_value()

    return types.void(array, types.intp, value), generate


@_intrinsic
def at(_typing: Any, array: Any, index: Any) -> Any:
    """`array[index]`, counted over all dimensions of a contiguous array, without a look at the sign of the index."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.unpack_value(builder, array.dtype, _place(context, builder, array, *args))

    return array.dtype(array, types.intp), generate


@_intrinsic
def put(_typing: Any, array: Any, index: Any, value: Any) -> Any:
    """`array[index] = value`, likewise; the value is cast to the array's type."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        context.pack_value(builder, array.dtype, args[2], _place(context, builder, array, args[0], args[1]))
        return context.get_dummy_value()

    return types.void(array, types.intp, array.dtype), generate


def _section(kind: Any) -> Any:
    """A function that gives a section of a program as an array of a type: an address and a length, nothing owned.

    The program must outlive what is taken of it. Built by hand because slices and views of Numba's own check what is
    known here, which took two thirds of the time to compile the kernel.
    """

    def section(_typing: Any, pool: Any, which: Any) -> Any:
        array = types.Array(kind, 1, "C")

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            data = context.make_array(pool)(context, builder, args[0]).data
            directory = builder.bitcast(data, ir.PointerType(_INDEX))
            entry = builder.gep(directory, [builder.mul(args[1], ir.Constant(_INDEX, 2))])
            offset, size = builder.load(entry), builder.load(builder.gep(entry, [ir.Constant(_INDEX, 1)]))
            width = ir.Constant(_INDEX, kind.bitwidth // 8)
            result = make_array(array)(context, builder)
            populate_array(
                result,
                data=builder.bitcast(builder.gep(data, [offset]), result.data.type),
                shape=[builder.udiv(size, width)],
                strides=[width],
                itemsize=width,
                meminfo=None,
            )
            return result._getvalue()

        return array(pool, types.intp), generate

    return _intrinsic(section)


ints = _section(types.int32)
words = _section(types.uint32)
shorts = _section(types.uint16)
longs = _section(types.int64)
doubles = _section(types.float64)
floats = _section(types.float32)
