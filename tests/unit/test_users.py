"""Rows of users, of many at once."""

from headwater.events import Engagement
from headwater.user_record import UserRecord
from headwater.user_state import HISTORY_LENGTH, TOPIC_LIMIT
from headwater.users import Placed, Users

START_MS = 1_700_000_000_000
COUNTS = (0, 1, HISTORY_LENGTH + 20, 3, TOPIC_LIMIT + 1)
"""Engagements of the first users; the others repeat them."""


def records(users: int) -> dict[str, UserRecord]:
    """Return records of users with different numbers of engagements, the first of them empty."""
    folded = Users()
    for user in range(users):
        user_id, items = f"u{user}", "{}" if user % 2 else "é{}"
        folded.fold(
            [
                Placed(
                    Engagement(
                        event_id=f"{user}-{n}", user_id=user_id, item_id=items.format(n), occurred_at=START_MS + n
                    ),
                    (f"t{(user + n) % 20}",),
                    user % 4,
                    1000 * user + n,
                )
                for n in range(COUNTS[user % len(COUNTS)])
            ]
        )
    return {f"u{user}": folded.record(f"u{user}") for user in range(users)}


def test_records_of_many_users_become_rows_and_records_again() -> None:
    wanted, users = records(100), Users()
    users.put(wanted)
    assert {user_id: users.record(user_id) for user_id in wanted} == wanted


def test_rows_are_replaced_as_a_whole() -> None:
    wanted, users = records(10), Users()
    users.put(dict(zip(wanted, reversed(list(wanted.values())), strict=True)))
    users.put(wanted)
    assert {user_id: users.record(user_id) for user_id in wanted} == wanted


def test_nothing_changes_without_records() -> None:
    users = Users()
    users.put({})
    assert len(users) == 0
