"""How a route reaches the server's state, and answers in JSON."""

from typing import Annotated, Any

import orjson
from fastapi import Depends, Request, Response

from serving.state import State


def _state(request: Request) -> State:
    state: State = request.app.state.headwater
    return state


HeadwaterState = Annotated[State, Depends(_state)]


def json_response(document: Any, status: int = 200) -> Response:
    """Return a document as JSON."""
    return Response(orjson.dumps(document), status, media_type="application/json")
