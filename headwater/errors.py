"""The errors Headwater raises on purpose.

    HeadwaterError
    ├── UsageError              a flag, setting or file the caller must correct
    │   └── DataFileError       a data file that does not fit the documented format
    ├── InvalidEvent            one record that cannot be used; it becomes a dead letter
    ├── DeliveryFailed          records the broker did not acknowledge
    ├── UnknownTopic            a topic no live item carries; names near matches
    ├── UnknownItem
    ├── ServiceUnavailable      Kafka, Redis or the server cannot be reached
    │   └── NoLiveGeneration    nothing is promoted yet
    ├── BundleError             a model bundle that must not be served
    │   ├── BundleNotFound
    │   └── BundleRefused       hashes, golden outputs or schema do not match
    └── RotationError           an index generation verb that cannot be carried out
        ├── UnknownGeneration
        ├── DimensionMismatch   a user tower and an index generation that do not belong together
        ├── VerificationFailed  carries the report
        └── AliasMoved          somebody else promoted meanwhile

Each message says what is wrong and who does what about it.
"""


class HeadwaterError(Exception):
    """Base of every error raised on purpose."""


class UsageError(HeadwaterError):
    """The caller must correct a flag, a setting or an input."""


class DataFileError(UsageError):
    """A data file does not fit the documented format."""


class InvalidEvent(HeadwaterError):
    """One record cannot be used.

    Attributes:
        reason: A short stable code, e.g. `malformed-json`, `unknown-item`, `from-the-future`.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class DeliveryFailed(HeadwaterError):
    """Some records were not acknowledged by the broker."""


class UnknownTopic(HeadwaterError):
    """No live item carries this topic."""

    def __init__(self, topic: str, near: list[str]) -> None:
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        super().__init__(f"no live item carries topic {topic!r}{hint}")
        self.topic = topic
        self.near = near


class UnknownItem(HeadwaterError):
    """The catalogue holds no such item."""


class ServiceUnavailable(HeadwaterError):
    """A service this command needs cannot be reached."""


class NoLiveGeneration(ServiceUnavailable):
    """No index generation has been promoted yet."""


class BundleError(HeadwaterError):
    """A model bundle must not be served."""


class BundleNotFound(BundleError):
    """The model repository holds no such version."""


class BundleRefused(BundleError):
    """Hashes, golden outputs, dimensions or the feature schema do not match."""


class RotationError(HeadwaterError):
    """An index generation verb cannot be carried out."""


class UnknownGeneration(RotationError):
    """No such index generation is registered."""


class DimensionMismatch(RotationError):
    """A user tower and an index generation do not belong together."""


class VerificationFailed(RotationError):
    """An index generation failed verification; the message lists each failed check."""


class AliasMoved(RotationError):
    """Somebody else moved the alias meanwhile; look again before you retry."""
