"""The loops over texts that NumPy and Polars have no word for, as machine code: a hash, records, and their values.

Compiled at the first call and kept on disk (`warm` does it before anyone waits). Every function stands alone in this
file, which is what Numba's cache watches.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit, types
from numba.extending import intrinsic

Words = np.ndarray[Any, np.dtype[np.uint64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]
Places = np.ndarray[Any, np.dtype[np.int64]]
Octets = np.ndarray[Any, np.dtype[np.uint8]]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """To machine code, kept on disk. What a function calls stands in its own file."""
    return cast(_Function, njit(cache=True, nogil=True)(function))


def _load_word(typing_context: Any, address: Any) -> Any:
    """The 8 bytes at an address, which may be unaligned, as a little-endian number."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], context.get_value_type(cast(Any, types.CPointer)(types.uint64)))
        return builder.load(pointer, align=1)

    return types.uint64(types.uint64), generate


def _load_byte(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], context.get_value_type(cast(Any, types.CPointer)(types.uint8)))
        return builder.load(pointer)

    return types.uint8(types.uint64), generate


_word_at: Any = intrinsic(_load_word)
_byte_at: Any = intrinsic(_load_byte)


@compiled
def _absorb(v: Words, i: int, word: np.uint64) -> None:
    """Two rounds of SipHash over one word, for row `i` of the states `v` (n × 4)."""
    v0, v1, v2, v3 = v[i, 0], v[i, 1], v[i, 2], v[i, 3] ^ word
    for _ in range(2):
        v0 += v1
        v1 = (v1 << np.uint64(13)) | (v1 >> np.uint64(51))
        v1 ^= v0
        v0 = (v0 << np.uint64(32)) | (v0 >> np.uint64(32))
        v2 += v3
        v3 = (v3 << np.uint64(16)) | (v3 >> np.uint64(48))
        v3 ^= v2
        v0 += v3
        v3 = (v3 << np.uint64(21)) | (v3 >> np.uint64(43))
        v3 ^= v0
        v2 += v1
        v1 = (v1 << np.uint64(17)) | (v1 >> np.uint64(47))
        v1 ^= v2
        v2 = (v2 << np.uint64(32)) | (v2 >> np.uint64(32))
    v[i, 0], v[i, 1], v[i, 2], v[i, 3] = v0 ^ word, v1, v2, v3


@compiled
def absorb_prefix(v: Words, lengths: Words, valid: Flags, words: Words) -> None:
    """The same words into the state of each valid row; `lengths` counts the words of each."""
    for i in range(len(valid)):
        if valid[i]:
            for word in words:
                _absorb(v, i, word)
            lengths[i] += np.uint64(len(words))


@compiled
def absorb_words(v: Words, lengths: Words, valid: Flags, mark: np.uint64, null: np.uint64, values: Words) -> None:
    """A word a row, after `mark`; where it is null, `null` alone (0: nothing)."""
    for i in range(len(valid)):
        if valid[i]:
            _absorb(v, i, mark)
            _absorb(v, i, values[i])
            lengths[i] += np.uint64(2)
        elif null:
            _absorb(v, i, null)
            lengths[i] += np.uint64(1)


@compiled
def absorb_texts(
    v: Words,
    lengths: Words,
    valid: Flags,
    mark: np.uint64,
    null: np.uint64,
    first: int,
    count: int,
    views: np.uint64,
    buffers: Words,
) -> None:
    """Arrow's string views at address `views`, for the rows from `first`: `mark` with the length, then the bytes."""
    for k in range(count):
        i = first + k
        if not valid[i]:
            if null:
                _absorb(v, i, null)
                lengths[i] += np.uint64(1)
            continue
        view = views + np.uint64(16 * k)
        head = _word_at(view)
        length = head & np.uint64(0xFFFFFFFF)
        if length <= np.uint64(12):
            start = view + np.uint64(4)
        else:
            place = _word_at(view + np.uint64(8))
            start = buffers[place & np.uint64(0xFFFFFFFF)] + (place >> np.uint64(32))
        _absorb(v, i, mark | (length << np.uint64(8)))
        whole = length >> np.uint64(3)
        for w in range(whole):
            _absorb(v, i, _word_at(start + np.uint64(8) * np.uint64(w)))
        rest = length & np.uint64(7)
        if rest:
            last = np.uint64(0)
            tail = start + np.uint64(8) * whole
            for b in range(rest):
                last |= np.uint64(_byte_at(tail + np.uint64(b))) << np.uint64(8 * b)
            _absorb(v, i, last)
            whole += np.uint64(1)
        lengths[i] += np.uint64(1) + whole


