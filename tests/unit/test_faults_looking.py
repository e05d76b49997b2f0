"""What the fault suite judges by is itself judged: order on `states`, and who owned a partition when."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple

import pytest

from tests.faults.test_16_order import inversions
from tests.faults.test_17_resent_events import WINDOW, Book
from tests.faults.watching import Watched
from workers.store import Position
from workers.wire.state import Fresh, StateRecord, encode_state


class Announced(NamedTuple):
    """A record of `states`."""

    key: bytes
    value: bytes


def announced(user: str, *numbers: int, again: bool = False) -> Announced:
    fresh = [Fresh(n, 0, 0, json.dumps({"item_id": f"s-{n}"}).encode()) for n in numbers]
    return Announced(user.encode(), encode_state(StateRecord(b"", None if again else b"", fresh, False, None)))


@pytest.mark.parametrize(
    "records",
    [
        [announced("a", 1, 2), announced("b", 1), announced("a", 3)],
        [announced("a", 1, 2), announced("a", 2, 3, again=True), announced("a", 4)],
        [announced("a", 1), announced("a", 2, again=True), announced("a", 1, 2, again=True), announced("a", 3)],
    ],
)
def test_what_is_in_order(records: list[Any]) -> None:
    assert inversions(records)[0] == []


@pytest.mark.parametrize(
    ("records", "wrong"),
    [
        ([announced("a", 2)], "a: [2] after 0"),
        ([announced("a", 1, 3)], "a: [1, 3] after 0"),
        ([announced("a", 2, 1)], "a: [2, 1] after 0"),
        ([announced("a", 1, 2), announced("a", 2)], "a: [2] after 2"),
        ([announced("a", 1), announced("a", 3, again=True)], "a: [3] after 1"),
        ([announced("a", 1, 2), announced("a", 2, 1, again=True)], "a: [2, 1] after 2"),
    ],
)
def test_what_is_not(records: list[Any], wrong: str) -> None:
    assert inversions(records)[0] == [wrong]


def test_the_book_knows_the_last_ids() -> None:
    """An id is known until as many others have come as the window holds."""
    book = Book()
    sent = [(b"u", json.dumps({"event_id": str(n)}).encode()) for n in range(WINDOW + 1)]
    book.enter([*sent[:WINDOW], sent[0]])
    assert book.known == 1
    book.enter([sent[WINDOW], sent[0]])
    assert book.known == 1


def at(owner: str, next_: int) -> dict[int, Position]:
    return {0: Position(next_, next_, 1, owner)}


def test_what_was_watched() -> None:
    """A partition that goes to another, takes in events there and comes back; and how long it stood still."""
    watched = Watched()
    for now, (owner, next_) in enumerate([("a", 0), ("a", 5), ("b", 5), ("b", 5), ("b", 9), ("a", 9), ("b", 9)]):
        watched.look(at(owner, next_), float(now))
    assert watched.moves == 3
    assert watched.returns == 1  # b came back too, but nothing had happened elsewhere
    assert watched.standstill_s == 3.0


def test_what_was_watched_on_two_partitions() -> None:
    """Figures are over all of them."""
    watched = Watched()
    watched.look({p: Position(0, 0, 1, "a") for p in (0, 1)}, 0.0)
    watched.look({0: Position(1, 1, 2, "b"), 1: Position(0, 0, 1, "a")}, 4.0)
    assert (watched.moves, watched.returns, watched.standstill_s) == (1, 0, 4.0)


def test_last_numbers() -> None:
    assert inversions([announced("a", 1, 2), announced("b", 1)])[1] == Counter({"a": 2, "b": 1})
