"""Where a batch ends, and when the watchdog bites: pure counting, no broker."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from tests.records import Consumed
from tests.waiting import run
from workers import lane as lanes
from workers.lane import Lane, Limits, _Queue
from workers.positions import Batch, LaneRefused, Stand
from workers.settings import load


def batches(records: list[Consumed], next_: int = 0) -> list[Batch]:
    """The batches of a queue, one after the other, as if each were applied."""
    nothing = cast("Any", None)
    lane = Lane(load(environ={}), "t", "g", nothing, nothing, nothing, Limits(), 1)
    queue = _Queue(Stand(0, next_), 0)
    queue.records.extend(records)
    found = []
    while (batch := lane._cut(3, queue)) is not None:
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


@pytest.mark.parametrize(("size", "expected"), [(60, [4, 4, 2]), (64, [4, 4, 2]), (65, [3, 3, 3, 1]), (300, [1] * 10)])
def test_it_ends_at_256_kib_of_a_user(size: int, expected: list[int]) -> None:
    """One record alone may be larger."""
    assert sizes([Consumed(b"u", b"x" * size * 1024, offset=i) for i in range(10)]) == expected


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


# ------------------------------------------------------------------ the watchdog


class Standing:
    """A partition with lag, and a store that is away so often when it is asked; once it is back, there is progress."""

    def __init__(self, away: int, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, seconds in {"_WATCH_EVERY_S": 0.01, "_SILENT_AFTER_S": 0.03, "_STUCK_AFTER_S": 0.3}.items():
            monkeypatch.setattr(lanes, name, seconds)
        nothing = cast("Any", None)
        self.lane = Lane(load(environ={}), "t", "g", cast("Any", self), nothing, nothing, Limits(), 1)
        self.lane._consumer = self
        self.queue = self.lane._queues[0] = _Queue(Stand(0, 0), 0, progressed=time.monotonic())
        self.asked, self._away = 0, away
        self.moved = asyncio.Event()

    def highwater(self, _: Any) -> int:
        return 10

    def last_stable_offset(self, _: Any) -> int:
        return 10

    async def reachable(self) -> bool:
        self.asked += 1
        if self.asked <= self._away:
            return False
        if self._away:
            self.queue.stand.next = 10
            self.moved.set()
        return True


def test_the_watchdog_ends_a_lane_that_is_silent_while_the_store_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        await Standing(0, monkeypatch).lane._watch()

    with pytest.raises(LaneRefused, match=r"t\[0\]@0: no progress for .* although there is lag"):
        run(main())


def test_the_watchdog_does_not_count_the_time_without_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    """Away for longer than it has patience: the lane is not ended just when the store is back."""

    async def main() -> None:
        standing = Standing(20, monkeypatch)
        watching = asyncio.create_task(standing.lane._watch())
        await asyncio.wait(
            [watching, asyncio.ensure_future(standing.moved.wait())], return_when=asyncio.FIRST_COMPLETED
        )
        await asyncio.sleep(0)  # what it makes of the answer, it makes at once
        assert not watching.done()
        watching.cancel()

    run(main())
