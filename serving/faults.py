"""Every fault as one JSON shape: {"error": code, "message": what to do}."""

import logging
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from redis import RedisError
from starlette.exceptions import HTTPException

from headwater.errors import (
    DeliveryFailed,
    HeadwaterError,
    InvalidEvent,
    NoLiveGeneration,
    ServiceUnavailable,
    UnknownGeneration,
    UnknownItem,
    UnknownTopic,
)
from headwater.wire import in_json_terms

STATUS: tuple[tuple[type[HeadwaterError], int, str], ...] = (
    (UnknownTopic, 404, "unknown-topic"),
    (UnknownItem, 404, "unknown-item"),
    (UnknownGeneration, 404, "unknown-generation"),
    (InvalidEvent, 422, "invalid"),
    (NoLiveGeneration, 503, "nothing-live"),
    (ServiceUnavailable, 503, "unavailable"),
    (DeliveryFailed, 503, "not-delivered"),
)
HTTP_CODES = {400: "malformed", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}
RETRY_AFTER = {"Retry-After": "1"}

log = logging.getLogger(__name__)


class Problem(BaseModel):
    """What does not validate: the part of the request named by `at`, or the event at `index` of a list."""

    problem: str
    at: str | None = None
    index: int | None = None


class Fault(BaseModel):
    """Every error's body; `near` comes with `unknown-topic`, `problems` with `invalid`."""

    error: str
    message: str
    near: list[str] | None = None
    problems: list[Problem] | None = None


FAULTS: dict[int | str, dict[str, Any]] = {
    404: {"model": Fault, "description": "Nothing of that name is live, or there is no such path."},
    413: {"model": Fault, "description": "The body is too large."},
    422: {"model": Fault, "description": "The request does not validate."},
    503: {"model": Fault, "description": "Not now: try again after Retry-After seconds."},
}


def fault(status: int, code: str, message: str, **more: Any) -> Response:
    """Return an error response."""
    content = orjson.dumps({"error": code, "message": message, **more})
    return Response(content, status, RETRY_AFTER if status == 503 else None, "application/json")


def install_faults(app: FastAPI) -> None:
    """Map every exception to its response."""

    async def respond(request: Request, error: Exception) -> Response:
        return fault_of(error, request.url.path)

    for kind in (HeadwaterError, RequestValidationError, HTTPException, RedisError, Exception):
        app.add_exception_handler(kind, respond)


def fault_of(error: Exception, path: str) -> Response:
    """Return the response to an exception on a path."""
    match error:
        case HeadwaterError():
            status, code = next((known[1:] for known in STATUS if isinstance(error, known[0])), (500, "internal"))
            more = {"near": error.near} if isinstance(error, UnknownTopic) else {}
            return fault(status, code, str(error), **more)
        case RequestValidationError():
            problems = [
                {"at": ".".join(map(str, each["loc"])), "problem": in_json_terms(each["msg"])}
                for each in error.errors()
            ]
            first = problems[0]
            return fault(422, "invalid", f"{first['at']}: {first['problem']}", problems=problems[:20])
        case HTTPException():
            response = fault(error.status_code, HTTP_CODES.get(error.status_code, "http"), str(error.detail))
            response.headers.update(error.headers or {})  # a 405's Allow
            return response
        case RedisError():
            log.warning("Redis: %s", error)
            return fault(503, "unavailable", "Redis is unavailable; try again")
        case _:
            log.error("internal error on %s", path, exc_info=error)
            return fault(500, "internal", "internal error; see the server's log")
