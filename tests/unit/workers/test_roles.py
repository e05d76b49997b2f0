"""A lane joins its group when what it needs is in memory."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from workers.lane import Lane
from workers.roles import CaughtUpLane


class Part:
    """What runs until it is stopped, and tells whether it did."""

    def __init__(self) -> None:
        self.ran = False
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        self.ran = True
        await self._stopped.wait()

    def stop(self) -> None:
        self._stopped.set()


async def turns() -> None:
    """Let everything that can go on go on."""
    for _ in range(10):
        await asyncio.sleep(0)


def test_a_lane_joins_when_the_items_are_there() -> None:
    async def body() -> None:
        caught_up, part = asyncio.Event(), Part()
        lane = CaughtUpLane(cast(Lane, part), cast(Any, caught_up.wait))
        running = asyncio.ensure_future(lane.run())
        await turns()
        assert not part.ran
        caught_up.set()
        await turns()
        assert part.ran
        assert not running.done()
        lane.stop()
        await running

    asyncio.run(body())


def test_a_lane_that_is_stopped_before_never_joins() -> None:
    async def body() -> None:
        part = Part()
        lane = CaughtUpLane(cast(Lane, part), cast(Any, asyncio.Event().wait))
        running = asyncio.ensure_future(lane.run())
        await turns()
        lane.stop()
        await running
        assert not part.ran

    asyncio.run(body())
