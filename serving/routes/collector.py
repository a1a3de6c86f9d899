"""The collector: events over HTTP into Kafka, for producers that have no Kafka client."""

from collections.abc import Callable
from functools import partial
from typing import Any

from fastapi import APIRouter, Response

from headwater.errors import InvalidEvent
from headwater.events import Engagement, Identifier, Item
from headwater.names import ENGAGEMENTS, ITEMS
from headwater.wire import encoded, validated
from serving.collector import Collector
from serving.faults import fault
from serving.routes.access import HeadwaterCollector, HeadwaterState, json_response
from serving.state import State

MAX_EVENTS = 1000
MAX_PROBLEMS = 20
Events = dict[str, Any] | list[Any]
ENGAGEMENT_EXAMPLE = {
    "event_id": "01JD3Z9K",
    "user_id": "ann",
    "item_id": "article-7",
    "action": "click",
    "occurred_at": "2026-01-31T12:00:00Z",
}
ITEM_EXAMPLE = {
    "item_id": "article-7",
    "topics": ["sport", "sport/tennis"],
    "published_at": "2026-01-31T11:58:00Z",
    "attributes": {"words": 640},
}

router = APIRouter(tags=["collector"])


def _documented(model: type[Engagement] | type[Item], example: dict[str, Any]) -> dict[str, Any]:
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    either = {"oneOf": [schema, {"type": "array", "maxItems": MAX_EVENTS, "items": schema}]}
    examples = {"one": {"value": example}, "several": {"value": [example]}}
    return {"requestBody": {"content": {"application/json": {"schema": either, "examples": examples}}}}


@router.post("/v1/engagements", status_code=202, openapi_extra=_documented(Engagement, ENGAGEMENT_EXAMPLE))
async def collect_engagements(state: HeadwaterState, collector: HeadwaterCollector, events: Events) -> Response:
    """Take one engagement or a list of up to 1000; 202 once Kafka has them all, nothing is sent if one is invalid."""
    return await _collect(state, collector, ENGAGEMENTS, Engagement, state.producer.send, events)


@router.post("/v1/items", status_code=202, openapi_extra=_documented(Item, ITEM_EXAMPLE))
async def collect_items(state: HeadwaterState, collector: HeadwaterCollector, events: Events) -> Response:
    """Take one item or a list of up to 1000; 202 once Kafka has them all, nothing is sent if one is invalid."""
    return await _collect(state, collector, ITEMS, Item, state.producer.send_item, events)


@router.delete("/v1/items/{item_id:path}", status_code=202)
async def delete_item(state: HeadwaterState, collector: HeadwaterCollector, item_id: Identifier) -> Response:
    """Append an item's tombstone."""
    await collector.append([partial(state.producer.delete_item, item_id)])
    return json_response({"accepted": 1}, 202)


async def _collect(
    state: State,
    collector: Collector,
    topic: str,
    model: type[Engagement] | type[Item],
    send: Callable[[Any], None],
    events: Events,
) -> Response:
    listed = events if isinstance(events, list) else [events]
    if len(listed) > MAX_EVENTS:
        return fault(413, "too-large", f"{len(listed)} events, at most {MAX_EVENTS} at once")
    accepted, problems = [], []
    for index, event in enumerate(listed):
        try:
            checked = validated(model, event)
            encoded(checked)
            accepted.append(checked)
        except InvalidEvent as error:
            problems.append({"index": index, "problem": str(error)})
    if problems:
        first = f"event {problems[0]['index']}: {problems[0]['problem']}"
        return fault(422, "invalid", first, problems=problems[:MAX_PROBLEMS])
    await collector.append([partial(send, event) for event in accepted])
    state.metrics.collected.labels(topic).inc(len(accepted))
    return json_response({"accepted": len(accepted)}, 202)
