"""JSON Schema and AsyncAPI files, generated from the event models.

`python -m headwater.schemas` writes them to `headwater/contracts/`; a test holds them up to date.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from headwater import __version__, names
from headwater.dead_letter import KEPT_BYTES
from headwater.events import CandidateRequest, Delivery, Engagement, Item, UserCandidates
from headwater.frames import MAX_FRAME_EVENTS

DIRECTORY = Path(__file__).parent / "contracts"
JSON_TOPICS: dict[str, tuple[type[BaseModel], str]] = {
    names.ENGAGEMENTS: (Engagement, "user_id"),
    names.ITEMS: (Item, "item_id"),
    names.DELIVERIES: (Delivery, "user_id"),
    names.CANDIDATE_REQUESTS: (CandidateRequest, "request_id"),
    names.CANDIDATES: (UserCandidates, "user_id"),
}
BINARY_TOPICS = {
    names.ITEM_EMBEDDINGS: "headwater.item_embedding: float32 embedding with topics and publish time",
    names.ITEM_ACTIVITY: "headwater.activity: framed decayed counts of many items",
    names.ITEM_SUCCESSIONS: "headwater.successions: framed engagements, each with the items before it",
    names.DEAD_LETTERS: (
        f"the original key, value and headers of an unusable record, up to {KEPT_BYTES} bytes each; "
        "reason and origin in dead_letter_* headers"
    ),
}


def documents() -> dict[str, dict[str, Any]]:
    """Return every generated file: name to content."""
    schemas = {
        f"{model.__name__.lower()}.schema.json": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            **model.model_json_schema(),
        }
        for model, _ in JSON_TOPICS.values()
    }
    return {**schemas, "asyncapi.json": _asyncapi()}


def _asyncapi() -> dict[str, Any]:
    channels: dict[str, Any] = {}
    for topic, (model, key) in JSON_TOPICS.items():
        message = {
            "name": model.__name__,
            "contentType": "application/json",
            "payload": {"$ref": f"./{model.__name__.lower()}.schema.json"},
            "bindings": {"kafka": {"key": {"type": "string", "description": key}}},
        }
        channels[topic] = {"address": topic, "messages": {model.__name__: message}}
    channels[names.ENGAGEMENTS]["messages"]["Frame"] = {
        "name": "Frame",
        "contentType": "application/octet-stream",
        "description": f"headwater.frames: up to {MAX_FRAME_EVENTS} engagements of one partition, each with its key; no key",
        "headers": {"type": "object", "required": [names.HEADER_FRAME]},
    }
    for topic, description in BINARY_TOPICS.items():
        message = {"name": topic, "contentType": "application/octet-stream", "description": description}
        channels[topic] = {"address": topic, "messages": {topic: message}}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Headwater", "version": __version__},
        "defaultContentType": "application/json",
        "channels": channels,
    }


def rendered(document: dict[str, Any]) -> str:
    """Return a document as it stands in its file."""
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def main() -> None:
    """Write every generated file."""
    DIRECTORY.mkdir(exist_ok=True)
    for name, document in documents().items():
        (DIRECTORY / name).write_text(rendered(document), encoding="utf-8")


if __name__ == "__main__":
    main()
