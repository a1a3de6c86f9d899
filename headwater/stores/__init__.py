"""The feature store: user records, the item catalogue and item activity."""

from headwater.stores.memory import MemoryFeatureStore
from headwater.stores.protocol import FeatureStore, FeatureWrites
from headwater.stores.redis import RedisFeatureStore

__all__ = ["FeatureStore", "FeatureWrites", "MemoryFeatureStore", "RedisFeatureStore"]
