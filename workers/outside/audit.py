"""What the topics of a prefix say in the end, read back from their beginning by consumers of its own.

Nothing here asks a worker. A user is *stale* when their newest refreshing event is newer than the last feed on the
topic, and *unannounced* when their newest event is newer than the last state on the topic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from workers.replica import Follower
from workers.settings import Settings
from workers.wire.errors import WireError
from workers.wire.event import Rules, read_event
from workers.wire.state import decode_state, read_forgotten

Ends = dict[int, int]  # partition -> high watermark


class _Feed(msgspec.Struct):
    version: int


_feed = msgspec.json.Decoder(_Feed)


@dataclass(slots=True)
class Audit:
    """What was found. Versions and newest events are by user; a version is an event's offset + 1."""

    events: int = 0
    feeds: int = 0
    dead_letters: int = 0
    newest: dict[str, int] = field(default_factory=dict)  # of the user's events, as versions
    refreshing: dict[str, int] = field(default_factory=dict)  # of those that ask for a feed
    announced: dict[str, int] = field(default_factory=dict)
    fed: dict[str, int] = field(default_factory=dict)

    @property
    def stale(self) -> list[str]:
        """Users whose last feed does not know their newest refreshing event."""
        return behind(self.refreshing, self.fed)

    @property
    def unannounced(self) -> list[str]:
        """Users whose last announced state does not know their newest event."""
        return behind(self.newest, self.announced)


def behind(wanted: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    """Users found at less than what is wanted, or not at all."""
    return [user for user, version in wanted.items() if found.get(user, 0) < version]


async def audit(settings: Settings) -> Audit:
    """Read events, states, feeds and dead letters back."""
    found = Audit()
    reader = _Reader(settings, found)
    await asyncio.gather(
        read_back(settings, "events", reader.on_events),
        read_back(settings, "states", reader.on_states),
        read_back(settings, "feeds", reader.on_feeds),
        read_back(settings, "dead-letters", reader.on_dead_letters),
    )
    return found


async def read_back(settings: Settings, dataset: str, on_records: Callable[[Sequence[Any]], None]) -> Ends:
    """Hand over every record of a topic, from its beginning to its high watermark; where each partition ended."""
    follower = Follower(settings, settings.topic(dataset), on_records)
    running = asyncio.create_task(follower.run())
    caught_up = asyncio.create_task(follower.caught_up.wait())
    await asyncio.wait({running, caught_up}, return_when=asyncio.FIRST_COMPLETED)
    follower.stop()
    caught_up.cancel()
    await running
    return follower.positions()


class _Reader:
    """Takes records in."""

    def __init__(self, settings: Settings, found: Audit) -> None:
        self._found = found
        self._rules = Rules.of(settings)
        self._ids: dict[str, set[str]] = {}  # user -> event ids: one that comes again changes nothing

    def on_events(self, records: Sequence[Any]) -> None:
        """Events: what the others must know. A bad one concerns nobody: it is a dead letter."""
        for record in records:
            self._found.events += 1
            try:
                event = read_event(record, self._rules, now_ms=record.timestamp or round(time.time() * 1000))
            except WireError:
                continue
            user = event.data.user_id
            ids = self._ids.setdefault(user, set())
            if event.id and event.id in ids:
                continue
            ids.add(event.id)
            self._found.newest[user] = record.offset + 1
            if event.meaning.refreshes:
                self._found.refreshing[user] = record.offset + 1

    def on_states(self, records: Sequence[Any]) -> None:
        """States: the newest is the one with the greatest offset."""
        for record in records:
            if record.value is None:
                offset = read_forgotten(record.headers).offset
            else:
                offset = max((fresh.offset for fresh in decode_state(record.value).fresh), default=-1)
            _raise(self._found.announced, record.key.decode(), offset + 1)

    def on_feeds(self, records: Sequence[Any]) -> None:
        """Feeds, and their nulls: a forgotten user needs none."""
        for record in records:
            self._found.feeds += record.value is not None
            headers = dict(record.headers)
            version = _feed.decode(record.value).version if record.value is not None else int(headers["version"])
            _raise(self._found.fed, record.key.decode(), version)

    def on_dead_letters(self, records: Sequence[Any]) -> None:
        """Dead letters: only their number."""
        self._found.dead_letters += len(records)


def _raise(versions: dict[str, int], user: str, version: int) -> None:
    versions[user] = max(version, versions.get(user, 0))
