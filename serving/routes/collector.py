"""The collector: events over HTTP into Kafka, for producers that have no Kafka client."""

import asyncio
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Response

from headwater.errors import InvalidEvent
from headwater.events import Engagement, Identifier, Item
from headwater.names import ENGAGEMENTS, ITEMS
from headwater.wire import validated
from serving.faults import fault
from serving.routes.access import HeadwaterState, json_response
from serving.state import State

MAX_EVENTS = 1000
Events = dict[str, Any] | list[Any]

router = APIRouter(tags=["collector"])


@router.post("/v1/engagements", status_code=202, openapi_extra={"x-event": Engagement.model_json_schema()})
async def collect_engagements(state: HeadwaterState, events: Events) -> Response:
    """Take one engagement or a list of up to 1000; all are appended to Kafka or none."""
    return await _collect(state, ENGAGEMENTS, Engagement, state.producer.send, events)


@router.post("/v1/items", status_code=202, openapi_extra={"x-event": Item.model_json_schema()})
async def collect_items(state: HeadwaterState, events: Events) -> Response:
    """Take one item or a list of up to 1000; all are appended to Kafka or none."""
    return await _collect(state, ITEMS, Item, state.producer.send_item, events)


@router.delete("/v1/items/{item_id:path}", status_code=202)
async def delete_item(state: HeadwaterState, item_id: Identifier) -> Response:
    """Append an item's tombstone."""
    state.producer.delete_item(item_id)
    await asyncio.to_thread(state.producer.flush)
    return json_response({"accepted": 1}, 202)


async def _collect(
    state: State, topic: str, model: type[Engagement] | type[Item], send: Callable[[Any], None], events: Events
) -> Response:
    listed = events if isinstance(events, list) else [events]
    if len(listed) > MAX_EVENTS:
        return fault(413, "too-large", f"{len(listed)} events, at most {MAX_EVENTS} at once")
    accepted, problems = [], []
    for index, event in enumerate(listed):
        try:
            accepted.append(validated(model, event))
        except InvalidEvent as error:
            problems.append({"index": index, "problem": str(error)})
    if problems:
        return fault(422, "invalid", f"event {problems[0]['index']}: {problems[0]['problem']}", problems=problems[:20])
    for event in accepted:
        send(event)
    await asyncio.to_thread(state.producer.flush)
    state.metrics.collected.labels(topic).inc(len(accepted))
    return json_response({"accepted": len(accepted)}, 202)
