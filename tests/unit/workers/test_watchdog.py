"""The watchdog: patience a thing, reset by a new sign, by absence and by forgiveness."""

from __future__ import annotations

from workers.watchdog import Watchdog


def test_what_stands_still_is_named_when_patience_is_over() -> None:
    dog = Watchdog(10)
    assert dog.look(100, {"a": 1, "b": 1}) is None
    assert dog.look(105, {"a": 1, "b": 2}) is None
    assert dog.look(110, {"a": 1, "b": 2}) is None
    assert dog.longest(110) == 10
    assert dog.look(111, {"a": 1, "b": 2}) == "a"


def test_what_moves_or_is_not_awaited_begins_anew() -> None:
    dog = Watchdog(10)
    for now in range(0, 60, 5):
        assert dog.look(now, {"moves": now} if now % 20 else {}) is None
    dog.look(60, {"a": 1})
    dog.look(65, {})
    assert dog.look(71, {"a": 1}) is None
    assert dog.look(82, {"a": 1}) == "a"


def test_who_is_forgiven_has_the_whole_patience_again() -> None:
    dog = Watchdog(10)
    dog.look(0, {"a": 1})
    dog.forgive()
    assert dog.longest(9) == 0
    assert dog.look(9, {"a": 1}) is None
    assert dog.look(19, {"a": 1}) is None
    assert dog.look(20, {"a": 1}) == "a"
