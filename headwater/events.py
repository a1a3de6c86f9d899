"""What travels through Kafka, as pydantic models. The wire is JSON unless a model says otherwise."""

import time
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic_core import CoreSchema, core_schema

MIN_EPOCH_MS = 100_000_000_000
MAX_EPOCH_MS = 253_402_300_799_000
MAX_TOPICS_PER_ITEM = 32
MAX_ATTRIBUTES = 64
MAX_IDENTIFIER = 256
PRINTABLE = r"^(?:[^\p{C}\p{Z}]| )+$"
"""A Rust regular expression: neither control characters nor separators, but spaces."""


def epoch_ms(value: Any) -> int:
    """Return epoch milliseconds from an integer or an ISO 8601 string with an offset.

    Raises:
        ValueError: a naive time, seconds instead of milliseconds, or anything else.
    """
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise ValueError("needs a UTC offset, for example 2026-01-31T12:00:00Z")
        value = round(moment.timestamp() * 1000)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("must be ISO 8601 with an offset, or epoch milliseconds")
    if not MIN_EPOCH_MS <= value <= MAX_EPOCH_MS:
        raise ValueError("is not epoch milliseconds (seconds, perhaps?)")
    return value


def now_ms() -> int:
    """Return the wall clock in epoch milliseconds."""
    return time.time_ns() // 1_000_000


def iso(at_ms: int) -> str:
    """Return epoch milliseconds as ISO 8601 in UTC."""
    return datetime.fromtimestamp(at_ms / 1000, tz=UTC).isoformat(timespec="milliseconds")


class _Identifier:
    """Validated without calls of Python functions where it is a string: every engagement has several."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(strict=True, min_length=1, max_length=MAX_IDENTIFIER, pattern=PRINTABLE)
        longest = 10 ** (MAX_IDENTIFIER - 1)
        number = core_schema.int_schema(strict=True, gt=-longest, lt=longest)
        return core_schema.union_schema(
            [text, core_schema.no_info_after_validator_function(str, number)],
            mode="left_to_right",
            custom_error_type="identifier",
            custom_error_message=f"must be a string or an integer, of 1 to {MAX_IDENTIFIER} printable characters",
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": MAX_IDENTIFIER}


class _EpochMs:
    """Validated without calls of Python functions where it is an integer."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.union_schema(
            [
                core_schema.int_schema(strict=True, ge=MIN_EPOCH_MS, le=MAX_EPOCH_MS),
                core_schema.no_info_plain_validator_function(epoch_ms),
            ],
            mode="left_to_right",
            custom_error_type="epoch_ms",
            custom_error_message=(
                "must be epoch milliseconds (not seconds), or ISO 8601 with an offset, such as 2026-01-31T12:00:00Z"
            ),
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [{"type": "integer"}, {"type": "string", "format": "date-time"}]}


Identifier = Annotated[str, _Identifier()]
TopicId = Identifier
EpochMs = Annotated[int, _EpochMs()]
Action = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_-]{0,31}$")]
Attribute = Annotated[float, Field(allow_inf_nan=False)] | Annotated[str, StringConstraints(max_length=4096)]


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    def to_wire(self) -> bytes:
        """Return the JSON that goes into Kafka."""
        return self.model_dump_json(exclude_none=True).encode()


class Engagement(_Event):
    """A user engaged with an item. Topic `engagements`, key `user_id`."""

    event_id: Identifier
    user_id: Identifier
    item_id: Identifier
    action: Action = "click"
    occurred_at: EpochMs
    surface: Identifier | None = None
    delivery_id: Identifier | None = None


class Item(_Event):
    """An item of the corpus. Topic `items`, key `item_id`; a null value is its tombstone."""

    item_id: Identifier
    topics: Annotated[tuple[TopicId, ...], Field(max_length=MAX_TOPICS_PER_ITEM)]
    published_at: EpochMs
    attributes: Annotated[dict[Identifier, Attribute], Field(max_length=MAX_ATTRIBUTES)] = {}


class Delivery(_Event):
    """Candidates that were sent to a user. Topic `deliveries`, key `user_id`."""

    delivery_id: Identifier
    user_id: Identifier
    item_ids: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=1000)]
    delivered_at: EpochMs
    topic: TopicId | None = None


class Candidate(_Event):
    """One answer line: an item and its score, higher is better; those of one user compare between topics."""

    item_id: str
    score: float


class CandidateRequest(_Event):
    """A notification job's question for many users. Topic `candidate-requests`, key `request_id`."""

    request_id: Identifier
    topic: TopicId
    user_ids: Annotated[tuple[Identifier, ...], Field(min_length=1, max_length=10_000)]
    k: Annotated[int, Field(ge=1, le=1000)] = 50


class UserCandidates(_Event):
    """The answer for one user. Topic `candidates`, key `user_id`; also a line of NDJSON over HTTP.

    Attributes:
        bundle_version: The model whose user tower asked.
        generation: The index generation that answered, of the same version.
        watermark: Event time of the newest engagement that item activity contains.
        freshness_ms: How long before the answer the newest record that item embeddings and activity contain was appended
            to Kafka; grows while nothing is sent.
        cold_start: Nothing is known of the user yet.
    """

    user_id: str
    topic: str | None
    candidates: tuple[Candidate, ...]
    bundle_version: str
    generation: str
    watermark: str | None = None
    freshness_ms: int | None = None
    cold_start: bool = False
    request_id: str | None = None
