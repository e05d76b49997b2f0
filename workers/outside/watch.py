"""Look at the pipeline from outside while it runs, as any subscriber would."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice, takewhile
from typing import Any, TypeVar

import msgspec
import numpy as np

from workers.importers.dataset import Data, Moment
from workers.replica import Follower
from workers.settings import Settings

V = TypeVar("V")

REMEMBERED = 100_000  # events whose feed is awaited, and users whose last feeds are kept
RECENT_S = 10.0  # what a live figure looks back
HISTORY = 12  # deeds of a user that are shown


class _Cause(msgspec.Struct):
    event_id: str


class _Glance(msgspec.Struct):
    """As much of a feed as must be read of every one."""

    user_id: str
    cause: _Cause | None = None


_glance = msgspec.json.Decoder(_Glance)


@contextlib.asynccontextmanager
async def following(follower: Follower) -> AsyncIterator[asyncio.Task[None]]:
    """Let a follower run; the end of the block stops it. What it dies of is raised there."""
    running = asyncio.create_task(follower.run())
    try:
        yield running
    finally:
        follower.stop()
        await running


class Watch:
    """Follows `feeds` and times each feed by the event that caused it: from its writing to the feed's arrival here.

    It follows `catalog` as well: which of the items that were written are in it.
    """

    def __init__(self, settings: Settings) -> None:
        self.followers = (
            Follower(settings, settings.topic("feeds"), self._on_feeds),
            Follower(settings, settings.topic("catalog"), self._on_catalog),
        )
        self.feeds = 0
        self.listed: set[str] = set()  # items in the catalogue
        self.titles: dict[str, str] = {}  # of the items that were written
        self.latencies: deque[tuple[float, float]] = deque(maxlen=1_000_000)  # arrival (perf_counter), ms
        self._written: dict[str, float] = {}  # event id -> when it was written, in that order
        self._feeds_of: dict[str, tuple[bytes | None, bytes]] = {}  # user -> the feed before and the last, as received
        self._deeds_of: dict[str, deque[Data]] = {}  # user -> what they did, newest first

    def wrote(self, moments: Sequence[Moment], at: float) -> None:
        """These are being written, at `at` (perf_counter)."""
        for kind, data in moments:
            if kind == "item":
                self.titles[data["item_id"]] = data.get("title") or data["item_id"]
                continue
            _remember(self._written, data["event_id"], at)
            deeds = self._deeds_of.pop(data["user_id"], None) or deque(maxlen=HISTORY)
            deeds.appendleft(data)
            _remember(self._deeds_of, data["user_id"], deeds)

    @property
    def unlisted(self) -> int:
        """Items that were written and have not come out of the catalog worker."""
        return len(self.titles.keys() - self.listed)

    def percentiles(self, since: float = 0.0) -> dict[str, float]:
        """p50, p95, p99 in ms of the feeds that came after `since`; empty without any."""
        times = [ms for _, ms in takewhile(lambda timed: timed[0] >= since, reversed(self.latencies))]
        if not times:
            return {}
        return {f"p{q}": round(float(np.percentile(times, q)), 1) for q in (50, 95, 99)}

    def deeds(self, user: str) -> list[Data]:
        """What a user did lately, newest first."""
        return list(self._deeds_of.get(user, ()))

    def feeds_of(self, user: str) -> tuple[bytes | None, bytes] | None:
        """The feed before the last, and the last one, as they came; None for a user without any."""
        return self._feeds_of.get(user)

    def busiest(self) -> str | None:
        """Of the last users who did something, one with a feed and most to show."""
        recent = [user for user in islice(reversed(self._deeds_of), 50) if user in self._feeds_of]
        return max(recent, key=lambda user: len(self._deeds_of[user]), default=None)

    def _on_feeds(self, records: Sequence[Any]) -> None:
        now = time.perf_counter()
        for record in records:
            if record.value is None:
                continue
            self.feeds += 1
            feed = _glance.decode(record.value)
            before = self._feeds_of.pop(feed.user_id, (None, None))[1]
            _remember(self._feeds_of, feed.user_id, (before, record.value))
            written = self._written.pop(feed.cause.event_id, None) if feed.cause else None
            if written is not None:
                self.latencies.append((now, 1000 * (now - written)))

    def _on_catalog(self, records: Sequence[Any]) -> None:
        self.listed.update(record.key.decode() for record in records)


def _remember(memory: dict[str, V], key: str, value: V) -> None:
    memory[key] = value
    if len(memory) > REMEMBERED:
        del memory[next(iter(memory))]
