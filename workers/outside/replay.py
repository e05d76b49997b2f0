"""What the log of `events` makes of the users of one partition, when it is read once more: durable parts, exact.

The rules are the workers' own, but for one: whether an event's time lay within the window was asked when it was read
live. Here every time is taken, and what was refused then is known by its dead letter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from pipeline.state import Users, advance
from pipeline.types import FORGETS
from workers.outside.announced import Announced
from workers.replica import LogReader, Span
from workers.settings import Settings
from workers.wire.event import EventBatch, Rules, read_events
from workers.wire.marker import Marker

_NEVER = Marker(version=0, time=-1)


class Known(NamedTuple):
    """A user, as far as the replay has come."""

    blob: bytes  # b"" = no state; derived parts are zero
    marker: Marker
    written: int  # ms, when the last record of the user was written


@dataclass(slots=True)
class Replay:
    """The users of a partition. `users` are those to begin with, and then those that the log speaks of."""

    rules: Rules
    partition: int
    dimension: int
    refused: set[int]
    users: dict[str, Known] = field(default_factory=dict)
    events: int = 0  # that were applied or looked at

    def take(self, records: Sequence[Any], limit: Callable[[bytes | None], int]) -> None:
        """Apply records in log order; those at `limit(key)` or beyond are passed over."""
        wanted = [r for r in records if r.offset < limit(r.key) and r.offset not in self.refused]
        read = read_events(wanted, self.rules, self.partition, 0)
        known = [self.users.get(user, _STRANGER) for user in read.users]
        users = Users(
            [one.blob for one in known],
            np.array([one.marker.time for one in known], np.int64),
            np.array([one.marker.version for one in known], np.int64),
        )
        advanced = advance(users, read.events, self.dimension)
        start, raw = advanced.start.tolist(), advanced.buffer.tobytes()
        written = _written(read)
        for row, user in enumerate(read.users):
            marker = Marker(int(advanced.forgotten_version[row]), int(advanced.forgotten_time[row]))
            self.users[user] = Known(raw[start[row] : start[row + 1]], marker, written[row])
        self.events += len(read.events)


_STRANGER = Known(b"", _NEVER, 0)


def lenient(settings: Settings) -> Rules:
    """How events are read here: as the workers do, at any time."""
    return replace(Rules.of(settings), clock="stream")


def from_announced(said: Announced, marker: Marker | None) -> Known:
    """A user to begin with; `marker`, what the store keeps of an earlier forget."""
    if said.blob:
        return Known(said.blob, marker or _NEVER, said.written)
    return Known(b"", Marker(forget_version(said), said.forgotten_at), said.written)


def forget_version(said: Announced) -> int:
    """The version of the marker of a forget; at least 1, for 0 means that there was none."""
    return max(said.offset + 1, 1)


def _written(read: EventBatch) -> list[int]:
    written = [0] * len(read.users)
    for row, position in zip(read.events.user.tolist(), read.positions, strict=True):
        written[row] = max(written[row], read.records[position].timestamp)
    return written


async def forgets(
    reader: LogReader, settings: Settings, partition: int, span: Span
) -> AsyncIterator[tuple[str, Announced]]:
    """The users that a log says were forgotten, in its order; whether their states knew, `states` must say."""
    rules = lenient(settings)
    words = [name.encode() for name, meaning in rules.meanings.items() if meaning.effect & FORGETS]
    words.append(b"\\u")  # JSON may hide a word
    async for records in reader.read(settings.topic("events"), partition, *span):
        likely = [r for r in records if r.value is not None and any(word in r.value for word in words)]
        read = read_events(likely, rules, partition, 0)
        for at in np.flatnonzero((read.events.effect & FORGETS) != 0).tolist():
            record, user = read.record(at), read.users[int(read.events.user[at])]
            yield user, Announced(record.offset, b"", record.timestamp, int(read.events.time[at]))
