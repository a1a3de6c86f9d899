"""Successions as Kafka records, compiled: a worker publishes one for every engagement. See `headwater.successions`."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numba import njit, types

from headwater.byte_writing import put_int, put_text
from headwater.successions import ENTRY, LENGTH
from headwater.texts import EncodedTexts

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

_ENTRY_BYTES, _LENGTH_BYTES = ENTRY.size, LENGTH.size
_INT, _INTS, _HISTORIES, _BYTES = types.int64, types.int64[::1], types.int64[:, ::1], types.uint8[::1]


def encode_successions(
    offsets: Ints, times_ms: Ints, items: Ints, before: Ints, names: EncodedTexts, at_most: int
) -> list[bytes]:
    """Return the values of `item-successions` records (key: the partition) for N successions, `at_most` in each.

    Args:
        offsets: (N,) of the engagements in their partition, ascending.
        times_ms: (N,) epoch ms.
        items: (N,) item numbers.
        before: (N, DEPTH) item numbers, newest first, 0 after the last.
        names: Item ids by number.
        at_most: Successions per record.
    """
    ends = np.zeros(len(items) + 1, np.int64)
    _measure(items, before, names.begins, ends)
    out = np.empty(ends[-1], np.uint8)
    _encode(offsets, times_ms, items, before, names.data, names.begins, ends, out)
    data, bounds = out.tobytes(), [*ends[:-1:at_most].tolist(), int(ends[-1])]
    return [data[begin:end] for begin, end in pairwise(bounds)]


@njit(types.void(_INTS, _HISTORIES, _INTS, _INTS), cache=True, nogil=True)
def _measure(items: Ints, before: Ints, begins: Ints, ends: Ints) -> None:
    """Write into `ends` where each succession ends in the output."""
    for n in range(len(items)):
        length = _ENTRY_BYTES + _LENGTH_BYTES + begins[items[n] + 1] - begins[items[n]]
        for item in before[n]:
            if item:
                length += _LENGTH_BYTES + begins[item + 1] - begins[item]
        ends[n + 1] = ends[n] + length


@njit(_INT(_BYTES, _INT, _INT, _BYTES, _INTS), cache=True, nogil=True)
def _put_name(out: Bytes, at: int, item: int, data: Bytes, begins: Ints) -> int:
    at = put_int(out, at, begins[item + 1] - begins[item], _LENGTH_BYTES)
    return put_text(out, at, item, data, begins)


@njit(types.void(_INTS, _INTS, _INTS, _HISTORIES, _BYTES, _INTS, _INTS, _BYTES), cache=True, nogil=True)
def _encode(
    offsets: Ints, times_ms: Ints, items: Ints, before: Ints, data: Bytes, begins: Ints, ends: Ints, out: Bytes
) -> None:
    for n in range(len(items)):
        at = put_int(out, ends[n], offsets[n], 8)
        at = put_int(out, at, times_ms[n], 8)
        at = put_int(out, at, int(np.count_nonzero(before[n])), 1)
        at = _put_name(out, at, items[n], data, begins)
        for item in before[n]:
            if item:
                at = _put_name(out, at, item, data, begins)
