"""From the bytes of a Kafka record to an event, or to a reason why not."""

import json
import re
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from headwater.errors import InvalidEvent
from headwater.events import Delivery, Engagement, Identifier, Item
from headwater.frames import Headers
from headwater.names import HEADER_CE_PREFIX

MAX_RECORD_BYTES = 65_536
JSON_TERMS = (
    (r"^Value error, | after validation| or instance of \w+", ""),
    (r"\ba valid dictionary\b", "an object"),
    (r"\ba valid (?:tuple|list)\b", "a list"),
    (r"^Dictionary\b", "Object"),
    (r"^Tuple\b", "List"),
)
Model = TypeVar("Model", bound=BaseModel)
_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


def decode(model: type[Model], value: bytes | None, headers: Headers = (), max_bytes: int = MAX_RECORD_BYTES) -> Model:
    """Return the event in a record.

    CloudEvents binary mode is understood: `ce_id` and `ce_source` give the event id, `ce_time` the time
    of occurrence, where the body does not say.

    Raises:
        InvalidEvent: with the reason `empty`, `too-large`, `malformed-json` or `invalid`.
    """
    if value is None:
        raise InvalidEvent("empty", "the record has no value")
    _require_size(value, max_bytes)
    attributes = {name: raw for name, raw in headers or () if raw is not None and name.startswith(HEADER_CE_PREFIX)}
    try:
        if not attributes:
            return model.model_validate_json(value)
        return model.model_validate(_merged(json.loads(value), attributes))
    except ValidationError as error:
        raise _invalid(error) from None
    except (ValueError, RecursionError) as error:
        raise InvalidEvent("malformed-json", str(error)) from None


def validated(model: type[Model], event: Any) -> Model:
    """Return an event given as a model or as JSON-like values.

    Raises:
        InvalidEvent: it does not validate.
    """
    if isinstance(event, model):
        return event
    try:
        return model.model_validate(event)
    except ValidationError as error:
        raise _invalid(error) from None


def identifier(name: str, value: Any) -> str:
    """Return an id given as a string or an integer.

    Raises:
        InvalidEvent: it is none.
    """
    try:
        return _IDENTIFIER.validate_python(value)
    except ValidationError as error:
        raise _invalid(error, name) from None


def encoded(event: Engagement | Item | Delivery) -> bytes:
    """Return an event as it goes into Kafka.

    Raises:
        InvalidEvent: it is larger than what is read there.
    """
    value = event.to_wire()
    _require_size(value, MAX_RECORD_BYTES)
    return value


def _require_size(value: bytes, max_bytes: int) -> None:
    if len(value) > max_bytes:
        raise InvalidEvent("too-large", f"{len(value)} bytes, at most {max_bytes} are read")


def _merged(body: Any, attributes: dict[str, bytes]) -> Any:
    if not isinstance(body, dict):
        return body
    text = {name.removeprefix(HEADER_CE_PREFIX): raw.decode() for name, raw in attributes.items()}
    if "id" in text:
        body.setdefault("event_id", f"{text.get('source', '')}#{text['id']}")
    if "time" in text:
        body.setdefault("occurred_at", text["time"])
    return body


def _invalid(error: ValidationError, whole: str = "record") -> InvalidEvent:
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return InvalidEvent("malformed-json", first["msg"])
    where = ".".join(str(part) for part in first["loc"]) or whole
    return InvalidEvent("invalid", f"{where}: {in_json_terms(first['msg'])}")


def in_json_terms(message: str) -> str:
    """Translate Python type names in a pydantic message into JSON terms."""
    for python, words in JSON_TERMS:
        message = re.sub(python, words, message)
    return message