@compiled
def finish(v: Words, lengths: Words, out: Words) -> None:
    """The 128 bits of each row: the last block carries the length in bytes, as SipHash has it."""
    for i in range(len(lengths)):
        _absorb(v, i, (lengths[i] << np.uint64(3)) << np.uint64(56))
        v[i, 2] ^= np.uint64(0xEE)
        for half in range(2):
            _absorb(v, i, np.uint64(0))
            _absorb(v, i, np.uint64(0))
            out[i, half] = v[i, 0] ^ v[i, 1] ^ v[i, 2] ^ v[i, 3]
            v[i, 1] ^= np.uint64(0xDD)


@compiled
def scan_records(
    data: Octets, start: int, last: bool, starts: Places, ends: Places, fields: Places, lines: Places, kinds: Places
) -> tuple[int, int, int]:
    """Find the next records of a CSV text, until `starts` is full or the text ends.

    Of each: where it begins and ends (without the line end), how many fields it has, how many line ends lie before its
    end, and its kind: 0 plain, 1 with line ends inside quotes, 2 to be read with care, 3 badly quoted (its first line
    alone; the search goes on after it). `last`: no more text follows. Blank lines are passed over.

    Returns how many were found, where the first that is not complete begins, and the line ends before it; the count is
    negative minus one where that one is inside quotes at the end of the file.
    """
    n, at, count, line = len(data), start, 0, 0
    while at < n and count < len(starts):
        begin, began, width, kind = at, line, 1, 0
        quoted, fresh, closed, broken, done = False, True, False, False, False
        while at < n:
            c = data[at]
            if c > 44 and not closed:  # nearly every byte: none of the signs below, inside quotes or not
                fresh = False
                at += 1
                continue
            if quoted:
                if c == 34:
                    if at + 1 < n and data[at + 1] == 34:
                        at += 1
                    elif at + 1 == n and not last:
                        break
                    else:
                        quoted, closed = False, True
                elif c == 10 or (c == 13 and not (at + 1 < n and data[at + 1] == 10)):
                    line += 1
                    kind = max(kind, 2 if c == 13 else 1)
            elif c == 44:
                width += 1
                fresh, closed = True, False
                at += 1
                continue
            elif c == 10 or c == 13:
                done = True
                break
            elif closed:
                broken = True
                break
            elif c == 34:
                if fresh:
                    quoted = True
                else:
                    kind = 2
            fresh = False
            at += 1
        if broken or (quoted and last and at >= n and not done):
            if not broken:
                return -count - 1, begin, began
            at, line = begin, began
            while at < n and data[at] != 10 and data[at] != 13:
                at += 1
            kind, done = 3, at < n
        if not done and not last:
            return count, begin, began
        end = at
        if done:
            if data[at] == 13 and at + 1 == n and not last:
                return count, begin, began
            if data[at] == 13 and at + 1 < n and data[at + 1] == 10:
                at += 1
            elif data[at] == 13:
                kind = max(kind, 2)
            at += 1
            line += 1
        if end > begin:
            starts[count], ends[count], fields[count], kinds[count] = begin, end, width, kind
            lines[count] = line - (1 if done else 0)
            count += 1
    return count, at, line


@compiled
def none_of(first: int, count: int, views: np.uint64, allowed: Words, out: Flags) -> None:
    """Set `out`, for the rows from `first`, where a text is none of the allowed ones.

    Those are views of up to 12 bytes (n × 2 words), which are what they say: equal texts are equal views.
    """
    for k in range(count):
        head, tail = _word_at(views + np.uint64(16 * k)), _word_at(views + np.uint64(16 * k + 8))
        there = False
        for a in range(len(allowed)):
            if allowed[a, 0] == head and allowed[a, 1] == tail:
                there = True
                break
        out[first + k] = not there


