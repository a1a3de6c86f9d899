"""HTTP/1.1 as uvicorn speaks it, but each answer in one piece."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class WholeAnswers(HttpToolsProtocol):
    """Writes an answer's head and body together.

    Each write of its own is a system call and wakes whoever asked, which takes a tenth of a query's time.
    """

    def connection_made(self, transport: Any) -> None:
        super().connection_made(Gathering(transport))  # type: ignore[arg-type]

    def eof_received(self) -> None:
        """Write what is left to whoever asks and hangs up: the connection is closed next."""
        self.transport.flush()  # type: ignore[attr-defined]


class Gathering:
    """A transport that writes at the next turn of the event loop what was written until then."""

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
