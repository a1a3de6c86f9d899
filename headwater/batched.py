"""Values in batches."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Value = TypeVar("Value")


def batched(values: Iterable[Value], size: int) -> Iterator[list[Value]]:
    """Yield values in their order, `size` at a time, the last ones perhaps fewer; taken as they are asked for."""
    left = iter(values)
    while batch := list(islice(left, size)):
        yield batch
