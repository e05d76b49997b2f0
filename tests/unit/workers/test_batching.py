"""Where a batch ends: pure counting, no broker."""

from __future__ import annotations

import pytest

from tests.records import Consumed
from workers.batching import NEWEST_WINS, Limits, Queue
from workers.positions import Batch, Stand
from workers.wire.envelope import RAW_BYTES

BY_EVENT = Limits()


def batches(records: list[Consumed], next_: int = 0, limits: Limits = BY_EVENT, users: int = 1000) -> list[Batch]:
    """The batches of a queue, one after the other, as if each were applied."""
    queue = Queue(Stand(0, next_), 0)
    queue.records.extend(records)
    found = []
    while (batch := queue.cut(3, limits, users)) is not None:
        found.append(batch)
        queue.stand.next = max(queue.stand.next, batch.next)
    return found


def sizes(records: list[Consumed], next_: int = 0) -> list[int]:
    return [len(batch.records) for batch in batches(records, next_)]


def test_it_ends_at_4096_records() -> None:
    assert sizes([Consumed(b"u-%d" % (i % 100), offset=i) for i in range(5000)]) == [4096, 904]


def test_it_ends_at_1000_users() -> None:
    assert sizes([Consumed(b"u-%d" % (i // 2), offset=i) for i in range(3000)]) == [2000, 1000]


@pytest.mark.parametrize("key", [b"u", None])
def test_it_ends_at_512_records_of_a_user(key: bytes | None) -> None:
    others = [Consumed(b"other", offset=i) for i in range(10)]
    assert sizes([*others, *(Consumed(key, offset=10 + i) for i in range(1100))]) == [522, 512, 76]


@pytest.mark.parametrize(("size", "expected"), [(60, [4, 4, 2]), (64, [4, 4, 2]), (43, [5, 5]), (1, [10])])
def test_it_ends_at_256_kib_of_a_user(size: int, expected: list[int]) -> None:
    assert sizes([Consumed(b"u", b"x" * size * 1024, offset=i) for i in range(10)]) == expected


def test_what_is_too_large_for_an_event_is_nothing_of_its_user_s() -> None:
    """It will be refused: so it does not part the events before it from those behind it."""
    poison = [Consumed(b"u", b"x" * (RAW_BYTES + 1), offset=i) for i in range(0, 20, 2)]
    events = [Consumed(b"u", b"x" * 64 * 1024, offset=i) for i in range(1, 20, 2)]
    mixed = sorted([*poison, *events], key=lambda record: record.offset)
    assert sizes(mixed) == [9, 8, 3]  # four events each, with what lies among them


@pytest.mark.parametrize(("size", "expected"), [(1, [10]), (2, [8, 2]), (5, [3, 3, 3, 1]), (20, [1] * 10)])
def test_it_ends_at_16_mib(size: int, expected: list[int]) -> None:
    """Of however many users; one record alone may be larger."""
    value = b"x" * (size << 20)
    assert sizes([Consumed(b"u-%d" % i, value, offset=i) for i in range(10)]) == expected


def test_where_the_newest_wins_a_user_may_fill_a_batch() -> None:
    """And what a round may answer is shared by the partitions: few users of each."""
    hot = [Consumed(b"u", b"x" * 1000, offset=i) for i in range(9000)]
    assert [len(b.records) for b in batches(hot, limits=NEWEST_WINS)] == [9000]
    many = [Consumed(b"u-%d" % i, offset=i) for i in range(200)]
    assert [len(b.records) for b in batches(many, limits=NEWEST_WINS, users=85)] == [85, 85, 30]


def test_where_the_newest_wins_a_user_counts_with_the_last_record_that_waits() -> None:
    """Two passes over ten users: the first pass is of nobody who counts."""
    twice = [Consumed(b"u-%d" % (i % 10), offset=i) for i in range(20)]
    found = batches(twice, limits=NEWEST_WINS, users=4)
    assert [len(b.records) for b in found] == [14, 4, 2]
    assert [[record.offset for record in b.waiting] for b in found] == [[14, 15, 16, 17, 18, 19], [], []]
    assert all(not b.waiting for b in batches(twice))


def test_where_the_newest_wins_a_batch_has_few_users_beside_those_who_count() -> None:
    twice = [Consumed(b"u-%d" % (i % 10), offset=i) for i in range(20)]
    found = batches(twice, limits=NEWEST_WINS, users=1)
    assert [len(b.records) for b in found] == [4, 4, 3, *[1] * 9]


def test_only_the_last_record_of_a_waiting_user_is_told() -> None:
    keys = b"a b a c a b d c".split()
    found = batches([Consumed(key, offset=i) for i, key in enumerate(keys)], limits=NEWEST_WINS, users=1)
    assert [(b.records[0].offset, b.next, sorted(one.offset for one in b.waiting)) for b in found] == [
        (0, 5, [5, 7]),
        (5, 6, []),
        (6, 7, []),
        (7, 8, []),
    ]


def test_what_is_announced_again_ends_where_the_rest_begins() -> None:
    found = batches([Consumed(offset=i) for i in range(2, 9)], next_=5)
    assert [(b.again, b.expected, b.next) for b in found] == [(True, 2, 5), (False, 5, 9)]


def test_a_hole_belongs_to_the_batch_behind_it() -> None:
    """It is expected where the store stands, whatever offset its first record has."""
    found = batches([Consumed(offset=i) for i in (4, 5, 8)], next_=3)
    assert [(b.again, b.expected, b.next) for b in found] == [(False, 3, 9)]


def test_a_hole_before_the_rest_begins() -> None:
    found = batches([Consumed(offset=i) for i in (1, 5, 6)], next_=4)
    assert [(b.again, b.expected, b.next) for b in found] == [(True, 1, 2), (False, 4, 7)]
