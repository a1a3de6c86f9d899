"""What was delivered to a user lately, so that it is not sent twice."""

import struct
from dataclasses import dataclass

from headwater.events import Delivery

DELIVERED_LENGTH = 1000
"""As many as one delivery may name."""
FORMAT = 1
_HEADER = struct.Struct("<Biq")


@dataclass(frozen=True, slots=True)
class Delivered:
    """The last `DELIVERED_LENGTH` delivered items, oldest first, and the newest applied offset."""

    item_ids: tuple[str, ...] = ()
    partition: int = -1
    offset: int = -1

    def apply(self, delivery: Delivery, partition: int, offset: int) -> "Delivered":
        """Return the record after one delivery; an offset applied already changes nothing."""
        if partition == self.partition and offset <= self.offset:
            return self
        fresh = dict.fromkeys(delivery.item_ids)
        kept = (item_id for item_id in self.item_ids if item_id not in fresh)
        return Delivered((*kept, *fresh)[-DELIVERED_LENGTH:], partition, offset)


def encode_delivered(delivered: Delivered) -> bytes:
    """Return the binary form kept in Redis."""
    header = _HEADER.pack(FORMAT, delivered.partition, delivered.offset)
    return header + "\n".join(delivered.item_ids).encode()


def decode_delivered(data: bytes) -> Delivered:
    """Return what `data` says was delivered.

    Raises:
        ValueError: the bytes are of another format.
    """
    if len(data) < _HEADER.size or data[0] != FORMAT:
        raise ValueError("not a delivered record of this format")
    _, partition, offset = _HEADER.unpack_from(data)
    text = data[_HEADER.size :].decode()
    return Delivered(tuple(text.split("\n")) if text else (), partition, offset)
