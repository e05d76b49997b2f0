"""The events of a data set, as arrays in the order of their times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.catalog import Entry
from pipeline.types import F32, I64, PROFILE, U8, U64, Events


@dataclass(frozen=True, slots=True)
class Stream:
    """m events of n users in log order, and when items enter the catalogue."""

    user: I64  # (m,) 0..n-1
    user_hash: U64  # (n,)
    time: I64  # (m,) ms
    item: U64  # (m,) hash, 0 = the event names none
    item_ids: Sequence[str]  # m, "" = none
    id: U64  # (m,) hash of the event id, 0 = none
    action: U8  # (m,) code
    effect: U8  # (m,) bits of pipeline.types
    attributes: dict[int, bytes]  # of the events whose effect has PROFILE
    weights: F32  # (256,) by action code
    arrivals: Sequence[tuple[int, Entry]] = ()  # before which event an item is published, ascending

    def __len__(self) -> int:
        return len(self.user)

    def event(self, at: int) -> Events:
        """The event as a batch of its own: of one user, its offset is its place in the stream."""
        one = slice(at, at + 1)
        return Events(
            user=np.zeros(1, np.int64),
            offset=np.array([at]),
            time=self.time[one],
            item=self.item[one],
            id=self.id[one],
            action=self.action[one],
            effect=self.effect[one],
            attributes=[self.attributes.get(at, b"")] if self.effect[at] & PROFILE else [],
        )

    def ordered(self) -> tuple[Stream, int]:
        """The same in the order of the times, equal times as they stand; and how many were earlier than one before."""
        late = int((self.time < np.maximum.accumulate(self.time)).sum()) if len(self) else 0
        if not late:
            return self, 0
        order = np.argsort(self.time, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        # An item stays ahead of the event that stood behind it.
        published = [(int(place[at]) if at < len(self) else len(self), entry) for at, entry in self.arrivals]
        return replace(
            self,
            **{name: getattr(self, name)[order] for name in ("user", "time", "item", "id", "action", "effect")},
            item_ids=[self.item_ids[at] for at in order.tolist()],
            attributes={int(place[at]): raw for at, raw in self.attributes.items()},
            arrivals=sorted(published, key=lambda arrival: arrival[0]),
        ), late
