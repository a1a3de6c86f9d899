"""Dead letters: what goes into Kafka comes out of it, and Kafka takes it however large the record was."""

from headwater.dead_letter import KEPT_BYTES, DeadLetter
from headwater.dead_letters_cli import unique
from headwater.errors import InvalidEvent

ERROR = InvalidEvent("invalid", "e" * 1000)
CLOUD_EVENT = (("ce_id", b"42"), ("ce_source", b"/app"))


def letter(
    key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes | None], ...] = CLOUD_EVENT
) -> DeadLetter:
    return DeadLetter.of("engagements", 3, 17, key, value, ERROR, 5, headers)


def size(written: DeadLetter) -> int:
    headers = sum(len(name) + len(raw) for name, raw in written.headers())
    return len(written.key or b"") + len(written.value or b"") + headers


def test_a_dead_letter_is_read_as_it_was_written() -> None:
    for key, value in ((b"u", b"{}"), (None, b""), (b"", None)):
        written = letter(key, value)
        assert DeadLetter.from_record(written.key, written.value, written.headers()) == written
        assert (written.key, written.value, written.original) == (key, value, CLOUD_EVENT)


def test_headers_may_be_null_or_missing() -> None:
    assert letter(b"u", b"{}", (("trace", None), *CLOUD_EVENT)).original == CLOUD_EVENT
    read = DeadLetter.from_record(b"u", b"{}", [("dead_letter_topic", None), ("trace", None), *CLOUD_EVENT])
    assert (read.topic, read.partition, read.reason, read.original) == ("unknown", -1, "unknown", CLOUD_EVENT)


def test_of_a_large_record_the_beginning_is_kept() -> None:
    huge = b"x" * 1_000_000
    written = letter(b"u", huge)
    assert written.value == huge[:KEPT_BYTES]
    assert written.error.endswith("; the first 131072 of 1000000 bytes are kept")
    every = letter(huge, huge, (("trace", huge),))
    assert every.original == ()
    assert every.error.endswith("; its headers are not kept")
    assert size(every) < 3 * KEPT_BYTES


def test_of_a_record_that_was_replayed_in_vain_the_newest_is_listed() -> None:
    first = DeadLetter("engagements", 0, 1, b"u", b"{", "malformed-json", "", at_ms=1)
    other = DeadLetter("engagements", 1, 1, b"v", b"{", "malformed-json", "", at_ms=2)
    again = DeadLetter("engagements", 0, 9, b"u", b"{", "malformed-json", "", 0, tuple(first.replayed_headers()), 3)
    assert unique([again, first, other]) == [other, again]
