"""Headwater: streaming, near-real-time conditional retrieval."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headwater.client import HeadwaterClient
    from headwater.events import Candidate, CandidateRequest, Delivery, Engagement, Item, UserCandidates
    from headwater.producer import EngagementProducer
    from headwater.settings import Settings

__version__ = "0.1.0"
__all__ = [
    "Candidate",
    "CandidateRequest",
    "Delivery",
    "Engagement",
    "EngagementProducer",
    "HeadwaterClient",
    "Item",
    "Settings",
    "UserCandidates",
]
_MODULES = {"EngagementProducer": "producer", "HeadwaterClient": "client", "Settings": "settings"}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that commands start quickly."""
    if name not in __all__:
        raise AttributeError(f"module 'headwater' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"headwater.{_MODULES.get(name, 'events')}"), name)
