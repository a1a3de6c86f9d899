"""Keys and values packed one after the other, each with its length before it: frames in Kafka, users in checkpoints."""

import struct
from collections.abc import Iterable, Iterator

Pair = tuple[bytes, bytes]
_LENGTHS = struct.Struct("<HI")


class TruncatedPairs(ValueError):
    """The bytes end inside a pair, at byte `at`."""

    def __init__(self, at: int) -> None:
        super().__init__(f"the data ends inside a pair, at byte {at}")
        self.at = at


def encode_pairs(pairs: Iterable[Pair]) -> bytes:
    """Return the bytes of keys and values; a key has at most 65,535 bytes."""
    return b"".join(part for key, value in pairs for part in (_LENGTHS.pack(len(key), len(value)), key, value))


def decode_pairs(data: bytes) -> Iterator[Pair]:
    """Yield keys and values.

    Raises:
        TruncatedPairs: the data ends inside a pair.
    """
    at = 0
    while at < len(data):
        if at + _LENGTHS.size > len(data):
            raise TruncatedPairs(at)
        key_length, value_length = _LENGTHS.unpack_from(data, at)
        begin = at + _LENGTHS.size
        at = begin + key_length + value_length
        if at > len(data):
            raise TruncatedPairs(begin)
        yield data[begin : begin + key_length], data[begin + key_length : at]
