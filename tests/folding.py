"""One engagement after another through the fold."""

from collections.abc import Sequence

import numpy as np

from headwater.activities import Activities
from headwater.activity import ItemActivity, decode_activity
from headwater.events import Engagement
from headwater.fold import Outcome
from headwater.succession_encoding import encode_successions
from headwater.successions import Succession
from headwater.texts import Texts
from headwater.user_record import UserRecord
from headwater.users import Folded, Placed, Users

USER = "u"


def applied(
    record: UserRecord, engagement: Engagement, topics: tuple[str, ...], partition: int, offset: int
) -> tuple[UserRecord, Outcome]:
    """Return a user's record after one engagement, and what became of it."""
    users = Users()
    users.put({engagement.user_id: record})
    folded = users.fold([Placed(engagement, topics, partition, offset)])
    return users.record(engagement.user_id), Outcome(folded.outcomes[0])


def counted(activity: ItemActivity, *engagements: tuple[int, int]) -> ItemActivity:
    """Return an item's activity after engagements, each its epoch ms and its offset."""
    activities, size = Activities(), len(engagements)
    activities.put((0, "i"), activity)
    times_ms, offsets = np.array(engagements, np.int64).reshape(-1, 2).T.copy()
    activities.count(np.zeros(size, np.int64), times_ms, offsets, np.full(size, Outcome.APPLIED, np.int64))
    (encoded,) = activities.encoded([0])
    return decode_activity(encoded) if encoded else ItemActivity()


def encode_activity(activity: ItemActivity) -> bytes:
    """Return an activity that counts something as it is kept in Redis."""
    activities = Activities()
    activities.put((0, "i"), activity)
    return activities.encoded([0])[0]


def encode_user_record(record: UserRecord) -> bytes:
    """Return a record as it is kept in Redis."""
    users = Users()
    users.put({"": record})
    return users.encoded([0])[0]


def encoded(successions: Sequence[Succession], at_most: int = 1_000) -> list[bytes]:
    """Return successions as a worker tells them."""
    names, most = Texts(), max((len(each.before) for each in successions), default=0)
    before = [[*names.numbers(each.before), *[0] * (most - len(each.before))] for each in successions]
    offsets, times_ms, items = (
        np.array([(each.offset, each.at_ms, names.number(each.item_id)) for each in successions], np.int64)
        .reshape(-1, 3)
        .T.copy()
    )
    pasts = np.array(before, np.int64).reshape(len(successions), most)
    return encode_successions(offsets, times_ms, items, pasts, names.encoded(), at_most)


def succession(users: Users, folded: Folded, placed: Placed) -> Succession:
    """Return what is told of an engagement that was folded alone."""
    before = tuple(users.items.texts[number] for number in folded.before[0].tolist() if number)
    return Succession(placed.position, placed.engagement.occurred_at, placed.engagement.item_id, before)
