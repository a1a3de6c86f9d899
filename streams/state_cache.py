"""A cache of what a stream worker has read and stored."""

import logging
import time
from collections.abc import Collection, Mapping

from headwater.activities import Activities
from headwater.activity import ItemActivity
from headwater.stores import FeatureStore, FeatureWrites
from headwater.stores.protocol import SourcePartition
from headwater.user_record import HEAD, UserRecord, decode_user_record
from headwater.users import Users

MAX_AGE_S = 60.0
"""The cache is dropped after this long, so that item activity which an operator deletes in Redis does not come back later."""
MAX_USERS, MAX_NAMES = 50_000, 1_000_000

log = logging.getLogger(__name__)


class StateCache:
    """A write-through cache of users and item activity.

    Item activity is valid as long as the worker's claims are, since no other worker stores any for a partition that this one
    has claimed. Other workers may store users, so a commit names the records it follows, in `FeatureWrites.former`. The cache
    starts from scratch after a failed batch, with a new claim, when it is full, and every `MAX_AGE_S`.

    Attributes:
        users: Rows of the users that were read or folded.
        heads: user_id to `HEAD` of the record that is stored, empty where there is none.
        activities: Rows of the item activities that were read or counted.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.users = Users()
        self.forget()

    def forget(self) -> None:
        """Start from scratch."""
        self.users.clear()
        self.heads: dict[str, bytes] = {}
        self.activities = Activities()
        self._claims: dict[SourcePartition, bytes] = {}
        self._begun_s = time.monotonic()

    async def read(
        self,
        claims: Mapping[SourcePartition, bytes],
        user_ids: Collection[str],
        activities: Collection[tuple[int, str]],
    ) -> None:
        """Read users and activities that are not cached yet.

        Args:
            claims: The fencing tokens under which they will be stored.
            user_ids: Ids of users.
            activities: (partition, item_id) of activities.

        Raises:
            RedisError: the feature store is unavailable.
        """
        if self._is_outdated(claims):
            self.forget()
        self._claims.update(claims)
        users = [user_id for user_id in user_ids if user_id not in self.heads]
        stored = dict(zip(users, await self._store.encoded_users(users), strict=True))
        self.heads.update((user_id, (record or b"")[HEAD]) for user_id, record in stored.items())
        self.users.put({user_id: _decoded(user_id, record) for user_id, record in stored.items() if record is not None})
        keys = [key for key in activities if key not in self.activities.rows]
        for key, activity in zip(keys, await self._store.activities(keys), strict=True):
            self.activities.put(key, activity or ItemActivity())

    def stored(self, writes: FeatureWrites) -> None:
        """Note what was committed."""
        self.heads.update((user_id, record[HEAD]) for user_id, record in writes.users.items())

    def _is_outdated(self, claims: Mapping[SourcePartition, bytes]) -> bool:
        full = len(self.users) > MAX_USERS or len(self.users.items) + len(self.activities) > MAX_NAMES
        lost = any(self._claims.get(source, token) != token for source, token in claims.items())
        return full or lost or time.monotonic() - self._begun_s > MAX_AGE_S


def _decoded(user_id: str, record: bytes) -> UserRecord:
    try:
        return decode_user_record(record)
    except ValueError as error:
        log.error("the record of user %s is damaged or of another release, so it is taken as empty: %s", user_id, error)
        return UserRecord()
