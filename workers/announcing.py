"""What an embedding worker says of a batch: states, nulls of the forgotten, letters, strays, what all did lately."""

from __future__ import annotations

import numpy as np

from pipeline.types import FORGETS, POSITIVE, Mask
from workers.settings import Settings
from workers.wire.dead_letter import dead_letter
from workers.wire.event import EventBatch
from workers.wire.marker import Marker
from workers.wire.output import Output
from workers.wire.recent import pack_recent
from workers.wire.state import StateRecord, encode_state, forgotten_headers


class Announcer:
    """Makes the records; sends nothing."""

    def __init__(self, settings: Settings) -> None:
        self._group = settings.topic("embedding")
        self._states, self._recent, self._letters = map(settings.topic, ("states", "recent", "dead-letters"))

    def state(
        self, partition: int, user: str, blob: bytes, evicted: bytes | None, fresh: list[int], read: EventBatch
    ) -> Output:
        """A user's state, with the events `fresh` of the batch that are new in it; `evicted` None = not known."""
        events, refreshes = read.fresh, read.refreshes
        cause = next((read.cause(i) for i in reversed(fresh) if refreshes[i]), None)
        record = StateRecord(blob, evicted, [events[i] for i in fresh], cause is not None, cause)
        return Output(self._states, user.encode(), encode_state(record), [], partition)

    def tombstone(self, partition: int, user: str, marker: Marker) -> Output:
        """The null of a user that was forgotten."""
        headers = forgotten_headers(marker.version - 1, marker.time)
        return Output(self._states, user.encode(), None, headers, partition)

    def others(self, partition: int, read: EventBatch, applied: Mask, now: int) -> list[Output]:
        """Dead letters, re-routed records, and what all retrieval workers need of all users."""
        outputs = [dead_letter(bad, self._letters, self._group, now) for bad in read.bad] + read.astray
        rows = _packed(read, applied)
        if rows:
            outputs.append(Output(self._recent, b"%d" % partition, rows, [], partition))
        return outputs


def by_user(read: EventBatch, wanted: Mask) -> list[list[int]]:
    """For each user of the batch the indices of wanted events, in log order."""
    grouped: list[list[int]] = [[] for _ in read.users]
    users = read.events.user.tolist()
    for i in np.flatnonzero(wanted).tolist():
        grouped[users[i]].append(i)
    return grouped


def _packed(read: EventBatch, applied: Mask) -> bytes:
    """Positive events and forgets of the batch, packed; b"" for none."""
    events = read.events
    wanted = np.flatnonzero(applied & ((events.effect & (POSITIVE | FORGETS)) != 0))
    if not len(wanted):
        return b""
    return pack_recent(
        offsets=events.offset[wanted],
        users=read.user_hashes[events.user[wanted]],
        items=np.where(events.effect[wanted] & FORGETS, 0, events.item[wanted]).astype(np.uint64),
        times=np.maximum(events.time[wanted] // 1000, 0).astype(np.uint32),
        actions=events.action[wanted],
    )
