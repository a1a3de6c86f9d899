"""What is known of users, items and topics."""

from fastapi import APIRouter, Response

from headwater.errors import UnknownItem
from headwater.events import Identifier, iso
from headwater.user_state import EMPTY
from serving.routes.access import HeadwaterState, json_response

router = APIRouter(tags=["inspection"])


@router.get("/v1/users/{user_id:path}")
async def user(state: HeadwaterState, user_id: Identifier) -> Response:
    """Return a user's features; an unknown user has none yet."""
    (record,), (delivered,) = await state.store.users_and_delivered([user_id])
    features = record.state if record else EMPTY
    now_ms = state.retrieval.clock.now_ms()
    topics = sorted(((weight, topic) for topic, weight in features.topics.at(now_ms).items()), reverse=True)
    return json_response(
        {
            "user_id": user_id,
            "known": record is not None,
            "engagements": features.engagements,
            "history": [
                {"item_id": item_id, "occurred_at": iso(at_ms)}
                for item_id, at_ms in zip(features.item_ids[::-1], features.times_ms[::-1], strict=True)
            ],
            "topics": [{"topic": topic, "weight": round(weight, 4)} for weight, topic in topics],
            "delivered": list(delivered.item_ids) if delivered else [],
        }
    )


@router.get("/v1/items/{item_id:path}")
async def item(state: HeadwaterState, item_id: Identifier) -> Response:
    """Return an item and in which generations it is retrievable."""
    (stored,) = await state.store.items([item_id])
    if stored is None:
        raise UnknownItem(f"the catalogue holds no item {item_id!r}")
    versions = [version for version, pair in state.loaded.pairs.items() if item_id in pair.index]
    document = stored.item.model_dump(mode="json")
    return json_response({**document, "published_at": iso(stored.item.published_at), "generations": versions})


@router.get("/v1/topics")
async def topics(state: HeadwaterState) -> Response:
    """Return the topics of the live generation with their numbers of items, largest first."""
    pair = state.loaded.live
    counted = sorted(pair.index.topics().items(), key=lambda entry: (-entry[1], entry[0]))
    known = pair.bundle.vocabulary.topic_index
    listed = [{"topic": topic, "items": count, "trained": topic in known} for topic, count in counted]
    return json_response({"generation": pair.version, "topics": listed})
