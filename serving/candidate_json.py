"""Candidates as JSON, compiled: an object for each of them takes longer to encode than to find."""

import numpy as np
import numpy.typing as npt
import orjson
from numba import njit, types

from headwater.index import Candidates

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

DECIMALS = 5
_ONE = 10**DECIMALS
_LONGEST = 24
"""Bytes of a score."""
_LARGEST = 1e13
_BEFORE_ID, _BEFORE_SCORE, _NULL = (np.frombuffer(text, np.uint8) for text in (b'{"item_id":', b',"score":', b"null"))
_TEXT, _OUT, _SCORES = types.Array(types.uint8, 1, "C", readonly=True), types.uint8[::1], types.float32[::1]
_QUOTE, _BACKSLASH, _MINUS, _POINT, _ZERO, _CLOSE, _COMMA = b'"\\-.0},'


def candidates_json(candidates: Candidates) -> bytes:
    """Return `{"item_id": …, "score": …}` of each candidate, scores to `DECIMALS`, with commas in between."""
    item_ids = np.frombuffer(orjson.dumps(candidates.item_ids), np.uint8)
    more = len(_BEFORE_ID) + len(_BEFORE_SCORE) + _LONGEST + 2
    written = np.empty(len(item_ids) + more * len(candidates.item_ids), np.uint8)
    end = _write(item_ids, candidates.scores, written)
    return written[:end].tobytes()


@njit(types.int64(_OUT, types.int64, _TEXT), cache=True, nogil=True)
def _put(out: Bytes, at: int, text: Bytes) -> int:
    for place in range(len(text)):
        out[at + place] = text[place]
    return at + len(text)


@njit(types.int64(_OUT, types.int64, types.float32), cache=True, nogil=True)
def _put_score(out: Bytes, at: int, score: float) -> int:
    if not abs(score) < _LARGEST:
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


@njit(types.int64(_TEXT, _SCORES, _OUT), cache=True, nogil=True)
def _write(item_ids: Bytes, scores: Floats, out: Bytes) -> int:
    """Join the strings of a JSON list with scores; return where the text ends in `out`."""
    at, read = 0, 1
    for place in range(len(scores)):
        at = _put(out, at, _BEFORE_ID)
        begin = read
        read += 1
        while item_ids[read] != _QUOTE:
            read += 2 if item_ids[read] == _BACKSLASH else 1
        read += 2  # the quote and the comma
        for byte in range(begin, read - 1):
            out[at] = item_ids[byte]
            at += 1
        at = _put_score(out, _put(out, at, _BEFORE_SCORE), scores[place])
        out[at], out[at + 1] = _CLOSE, _COMMA
        at += 2
    return max(at - 1, 0)