@compiled
def _eight_digits(word: np.uint64, length: Any) -> Any:
    """The number in the first `length` bytes of a word (1 to 8); -1: not all of them are digits.

    Source: D. Lemire, "Quickly parsing eight digits" (2018).
    """
    zeros = np.uint64(0x3030303030303030)
    unused = np.uint64(8 * (8 - length))
    digits = (word << unused) | (zeros & ~(np.uint64(0xFFFFFFFFFFFFFFFF) << unused))  # zeros in front
    high = np.uint64(0xF0F0F0F0F0F0F0F0)
    if digits & high != zeros or (digits + np.uint64(0x0606060606060606)) & high != zeros:
        return -1
    digits -= zeros
    pairs = digits * np.uint64(10) + (digits >> np.uint64(8))
    four = np.uint64(0x000000FF000000FF)
    left = (pairs & four) * np.uint64(0x000F424000000064)
    right = ((pairs >> np.uint64(16)) & four) * np.uint64(0x0000271000000001)
    return np.int64((left + right) >> np.uint64(32))


@compiled
def _plain_number(start: np.uint64, length: Any, scale: int) -> Any:
    """A text of up to 16 digits, or of up to 8 bytes with a point among the digits, in units of 10**-scale.

    -1: it is neither, or one that needs a closer look. Eight bytes at `start` have to be there.
    """
    word = _word_at(start)
    if length > 8:
        left, right = _eight_digits(word, length - 8), _eight_digits(_word_at(start + np.uint64(length - 8)), 8)
        return -1 if scale > 0 or left < 0 or right < 0 else 100_000_000 * left + right
    whole, after = _eight_digits(word, length), 0
    if whole < 0:
        points = word ^ np.uint64(0x2E2E2E2E2E2E2E2E)
        points = (points - np.uint64(0x0101010101010101)) & ~points & np.uint64(0x8080808080808080)
        at = 0
        while at < length and not points & np.uint64(0x80):
            points >>= np.uint64(8)
            at += 1
        after = length - 1 - at
        if at == 0 or after < 1 or after > scale:
            return -1
        front = np.uint64(8 * at)
        digits = word & np.uint64((1 << 8 * at) - 1) | word >> np.uint64(8) >> front << front
        whole = _eight_digits(digits, length - 1)
    if whole < 0 or scale - after > 9:
        return -1
    for _ in range(scale - after):
        whole *= 10
    return whole


@compiled
def read_units(
    first: int,
    count: int,
    views: np.uint64,
    buffers: Words,
    scale: int,
    limit: int,
    points: bool,
    out: Places,
    done: Flags,
) -> None:
    """Plain decimal texts of up to 18 digits in units of 10**-scale, for the rows from `first` that are not `done`.

    A row whose text is anything else, or has digits that the scale does not hold, stays not done; without `points`,
    also one that has a point.
    """
    for k in range(count):
        i = first + k
        if done[i]:
            continue
        view = views + np.uint64(16 * k)
        length = np.int64(_word_at(view) & np.uint64(0xFFFFFFFF))
        start = view + np.uint64(4)
        if length > 12:
            place = _word_at(view + np.uint64(8))
            start = buffers[place & np.uint64(0xFFFFFFFF)] + (place >> np.uint64(32))
        if length == 0 or length > 40:
            continue
        if length <= 16:
            number = _plain_number(start, length, scale)
            if 0 <= number <= limit:
                out[i] = number
                done[i] = True
                continue
        at, negative = 0, False
        sign = _byte_at(start)
        if sign == 45 or sign == 43:
            negative, at = sign == 45, 1
        value, digits, after, point = 0, 0, 0, False
        good = True
        while at < length:
            c = int(_byte_at(start + np.uint64(at)))
            if 48 <= c <= 57:
                if point and after >= scale:
                    good = good and c == 48
                else:
                    value = 10 * value + (c - 48)
                    digits += 1
                    after += point
            elif c == 46 and points and not point and digits:
                point = True
            else:
                good = False
            if not good or digits > 18:
                good = False
                break
            at += 1
        good = good and digits > 0
        while good and after < scale:
            value *= 10
            digits += 1
            after += 1
            good = digits <= 18
        if good and value <= limit:
            out[i] = -value if negative else value
            done[i] = True


