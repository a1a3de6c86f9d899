"""Candidates: for one user, or for many users and topics at once."""

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import parse_qsl

import orjson
from fastapi import APIRouter, Query, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from redis import RedisError
from starlette.datastructures import State as AppState
from starlette.types import ASGIApp, Receive, Scope, Send

from headwater.errors import HeadwaterError
from headwater.events import Identifier, UserCandidates
from headwater.index import Relevance
from serving.faults import fault_of
from serving.loaded import ServingPair
from serving.retrieval import Answer, Filters, TopicQuery, require_topic
from serving.routes.access import HeadwaterState
from serving.state import State

MAX_K = 1000
MAX_USERS = 100_000
MAX_EXCLUDED = 1000

SINGLE = re.compile(r"/v1/topics/(.+)/candidates", re.DOTALL)
TOPIC: TypeAdapter[str] = TypeAdapter(Identifier)

router = APIRouter(tags=["candidates"])
K = Annotated[int, Field(ge=1, le=MAX_K)]
MaxAge = Annotated[float | None, Field(gt=0, le=10**9, description="Seconds since publication.")]
MinRelevance = Annotated[float, Field(ge=-1, le=1, description="Cosine with the topic's centroid.")]


class FilterParameters(BaseModel):
    """What candidates must not be."""

    model_config = ConfigDict(extra="forbid")

    k: K = 50
    relevance: Relevance = Relevance.TOPIC
    exclude: Annotated[tuple[Identifier, ...], Field(max_length=MAX_EXCLUDED)] = ()
    max_age_s: MaxAge = None
    min_relevance: MinRelevance = 0.5
    include_engaged: Annotated[bool, Field(description="Include items that the user engaged with.")] = False
    include_delivered: Annotated[bool, Field(description="Include items that were delivered to the user.")] = False

    def filters(self, most_age_s: int) -> Filters:
        """Return the filters asked for; no item is older than `most_age_s`, if that is not 0."""
        age_s = min(filter(None, (self.max_age_s, most_age_s)), default=None)
        return Filters(
            relevance=self.relevance,
            exclude_engaged=not self.include_engaged,
            exclude_delivered=not self.include_delivered,
            exclude=frozenset(self.exclude),
            max_age_ms=round(age_s * 1000) if age_s else None,
            min_relevance=self.min_relevance,
        )


class QueryParameters(FilterParameters):
    """One user."""

    user_id: Identifier


class BulkRequest(FilterParameters):
    """Many users, one or more topics."""

    model_config = ConfigDict(json_schema_extra={"example": {"user_ids": ["ann", "bob"], "topics": ["sport"], "k": 3}})

    user_ids: Annotated[list[Identifier], Field(min_length=1, max_length=MAX_USERS)]
    topics: Annotated[list[Identifier], Field(min_length=1, max_length=100)]


class SingleQueries:
    """ASGI middleware: hands single queries to `topic_candidates` itself, since FastAPI's routing takes as long as the answer.

    Args:
        app: Answers everything else, and describes single queries, too.
        shared: Has the server's `State` as its `headwater`.
    """

    def __init__(self, app: ASGIApp, shared: AppState) -> None:
        self._app = app
        self._shared = shared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = SINGLE.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if asked is None:
            await self._app(scope, receive, send)
            return
        try:
            topic, parameters = _read(asked[1], scope["query_string"].decode("latin-1"))
            response = await topic_candidates(self._shared.headwater, topic, parameters)
        except Exception as error:
            response = fault_of(error, scope["path"])
        await response(scope, receive, send)


def _read(topic: str, query: str) -> tuple[str, QueryParameters]:
    values: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "exclude":
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    where: tuple[str, ...] = ("path", "topic")
    try:
        topic, where = TOPIC.validate_python(topic), ("query",)
        return topic, QueryParameters.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise RequestValidationError([{**each, "loc": (*where, *each["loc"])} for each in problems]) from None


@router.get("/v1/topics/{topic:path}/candidates", response_model=UserCandidates)
async def topic_candidates(
    state: HeadwaterState, topic: Identifier, parameters: Annotated[QueryParameters, Query()]
) -> Response:
    """Return which items of a topic a user should be notified about, now."""
    filters = parameters.filters(state.settings.max_item_age_s)
    try:
        answer = await state.batcher.answer(TopicQuery(parameters.user_id, topic, parameters.k, filters))
    except BaseException:
        state.metrics.failed.inc()
        raise
    state.metrics.answered.inc()
    return Response(answer.to_json(), media_type="application/json")


@router.post("/v1/candidates", response_class=StreamingResponse)
async def bulk_candidates(state: HeadwaterState, request: BulkRequest) -> StreamingResponse:
    """Return one NDJSON line for each topic and user, topics in the given order, users in theirs.

    One index generation answers all of it. A line {"error": …} at the end says that the answer is not complete.
    """
    pair = state.loaded.live
    for topic in request.topics:
        require_topic(pair, topic)
    return StreamingResponse(_lines(state, request, pair), media_type="application/x-ndjson")


async def _lines(state: State, request: BulkRequest, pair: ServingPair) -> AsyncIterator[bytes]:
    filters, left = request.filters(state.settings.max_item_age_s), len(request.topics) * len(request.user_ids)
    try:
        for topic in request.topics:
            async for answers in state.retrieval.all_answers(request.user_ids, topic, request.k, filters, pair):
                state.metrics.answered.inc(len(answers))
                left -= len(answers)
                yield Answer.to_lines(answers)
    except Exception as error:
        state.metrics.failed.inc(left)
        if not isinstance(error, HeadwaterError | RedisError):
            raise
        yield orjson.dumps({"error": "incomplete", "message": str(error)}) + b"\n"
