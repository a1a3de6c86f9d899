"""What the values of command-line options mean."""

import re

from headwater.durations import DAY_MS, HOUR_MS, MINUTE_MS
from headwater.errors import UsageError
from headwater.events import epoch_ms

UNITS_MS = {"s": 1000, "m": MINUTE_MS, "h": HOUR_MS, "d": DAY_MS}


def parse_duration(option: str, text: str) -> int:
    """Return milliseconds of `90s`, `10m`, `1h`, `1d`.

    Raises:
        UsageError: it is none of these.
    """
    match = re.fullmatch(r"(\d{1,6})([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise UsageError(f"{option} {text!r}: give a number and a unit, e.g. 90s, 10m, 1h or 1d")
    return int(match[1]) * UNITS_MS[match[2]]


def parse_speed(text: str) -> float | None:
    """Return seconds of event time a second from `60x`, `1` or `max` (None).

    Raises:
        UsageError: it is none of these.
    """
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x"))
    except ValueError:
        speed = 0.0
    if not 0 < speed < float("inf"):
        raise UsageError(f"--speed {text!r}: give a positive factor such as 1x or 600x, or max")
    return speed


def parse_instant(option: str, text: str | None) -> int | None:
    """Return epoch ms of an ISO 8601 time, read as UTC where it names no offset.

    Raises:
        UsageError: it is not a time.
    """
    if text is None:
        return None
    for candidate in (text, f"{text}+00:00", f"{text}T00:00:00+00:00"):
        try:
            return epoch_ms(candidate)
        except ValueError:
            continue
    raise UsageError(f"{option} {text!r}: give an ISO 8601 time such as 2017-10-09T12:00:00Z")