@compiled
def read_booleans(first: int, count: int, views: np.uint64, out: Flags, done: Flags) -> None:
    """The texts true, True, TRUE, 1 and their opposites, for the rows from `first` that are not `done`; a row whose
    text is anything else stays not done."""
    for k in range(count):
        i = first + k
        if done[i]:
            continue
        view = views + np.uint64(16 * k)
        head, tail = _word_at(view), _byte_at(view + np.uint64(8))
        length, text = head & np.uint64(0xFFFFFFFF), head >> np.uint64(32)  # the first four bytes, the rest are zero
        if length == 4 and (text == 0x65757274 or text == 0x65757254 or text == 0x45555254):
            out[i] = done[i] = True
        elif length == 5 and (
            (tail == 101 and (text == 0x736C6166 or text == 0x736C6146)) or (tail == 69 and text == 0x534C4146)
        ):
            done[i] = True
        elif length == 1 and (text == 48 or text == 49):
            out[i] = text == 49
            done[i] = True


@compiled
def read_times(first: int, count: int, views: np.uint64, buffers: Words, out: Places, done: Flags) -> None:
    """Texts such as 2014-05-16T19:45:00.123456Z (a space for the T, no fraction or zone: UTC) in µs since 1970."""
    for k in range(count):
        i = first + k
        if done[i]:
            continue
        view = views + np.uint64(16 * k)
        length = np.int64(_word_at(view) & np.uint64(0xFFFFFFFF))
        if length < 19 or length > 27:
            continue
        place = _word_at(view + np.uint64(8))
        start = buffers[place & np.uint64(0xFFFFFFFF)] + (place >> np.uint64(32))
        good, value, fraction = True, 0, 0
        year = month = day = hour = minute = second = 0
        for at in range(19):
            c = int(_byte_at(start + np.uint64(at)))
            if at == 4 or at == 7:
                good = good and c == 45
                value = 0
            elif at == 10:
                good = good and (c == 84 or c == 32)
                value = 0
            elif at == 13 or at == 16:
                good = good and c == 58
                value = 0
            else:
                good = good and 48 <= c <= 57
                value = 10 * value + c - 48
            if at == 3:
                year = value
            elif at == 6:
                month = value
            elif at == 9:
                day = value
            elif at == 12:
                hour = value
            elif at == 15:
                minute = value
            elif at == 18:
                second = value
        at = 19
        if good and at < length and _byte_at(start + np.uint64(at)) == 46:
            at += 1
            digits = 0
            while at < length:
                c = int(_byte_at(start + np.uint64(at)))
                if c < 48 or c > 57:
                    break
                fraction = 10 * fraction + c - 48
                digits += 1
                at += 1
            good = 1 <= digits <= 6
            for _ in range(6 - digits):
                fraction *= 10
        if good and at < length:
            good = at == length - 1 and _byte_at(start + np.uint64(at)) == 90
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        longest = 28 + leap if month == 2 else 30 if month in (4, 6, 9, 11) else 31
        if (
            good
            and year >= 1
            and 1 <= month <= 12
            and 1 <= day <= longest
            and hour < 24
            and minute < 60
            and second < 60
        ):
            y = year - (month <= 2)  # days since 1970-01-01: H. Hinnant, "chrono-compatible low-level date algorithms"
            era = y // 400
            yoe = y - era * 400
            doy = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
            days = era * 146_097 + yoe * 365 + yoe // 4 - yoe // 100 + doy - 719_468
            out[i] = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000 + fraction
            done[i] = True


@cache
def warm() -> None:
    """Compile, or load what was compiled: once in a process, before anyone waits."""
    states, one, flags = np.zeros((1, 4), np.uint64), np.zeros(1, np.uint64), np.ones(1, np.bool_)
    keys, mark, places = np.ones((1, 2), np.uint64), np.uint64(1), np.zeros(1, np.int64)
    text = np.zeros(2, np.uint64)
    address = np.uint64(text.ctypes.data)
    absorb_prefix(states, one, flags, np.frombuffer(bytes(8), np.uint64))
    absorb_prefix(states, one, flags, one)
    absorb_words(states, one, flags, mark, mark, one)
    absorb_texts(states, one, flags, mark, mark, 0, 1, address, one)
    finish(states, one, keys)
    scan_records(np.frombuffer(b"a", np.uint8), 0, True, places, places, places, places, places)
    read_units(0, 1, address, one, 0, 9, True, places, flags)
    none_of(0, 1, address, keys, flags)
    read_booleans(0, 1, address, flags, flags)
    read_times(0, 1, address, one, places, flags)
