"""What a stream worker has stored, so that it need not read it again."""

import time
from collections.abc import Collection, Mapping

from headwater.activity import ItemActivity
from headwater.stores import FeatureStore
from headwater.stores.protocol import SourcePartition
from headwater.users import Users

KEPT_S = 60.0
"""What somebody deletes in Redis is written back for no longer than this."""
MOST_USERS, MOST_NAMES = 50_000, 1_000_000


class StateCache:
    """A write-through cache of users and item activity; it is valid as long as the worker's claims are.

    Nobody else stores anything for a partition that a worker has claimed. It starts from scratch after a failed batch, with
    a new claim, when it is full, and every `KEPT_S`.

    Attributes:
        users: Rows of the users that were read or folded.
        activities: (partition, item_id) to activity.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.users = Users()
        self.forget()

    def forget(self) -> None:
        """Start from scratch."""
        self.users.clear()
        self.activities: dict[tuple[int, str], ItemActivity] = {}
        self._claims: dict[SourcePartition, bytes] = {}
        self._begun_s = time.monotonic()

    async def read(
        self,
        claims: Mapping[SourcePartition, bytes],
        user_ids: Collection[str],
        activities: Collection[tuple[int, str]],
    ) -> None:
        """Read users and activities that are not here yet.

        Args:
            claims: The claims under which they will be stored.
            user_ids: Ids of users.
            activities: (partition, item_id) of activities.

        Raises:
            RedisError: the feature store is unavailable.
        """
        if self._is_outdated(claims):
            self.forget()
        self._claims.update(claims)
        users = [user_id for user_id in user_ids if user_id not in self.users.rows]
        for user_id, record in zip(users, await self._store.users(users), strict=True):
            if record is not None:
                self.users.put(user_id, record)
        keys = [key for key in activities if key not in self.activities]
        for key, activity in zip(keys, await self._store.activities(keys), strict=True):
            self.activities[key] = activity or ItemActivity()

    def _is_outdated(self, claims: Mapping[SourcePartition, bytes]) -> bool:
        full = len(self.users) > MOST_USERS or len(self.users.items) + len(self.activities) > MOST_NAMES
        lost = any(self._claims.get(source, sign) != sign for source, sign in claims.items())
        return full or lost or time.monotonic() - self._begun_s > KEPT_S
