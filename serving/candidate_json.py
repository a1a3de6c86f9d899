"""Answers as JSON, compiled: to make and encode an object of each candidate takes longer than the search."""

from collections.abc import Sequence
from itertools import accumulate

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
_BEFORE_ID, _BEFORE_SCORE, _NULL, _BEFORE_CANDIDATES, _END = (
    np.frombuffer(text, np.uint8) for text in (b'{"item_id":', b',"score":', b"null", b',"candidates":[', b"]}\n")
)
_LINE_BYTES = len(_BEFORE_CANDIDATES) + len(_END)
_EXTRA_BYTES = len(_BEFORE_ID) + len(_BEFORE_SCORE) + _SCORE_BYTES + 2
_TEXT, _OUT, _INTS = types.Array(types.uint8, 1, "C", readonly=True), types.uint8[::1], types.int64[::1]
_SCORES = types.float32[::1]
_TEN = np.uint64(10)
_QUOTE, _BACKSLASH, _MINUS, _POINT, _ZERO, _CLOSE, _COMMA = b'"\\-.0},'


def candidates_json(candidates: Candidates) -> bytes:
    """Return `{"item_id": …, "score": …}` of each candidate, scores to `DECIMALS`, with commas in between."""
    texts, begins, longest = candidates.pool.encoded or _encoded(candidates.pool)
    count = len(candidates.positions)
    written = np.empty((longest + _EXTRA_BYTES) * count, np.uint8)
    end = _write(written, 0, texts, begins, candidates.positions, candidates.scores, 0, count)
    return written[:end].tobytes()


def json_lines(heads: Sequence[dict[str, object]], answers: Sequence[Candidates]) -> bytes:
    """Return a line of JSON for each of B answers.

    Args:
        heads: B objects, none of them empty; the answer is added to each as `candidates`, see `candidates_json`.
        answers: Of one pool.
    """
    texts, begins, longest = answers[0].pool.encoded or _encoded(answers[0].pool)
    encoded = list(map(orjson.dumps, heads))
    head_ends = np.array([0, *accumulate(map(len, encoded))])
    ends = np.array([0, *accumulate([len(answer.positions) for answer in answers])])
    positions = np.concatenate([answer.positions for answer in answers])
    scores = np.concatenate([answer.scores for answer in answers])
    joined = b"".join(encoded)
    room = len(joined) + _LINE_BYTES * len(answers) + (longest + _EXTRA_BYTES) * len(positions)
    written = np.empty(room, np.uint8)
    end = _write_lines(np.frombuffer(joined, np.uint8), head_ends, texts, begins, positions, scores, ends, written)
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
    parts = np.uint64(abs(np.float64(score)) * _ONE + 0.5)
    if score < 0.0 and parts:
        out[at] = _MINUS
        at += 1
    digits, least = DECIMALS + 1, np.uint64(_ONE * 10)
    while parts >= least:
        digits, least = digits + 1, least * _TEN
    point = at + digits - DECIMALS
    for place in range(at + digits, at - 1, -1):
        if place == point:
            out[place] = _POINT
        else:
            rest = parts // _TEN
            out[place] = _ZERO + (parts - rest * _TEN)
            parts = rest
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


@njit(types.int64(_OUT, types.int64, _TEXT, _INTS, _INTS, _SCORES, types.int64, types.int64), cache=True, nogil=True)
def _write(
    out: Bytes, at: int, texts: Bytes, begins: Ints, positions: Ints, scores: Floats, first: int, last: int
) -> int:
    """Write the candidates from `first` to before `last`; return where the text ends in `out`."""
    for hit in range(first, last):
        if hit > first:
            out[at] = _COMMA
            at += 1
        at = _put(out, at, _BEFORE_ID)
        for place in range(begins[positions[hit]], begins[positions[hit] + 1] - 1):  # but for the comma
            out[at] = texts[place]
            at += 1
        at = _put_score(out, _put(out, at, _BEFORE_SCORE), scores[hit])
        out[at] = _CLOSE
        at += 1
    return at


@njit(types.int64(_TEXT, _INTS, _TEXT, _INTS, _INTS, _SCORES, _INTS, _OUT), cache=True, nogil=True)
def _write_lines(
    heads: Bytes, head_ends: Ints, texts: Bytes, begins: Ints, positions: Ints, scores: Floats, ends: Ints, out: Bytes
) -> int:
    """Write lines; return where the last one ends in `out`."""
    at = 0
    for answer in range(len(ends) - 1):
        for place in range(head_ends[answer], head_ends[answer + 1] - 1):  # but for the closing brace
            out[at] = heads[place]
            at += 1
        at = _put(out, at, _BEFORE_CANDIDATES)
        at = _write(out, at, texts, begins, positions, scores, ends[answer], ends[answer + 1])
        at = _put(out, at, _END)
    return at
