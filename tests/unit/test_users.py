"""Users as rows: what becomes of records, what is kept, and under which names."""

from headwater.events import Engagement
from headwater.user_record import UserRecord
from headwater.user_state import HISTORY_LENGTH, TOPIC_LIMIT
from headwater.users import Placed, Users

START_MS = 1_700_000_000_000
COUNTS = (0, 1, HISTORY_LENGTH + 20, 3, TOPIC_LIMIT + 1)
"""Engagements of the first users; the others repeat them."""


def crowd(users: int, engagements: int) -> Users:
    crowd = Users()
    crowd.fold(
        [
            Placed(
                Engagement(
                    event_id=str(n), user_id=f"u{n % users}", item_id=f"i{n * 7 % 31}é", occurred_at=START_MS + n
                ),
                (f"t{n % 5}",),
                0,
                n,
            )
            for n in range(engagements)
        ]
    )
    return crowd


def test_those_that_are_kept_are_as_they_were() -> None:
    users = crowd(90, 400)
    chosen = [f"u{number}" for number in (3, 80, 17)]
    before = [users.record(user_id) for user_id in chosen]
    kept = users.kept(chosen)
    assert [kept.record(user_id) for user_id in chosen] == before
    assert len(kept) == 3
    assert set(kept.items.texts[1:]) == {item_id for record in before for item_id in record.state.item_ids}
    assert kept.row("fresh") == 3


def test_none_are_kept() -> None:
    kept = crowd(3, 9).kept([])
    assert (len(kept), kept.record("u1")) == (0, UserRecord())
    assert kept.row("u1") == 0


def test_a_row_that_is_used_again_knows_nothing() -> None:
    users = crowd(3, 300)
    users.clear()
    users.row("u9")
    assert users.record("u9") == UserRecord()


def test_newest_engagements() -> None:
    users = crowd(2, 5)
    users.row("nothing")
    assert users.newest_ms() == [START_MS + 4, START_MS + 3, 0]


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
