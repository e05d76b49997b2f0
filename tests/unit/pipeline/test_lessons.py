"""Lessons from state records: each positive event with the history its user had before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from pipeline.lessons import Lessons, Told, lessons_from
from pipeline.state import Users, advance, decode, stamp
from pipeline.types import CONSUMES, FORGETS, POSITIVE, RING, U8, U32, U64, Events, hash_id

VIEW, CLICK, IMPRESSION, HIDE, FORGET = 2, 3, 1, 8, 10
WEIGHTS = np.zeros(256, np.float32)
WEIGHTS[[VIEW, CLICK, HIDE]] = 0.3, 1.0, -1.0
EFFECTS = {VIEW: POSITIVE, CLICK: POSITIVE | CONSUMES, IMPRESSION: 0, HIDE: CONSUMES, FORGET: FORGETS}

Deed = tuple[int, str]  # action, item id


@dataclass
class Batch:
    """What one batch tells of one user."""

    blob: bytes
    evicted: tuple[U64, U32, U8]
    fresh: list[tuple[int, Deed]]  # offset, deed
    partition: int = 3


def apply(blob: bytes, deeds: Sequence[Deed], first: int) -> Batch:
    """A user's state after a batch of deeds at offsets first, first + 1, ..."""
    n = len(deeds)
    users = Users([blob], np.array([-1]), np.array([0]))
    events = Events(
        user=np.zeros(n, np.int64),
        offset=np.arange(first, first + n),
        time=np.arange(first, first + n) * 1000,
        item=np.array([hash_id(item) if item else 0 for _, item in deeds], np.uint64),
        id=np.zeros(n, np.uint64),
        action=np.array([action for action, _ in deeds], np.uint8),
        effect=np.array([EFFECTS[action] for action, _ in deeds], np.uint8),
        attributes=[],
    )
    after = advance(users, events, 4)
    (made,) = stamp(after, np.zeros((1, 4), np.float32), 0, 0)
    fresh = list(zip(range(first, first + n), deeds, strict=True))
    return Batch(made, (after.evicted_items, after.evicted_times, after.evicted_actions), fresh)


def told(*batches: Batch) -> Told:
    fresh = [event for batch in batches for event in batch.fresh]
    items, times, actions = (np.concatenate([batch.evicted[at] for batch in batches]) for at in range(3))
    return Told(
        partition=np.array([batch.partition for batch in batches]),
        states=decode([batch.blob for batch in batches]),
        evicted_start=np.cumsum([0, *(len(batch.evicted[0]) for batch in batches)]),
        evicted_items=items,
        evicted_times=times,
        evicted_actions=actions,
        fresh_start=np.cumsum([0, *(len(batch.fresh) for batch in batches)]),
        offset=np.array([offset for offset, _ in fresh], np.int64),
        time=np.array([offset * 1000 for offset, _ in fresh], np.int64),
        item=np.array([hash_id(item) if item else 0 for _, (_, item) in fresh], np.uint64),
        action=np.array([action for _, (action, _) in fresh], np.uint8),
        item_ids=[item for _, (_, item) in fresh],
    )


def shown(lessons: Lessons) -> list[tuple[int, str, list[int]]]:
    """Offset, item and history (hashes) of each lesson."""
    return [
        (int(lessons.offset[at]), lessons.item_ids[at], lessons.rings.items[at, : lessons.rings.length[at]].tolist())
        for at in range(len(lessons))
    ]


def clicks(*items: str) -> list[Deed]:
    return [(CLICK, item) for item in items]


def hashes(*items: str) -> list[int]:
    return [hash_id(item) for item in items]


