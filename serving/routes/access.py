"""How a route reaches the server's state, and answers in JSON.

The dependencies are coroutines, since FastAPI hands plain functions to a thread, which costs more than a query.
"""

from typing import Annotated, Any

import orjson
from fastapi import Depends, Request, Response

from serving.collector import Collector
from serving.state import State


async def _state(request: Request) -> State:
    state: State = request.app.state.headwater
    return state


async def _collector(request: Request) -> Collector:
    collector: Collector = request.app.state.collector
    return collector


HeadwaterState = Annotated[State, Depends(_state)]
HeadwaterCollector = Annotated[Collector, Depends(_collector)]


def json_response(document: Any, status: int = 200) -> Response:
    """Return a document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")
