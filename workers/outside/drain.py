"""How far the lanes are behind, asked from outside: high watermark - position, never what a worker says of itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workers.kafka import admin
from workers.outside.audit import Ends, read_back
from workers.settings import Settings
from workers.store import Store

PATIENCE_S = 30.0  # without any progress
_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Lag:
    """Records that are not yet behind a lane, with all their outputs acknowledged."""

    events: int  # of the embedding lane
    states: int  # of the retrieval lane
    within: int  # of whatever runs in this process, by its own account (the trainer and the replicas too)

    @property
    def total(self) -> int:
        """All of it; what the lanes say of themselves is not added to what was found from outside."""
        return max(self.events + self.states, self.within)


async def drained(settings: Settings, store: Store, within: Callable[[], int]) -> Lag:
    """Wait until all that stands on `events` now is applied, announced and answered; what is left when nothing moves.

    `within` gives the lag of the roles in this process.
    """
    ends = await read_back(settings, "events", _ignore)
    events = await settled(lambda: _events_lag(store, ends))
    ends = await read_back(settings, "states", _ignore)
    states = await settled(lambda: _states_lag(settings, ends))
    rest = await settled(lambda: _now(within))
    return Lag(events, states, rest)


async def _events_lag(store: Store, ends: Ends) -> int:
    found = await store.positions(list(ends))
    return _behind(ends, {p: min(position.next, position.sent) for p, position in found.items()})


async def _states_lag(settings: Settings, ends: Ends) -> int:
    topic = settings.topic("states")
    async with admin(settings) as client:  # partitions are named: the embedded broker cannot be asked for all
        wanted = [(topic, partition) for partition in ends]
        offsets = await client.list_consumer_group_offsets(settings.topic("retrieval"), partitions=wanted)
    return _behind(ends, {tp.partition: offset.offset for tp, offset in offsets.items()})


def _ignore(_: Sequence[Any]) -> None:
    """Only where the topic ends matters."""


async def _now(within: Callable[[], int]) -> int:
    return within()


def _behind(ends: Ends, positions: Mapping[int, int]) -> int:
    return sum(max(0, end - max(0, positions.get(p, 0))) for p, end in ends.items())


async def settled(lag: Callable[[], Awaitable[int]]) -> int:
    """Poll until the lag is 0, or has not shrunk for PATIENCE_S."""
    least, moved = await lag(), time.monotonic()
    while least > 0 and time.monotonic() - moved < PATIENCE_S:
        await asyncio.sleep(_POLL_S)
        now = await lag()
        if now < least:
            least, moved = now, time.monotonic()
    return least
