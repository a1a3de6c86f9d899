"""Overload and oversized bodies are refused before any work is done."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.faults import fault
from serving.state import State

QUERY_PATHS = ("/v1/topics/", "/v1/candidates")
MAX_BODY_BYTES = 16 * 1024 * 1024


class Limits:
    """ASGI middleware: 503 with Retry-After beyond the queries in flight, 413 beyond the body size."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            await fault(413, "too-large", f"a body may have {MAX_BODY_BYTES} bytes")(scope, receive, send)
        elif scope["path"].startswith(QUERY_PATHS):
            await self._query(scope, receive, send)
        else:
            await self._app(scope, _limited(receive), send)

    async def _query(self, scope: Scope, receive: Receive, send: Send) -> None:
        state: State = scope["app"].state.headwater
        if state.in_flight >= state.settings.serving_max_concurrency:
            state.metrics.refused.inc()
            await fault(503, "overloaded", "too many queries at once; try again in a second")(scope, receive, send)
            return
        state.in_flight += 1
        try:
            with state.metrics.query_seconds.time():
                await self._app(scope, _limited(receive), send)
        finally:
            state.in_flight -= 1


def _limited(receive: Receive) -> Receive:
    """Cut a chunked body that claims no length at the same size."""
    read = 0

    async def limited() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MAX_BODY_BYTES:
            return {"type": "http.disconnect"}
        return message

    return limited
