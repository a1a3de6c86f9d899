"""uvicorn's HTTP/1.1, but with each response written at once."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BufferedProtocol(HttpToolsProtocol):
    """Writes a response's head and body together.

    Each separate write is a system call and wakes the client, which takes a tenth of a query's time.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(WriteBuffer(transport))  # type: ignore[arg-type]

    def eof_received(self) -> None:
        """Write what is left for a client that has ended its side: the connection is closed next."""
        self.transport.flush()  # type: ignore[attr-defined]


class WriteBuffer:
    """A transport that collects writes until the next turn of the event loop."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._written: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Write soon."""
        if not self._written:
            asyncio.get_running_loop().call_soon(self.flush)
        self._written.append(data)

    def close(self) -> None:
        """Write what is left, and close."""
        self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Write now."""
        written, self._written = self._written, []
        if written and not self._transport.is_closing():
            self._transport.write(b"".join(written))
