"""Refuses overload and oversized bodies before any work is done."""

import time

from starlette.datastructures import State as AppState
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.faults import fault
from serving.state import State

BULK_PATH = "/v1/candidates"
QUERY_PATHS = ("/v1/topics/", BULK_PATH)
MAX_BODY_BYTES = 1024 * 1024
MAX_BULK_BYTES = 16 * MAX_BODY_BYTES


class Limits:
    """ASGI middleware: 503 with Retry-After beyond the queries in flight, 413 beyond the body size.

    Args:
        app: The application behind it.
        shared: Has the server's `State` as its `headwater`.
    """

    def __init__(self, app: ASGIApp, shared: AppState) -> None:
        self._app = app
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = MAX_BULK_BYTES if scope["path"] == BULK_PATH else MAX_BODY_BYTES
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > most:
            await fault(413, "too-large", _too_large(most))(scope, receive, send)
        elif scope["path"].startswith(QUERY_PATHS):
            await self._query(scope, _limited(receive, most), send)
        else:
            await self._app(scope, _limited(receive, most), send)

    async def _query(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: State = self._shared.headwater
        if state.in_flight >= state.settings.serving_max_concurrency:
            state.metrics.refused.inc()
            await fault(503, "overloaded", "too many queries at once; try again in a second")(scope, receive, send)
            return
        state.in_flight += 1
        started = time.perf_counter()
        try:
            await self._app(scope, receive, send)
        finally:
            state.in_flight -= 1
            state.metrics.observe_query(time.perf_counter() - started)


def _too_large(most: int) -> str:
    return f"the body may have at most {most} bytes"


def _limited(receive: Receive, most: int) -> Receive:
    """Enforce the same limit on a chunked body, which states no length."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > most:
            raise HTTPException(413, _too_large(most))
        return message

    return limited
