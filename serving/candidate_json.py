"""Candidates as JSON, compiled: to make and encode an object of each takes longer than the search."""

import numpy as np
import numpy.typing as npt
import orjson
from numba import njit, types

from headwater.index import Candidates, ItemIds

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

DECIMALS = 5
_ONE = 10**DECIMALS
_SCORE_BYTES = 24
"""Room for a score; one of `_UNWRITABLE` or more becomes null."""
_UNWRITABLE = 1e13
_BEFORE_ID, _BEFORE_SCORE, _NULL = (np.frombuffer(text, np.uint8) for text in (b'{"item_id":', b',"score":', b"null"))
_EXTRA_BYTES = len(_BEFORE_ID) + len(_BEFORE_SCORE) + _SCORE_BYTES + 2
_TEXT, _OUT, _INTS = types.Array(types.uint8, 1, "C", readonly=True), types.uint8[::1], types.int64[::1]
_SCORES = types.float32[::1]
_QUOTE, _BACKSLASH, _MINUS, _POINT, _ZERO, _CLOSE, _COMMA = b'"\\-.0},'


def candidates_json(candidates: Candidates) -> bytes:
    """Return `{"item_id": …, "score": …}` of each candidate, scores to `DECIMALS`, with commas in between."""
    texts, begins, longest = candidates.pool.encoded or _encoded(candidates.pool)
    written = np.empty((longest + _EXTRA_BYTES) * len(candidates.positions), np.uint8)
    end = _write(texts, begins, candidates.positions, candidates.scores, written)
    return written[:end].tobytes()


def _encoded(pool: ItemIds) -> tuple[Bytes, Ints, int]:
    """Return item ids as JSON strings, where each begins (and one after the last would), and the longest one's length."""
    texts, begins = np.frombuffer(orjson.dumps(pool.ids), np.uint8), np.empty(len(pool.ids) + 1, np.int64)
    pool.encoded = texts, begins, _find_strings(texts, begins)
    return pool.encoded


@njit(types.int64(_OUT, types.int64, _TEXT), cache=True, nogil=True)
def _put(out: Bytes, at: int, text: Bytes) -> int:
    for place in range(len(text)):
        out[at + place] = text[place]
    return at + len(text)


@njit(types.int64(_OUT, types.int64, types.float32), cache=True, nogil=True)
def _put_score(out: Bytes, at: int, score: float) -> int:
    if not abs(score) < _UNWRITABLE:
        return _put(out, at, _NULL)
    parts = np.int64(round(abs(np.float64(score)) * _ONE))
    if score < 0.0 and parts:
        out[at] = _MINUS
        at += 1
    digits, least = DECIMALS + 1, _ONE * 10
    while parts >= least:
        digits, least = digits + 1, least * 10
    point = at + digits - DECIMALS
    for place in range(at + digits, at - 1, -1):
        if place == point:
            out[place] = _POINT
        else:
            out[place] = _ZERO + parts % 10
            parts //= 10
    return at + digits + 1


@njit(types.int64(_TEXT, _INTS), cache=True, nogil=True)
def _find_strings(texts: Bytes, begins: Ints) -> int:
    """Write where the strings of a JSON list begin, and where one after the last would; return the longest one's length."""
    read, longest = 1, 0
    for place in range(len(begins) - 1):
        begins[place] = read
        read += 1
        while texts[read] != _QUOTE:
            read += 2 if texts[read] == _BACKSLASH else 1
        read += 2  # the quote and the comma
        longest = max(longest, read - begins[place])
    begins[-1] = read
    return longest


@njit(types.int64(_TEXT, _INTS, _INTS, _SCORES, _OUT), cache=True, nogil=True)
def _write(texts: Bytes, begins: Ints, positions: Ints, scores: Floats, out: Bytes) -> int:
    """Write the candidates; return where the text ends in `out`."""
    at = 0
    for rank in range(len(positions)):
        at = _put(out, at, _BEFORE_ID)
        for byte in range(begins[positions[rank]], begins[positions[rank] + 1] - 1):
            out[at] = texts[byte]
            at += 1
        at = _put_score(out, _put(out, at, _BEFORE_SCORE), scores[rank])
        out[at], out[at + 1] = _CLOSE, _COMMA
        at += 2
    return max(at - 1, 0)
