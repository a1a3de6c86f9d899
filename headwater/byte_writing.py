"""Writing bytes in compiled code."""

import numpy as np
import numpy.typing as npt
from numba import njit, types


@njit(types.int64(types.uint8[::1], types.int64, types.int64, types.int64), cache=True, nogil=True)
def put_int(out: npt.NDArray[np.uint8], at: int, value: int, length: int) -> int:
    """Write the lowest `length` bytes of an integer, little-endian, and return the position after them."""
    for place in range(length):
        out[at + place] = value >> (8 * place) & 0xFF
    return at + length


@njit(
    types.int64(types.uint8[::1], types.int64, types.int64, types.uint8[::1], types.int64[::1]), cache=True, nogil=True
)
def put_text(
    out: npt.NDArray[np.uint8], at: int, number: int, data: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64]
) -> int:
    """Write a text of `headwater.texts.EncodedTexts`, and return where the next byte goes."""
    for byte in range(begins[number], begins[number + 1]):
        out[at] = data[byte]
        at += 1
    return at
