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
_SCORE_BYTES = 24
"""Room for a score; one of `_UNWRITABLE` or more becomes null."""
_UNWRITABLE = 1e13
_CHUNK = np.uint64(16)
"""Bytes that are copied at once, what follows a text among them: a loop over the bytes of short texts takes twice as long."""
_BEFORE_ID, _BEFORE_SCORE, _NULL, _BEFORE_CANDIDATES, _END = (
    np.frombuffer(text, np.uint8) for text in (b'{"item_id":', b',"score":', b"null", b',"candidates":[', b"]}\n")
)
_LINE_BYTES = len(_BEFORE_CANDIDATES) + len(_END)
_EXTRA_BYTES = len(_BEFORE_ID) + len(_BEFORE_SCORE)
_TEXT, _OUT, _INTS = types.Array(types.uint8, 1, "C", readonly=True), types.uint8[::1], types.int64[::1]
_SCORES = types.float32[::1]
_0, _1, _TEN, _ONE, _DECIMALS = map(np.uint64, (0, 1, 10, 10**DECIMALS, DECIMALS))
_QUOTE, _BACKSLASH, _MINUS, _POINT, _ZERO, _CLOSE, _COMMA = b'"\\-.0},'


def candidates_json(candidates: Candidates) -> bytes:
    """Return `{"item_id": …, "score": …}` of each candidate, scores to `DECIMALS`, with commas in between."""
    texts, begins, longest = candidates.pool.encoded or _encoded(candidates.pool)
    count = len(candidates.positions)
    written = np.empty((longest + _SCORE_BYTES) * count + int(_CHUNK), np.uint8)
    end = _write(written, _0, texts, begins, candidates.positions, candidates.scores, 0, count)
    return written[:end].tobytes()


def json_lines(heads: Sequence[bytes], answers: Sequence[Candidates]) -> bytes:
    """Return a line of JSON for each of B answers.

    Args:
        heads: B objects in JSON, none of them empty; the answer is added to each as `candidates`, see `candidates_json`.
        answers: Of one pool.
    """
    texts, begins, longest = answers[0].pool.encoded or _encoded(answers[0].pool)
    head_ends = np.array([0, *accumulate(map(len, heads))])
    ends = np.array([0, *accumulate([len(answer.positions) for answer in answers])])
    positions = np.concatenate([answer.positions for answer in answers])
    scores = np.concatenate([answer.scores for answer in answers])
    joined = b"".join(heads)
    room = len(joined) + _LINE_BYTES * len(answers) + (longest + _SCORE_BYTES) * len(positions) + int(_CHUNK)
    written = np.empty(room, np.uint8)
    end = _write_lines(np.frombuffer(joined, np.uint8), head_ends, texts, begins, positions, scores, ends, written)
    return written[:end].tobytes()


def _encoded(pool: ItemIds) -> tuple[Bytes, Ints, int]:
    """Return what comes before each item's score, where that begins (and one after the last would), and the longest length."""
    ids, begins = np.frombuffer(orjson.dumps(pool.ids), np.uint8), np.empty(len(pool.ids) + 1, np.int64)
    texts = np.empty(len(ids) + _EXTRA_BYTES * len(pool.ids) + int(_CHUNK), np.uint8)
    pool.encoded = texts, begins, _write_beginnings(ids, texts, begins)
    return pool.encoded


@njit(types.uint64(_OUT, types.uint64, _TEXT), cache=True, nogil=True)
def _put(out: Bytes, at: np.uint64, text: Bytes) -> np.uint64:
    """Write a text; return where it ends. A position that can be negative would be checked for that at each byte."""
    for place in range(np.uint64(len(text))):
        out[at + place] = text[place]
    return at + np.uint64(len(text))


@njit(types.int64(_TEXT, _OUT, _INTS), cache=True, nogil=True)
def _write_beginnings(ids: Bytes, texts: Bytes, begins: Ints) -> int:
    """Write the beginnings of candidates, given a JSON list of their ids; return the longest one's length."""
    read, at, longest = 1, _0, 0
    for place in range(len(begins) - 1):
        begins[place] = at
        first, read = read, read + 1
        while ids[read] != _QUOTE:
            read += 2 if ids[read] == _BACKSLASH else 1
        at = _put(texts, _put(texts, _put(texts, at, _BEFORE_ID), ids[first : read + 1]), _BEFORE_SCORE)
        longest = max(longest, np.int64(at) - begins[place])
        read += 2  # the quote and the comma
    begins[-1] = at
    return longest


@njit(types.uint64(_OUT, types.uint64, types.uint64, types.uint64), cache=True, nogil=True)
def _put_digits(out: Bytes, at: np.uint64, number: np.uint64, digits: np.uint64) -> np.uint64:
    for place in range(digits):
        rest = number // _TEN
        out[at + digits - _1 - place] = _ZERO + number - rest * _TEN
        number = rest
    return at + digits


@njit(types.uint64(_OUT, types.uint64, types.float32), cache=True, nogil=True)
def _put_score(out: Bytes, at: np.uint64, score: float) -> np.uint64:
    if not abs(score) < _UNWRITABLE:
        return _put(out, at, _NULL)
    parts = np.uint64(abs(np.float64(score)) * 10**DECIMALS + 0.5)
    if score < 0.0 and parts:
        out[at] = _MINUS
        at += _1
    whole, digits, least = parts // _ONE, _1, _TEN
    fraction = parts - whole * _ONE
    while whole >= least:
        digits, least = digits + _1, least * _TEN
    at = _put_digits(out, at, whole, digits)
    out[at] = _POINT
    return _put_digits(out, at + _1, fraction, _DECIMALS)


@njit(types.uint64(_OUT, types.uint64, _TEXT, _INTS, _INTS, _SCORES, types.int64, types.int64), cache=True, nogil=True)
def _write(
    out: Bytes, at: np.uint64, texts: Bytes, begins: Ints, positions: Ints, scores: Floats, first: int, last: int
) -> np.uint64:
    """Write the candidates from `first` to before `last`; return where the text ends in `out`."""
    for hit in range(first, last):
        begin, end = np.uint64(begins[positions[hit]]), np.uint64(begins[positions[hit] + 1])
        for start in range(begin, end, _CHUNK):
            for place in range(_CHUNK):
                out[at + (start - begin) + place] = texts[start + place]
        at = _put_score(out, at + (end - begin), scores[hit])
        out[at], out[at + _1] = _CLOSE, _COMMA
        at += _1 + _1
    return at - _1 if last > first else at


@njit(types.uint64(_TEXT, _INTS, _TEXT, _INTS, _INTS, _SCORES, _INTS, _OUT), cache=True, nogil=True)
def _write_lines(
    heads: Bytes, head_ends: Ints, texts: Bytes, begins: Ints, positions: Ints, scores: Floats, ends: Ints, out: Bytes
) -> np.uint64:
    """Write lines; return where the last one ends in `out`."""
    at = _0
    for answer in range(len(ends) - 1):
        at = _put(out, at, heads[head_ends[answer] : head_ends[answer + 1] - 1])  # but for the closing brace
        at = _put(out, at, _BEFORE_CANDIDATES)
        at = _write(out, at, texts, begins, positions, scores, ends[answer], ends[answer + 1])
        at = _put(out, at, _END)
    return at
