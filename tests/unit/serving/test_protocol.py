"""When the server writes what it answers."""

import asyncio
from types import SimpleNamespace
from typing import Any

from serving.protocol import BufferedProtocol, WriteBuffer


class Transport:
    """Keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


def gathering() -> tuple[Any, Transport]:
    transport = Transport()
    return WriteBuffer(transport), transport  # type: ignore[arg-type]


async def test_head_and_body_are_one_write() -> None:
    written, transport = gathering()
    for part in (b"head", b"", b"body"):
        written.write(part)
    assert transport.written == []
    await asyncio.sleep(0)
    written.write(b"the next answer")
    await asyncio.sleep(0)
    assert transport.written == [b"headbody", b"the next answer"]


async def test_what_is_written_before_a_connection_closes_is_sent() -> None:
    written, transport = gathering()
    written.write(b"goodbye")
    written.close()
    await asyncio.sleep(0)
    assert written.is_closing()
    assert transport.written == [b"goodbye"]


async def test_whoever_asks_and_hangs_up_gets_an_answer() -> None:
    written, transport = gathering()
    protocol = SimpleNamespace(transport=written)
    written.write(b"answer")
    BufferedProtocol.eof_received(protocol)  # type: ignore[arg-type]
    assert transport.written == [b"answer"]


async def test_nothing_is_written_to_a_connection_that_was_lost() -> None:
    written, transport = gathering()
    written.write(b"too late")
    transport.close()
    await asyncio.sleep(0)
    assert transport.written == []
