"""Numbers for texts, since compiled code works with numbers."""

from collections.abc import Iterable
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

FIRST_ROOM = 1024


class EncodedTexts(NamedTuple):
    """Texts in UTF-8 by number.

    Attributes:
        data: uint8; text n is `data[begins[n] : begins[n + 1]]`.
        begins: int64.
        digits: bool; whether a text consists of ASCII digits only.
    """

    data: npt.NDArray[np.uint8]
    begins: npt.NDArray[np.int64]
    digits: npt.NDArray[np.bool_]


class Texts:
    """Numbers texts from 1, in order of first use.

    Attributes:
        texts: The text of each number; 0 stands for none.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self.texts = [""]
        self._encoded = EncodedTexts(
            np.empty(FIRST_ROOM, np.uint8), np.zeros(FIRST_ROOM, np.int64), np.zeros(FIRST_ROOM, np.bool_)
        )
        self._encoded_count = 1

    def __len__(self) -> int:
        return len(self.texts) - 1

    def number(self, text: str) -> int:
        """Return a text's number; a new text gets the next one."""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self.texts)
            self.texts.append(text)
        return number

    def numbers(self, texts: Iterable[str]) -> list[int]:
        """Return the numbers of texts."""
        return list(map(self.number, texts))

    def encoded(self) -> EncodedTexts:
        """Return all texts as bytes, in arrays with spare room at their ends; valid until the next new text."""
        fresh = self.texts[self._encoded_count :]
        if fresh:
            data, begins, digits = self._encoded
            parts = [text.encode() for text in fresh]
            ends = list(accumulate(map(len, parts), initial=int(begins[self._encoded_count])))
            data, digits = _grown(data, ends[-1]), _grown(digits, len(self.texts))
            begins = _grown(begins, len(self.texts) + 1)
            data[ends[0] : ends[-1]] = np.frombuffer(b"".join(parts), np.uint8)
            begins[self._encoded_count : len(self.texts) + 1] = ends
            digits[self._encoded_count : len(self.texts)] = [text.isascii() and text.isdigit() for text in fresh]
            self._encoded, self._encoded_count = EncodedTexts(data, begins, digits), len(self.texts)
        return self._encoded


def _grown(array: npt.NDArray[Any], length: int) -> npt.NDArray[Any]:
    """Return an array with room for `length` entries, the given one if that is large enough."""
    if length <= len(array):
        return array
    return np.concatenate((array, np.zeros(max(length, 2 * len(array)) - len(array), array.dtype)))
