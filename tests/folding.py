"""One engagement after another through the fold."""

from headwater.events import Engagement
from headwater.fold import Outcome
from headwater.successions import Succession
from headwater.user_record import UserRecord
from headwater.users import Folded, Placed, Users

USER = "u"


def applied(
    record: UserRecord, engagement: Engagement, topics: tuple[str, ...], partition: int, offset: int
) -> tuple[UserRecord, Outcome]:
    """Return a user's record after one engagement, and what became of it."""
    users = Users()
    users.put(engagement.user_id, record)
    folded = users.fold([Placed(engagement, topics, partition, offset)])
    return users.record(engagement.user_id), Outcome(folded.outcomes[0])


def succession(users: Users, folded: Folded, placed: Placed) -> Succession:
    """Return what is told of an engagement that was folded alone."""
    before = tuple(users.items.texts[number] for number in folded.before[0].tolist() if number)
    return Succession(placed.position, placed.engagement.occurred_at, placed.engagement.item_id, before)