def test_each_event_has_what_came_before_it() -> None:
    first = apply(b"", clicks("a", "b"), 10)
    second = apply(first.blob, [(CLICK, "c"), (IMPRESSION, ""), (VIEW, "a"), (HIDE, "z")], 20)
    lessons = lessons_from(told(first, second), WEIGHTS)
    assert shown(lessons) == [
        (10, "a", []),
        (11, "b", hashes("a")),
        (20, "c", hashes("b", "a")),
        (22, "a", hashes("c", "b", "a")),
    ]
    assert lessons.weight.tolist() == [1.0, 1.0, 1.0, np.float32(0.3)]
    assert lessons.before.tolist() == [0, 1, 2, 3]
    assert lessons.owner.tolist() == [0, 0, 1, 1]
    assert lessons.time.tolist() == [10_000, 11_000, 20_000, 22_000]
    assert lessons.rings.times[3, :3].tolist() == [20, 11, 10]
    assert lessons.rings.actions[3, :3].tolist() == [CLICK] * 3
    assert lessons.idle_offset.tolist() == [21, 23]
    assert set(lessons.partition.tolist()) == set(lessons.idle_partition.tolist()) == {3}
    consumed = lessons.consumed[lessons.consumed_start[1] : lessons.consumed_start[2]]
    assert set(consumed.tolist()) == {item & 0xFFFFFFFF for item in hashes("a", "b", "c", "z")}


def test_what_the_batch_pushed_out_is_history_too() -> None:
    names = [f"i{at}" for at in range(100)]
    first = apply(b"", clicks(*names[:40]), 0)
    second = apply(first.blob, clicks(*names[40:]), 40)
    got = shown(lessons_from(told(second), WEIGHTS))
    assert len(got) == 60
    for at, (offset, item, history) in enumerate(got):
        assert (offset, item) == (40 + at, names[40 + at])
        assert history == hashes(*reversed(names[10 + at : 40 + at]))


def test_without_what_was_pushed_out_the_history_is_shorter() -> None:
    names = [f"i{at}" for at in range(100)]
    again = apply(b"", clicks(*names), 0)
    nothing = (np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty(0, np.uint8))
    got = shown(lessons_from(told(Batch(again.blob, nothing, again.fresh)), WEIGHTS))
    assert [len(history) for _, _, history in got] == [0] * 70 + list(range(RING))
    assert got[-1][2] == hashes(*reversed(names[70:99]))


def test_a_history_that_leads_elsewhere_is_not_trusted() -> None:
    mine, other = apply(b"", clicks("a", "b", "c"), 0), apply(b"", clicks("x", "y", "c"), 0)
    mixed = Batch(other.blob, other.evicted, mine.fresh)
    assert shown(lessons_from(told(mixed), WEIGHTS)) == [(0, "a", []), (1, "b", []), (2, "c", hashes("y", "x"))]


def test_events_from_before_a_forget_are_only_met() -> None:
    batch = apply(b"", [*clicks("a", "b"), (FORGET, ""), *clicks("c", "d")], 0)
    lessons = lessons_from(told(batch), WEIGHTS)
    assert shown(lessons) == [(3, "c", []), (4, "d", hashes("c"))]
    assert lessons.before.tolist() == [0, 1]
    assert sorted(lessons.idle_offset.tolist()) == [0, 1, 2]


def test_nothing_told() -> None:
    empty = told(Batch(b"", (np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty(0, np.uint8)), []))
    assert len(lessons_from(empty, WEIGHTS)) == 0


def test_batches_split_anywhere_tell_the_same() -> None:
    rng = np.random.default_rng(0)
    actions = [CLICK, CLICK, VIEW, IMPRESSION, HIDE]
    deeds = [(int(rng.choice(actions)), f"i{rng.integers(0, 12)}") for _ in range(150)]
    whole = shown(lessons_from(told(apply(b"", deeds, 0)), WEIGHTS))
    for seed in range(20):
        cuts = [0, *sorted(np.random.default_rng(seed).choice(150, 4).tolist()), 150]
        blob, parts = b"", []
        for begin, end in pairwise(cuts):
            parts.append(apply(blob, deeds[begin:end], begin))
            blob = parts[-1].blob
        assert shown(lessons_from(told(*parts), WEIGHTS)) == whole
