"""What relevance to its topic an answer needs."""

from enum import StrEnum


class Relevance(StrEnum):
    """How an answer is restricted to its topic."""

    OFF = "off"
    TOPIC = "topic"
    THRESHOLD = "threshold"
