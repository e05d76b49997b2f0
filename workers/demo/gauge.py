"""The demo's live figures: what to show at one moment, from what the watch saw."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from typing import Any

from workers.outside.screen import Deed, Figures
from workers.outside.watch import RECENT_S, Watch
from workers.wire.feed import read_feed

SPOTLIGHT_S = 8.0  # how long one user is shown
LIVE = ("recall@10", "ndcg@10", "events")


def live(stats: Mapping[str, Any]) -> dict[str, float]:
    """Of a process's counters, how often the feed served before an event held its item."""
    found = stats.get("retrieval", {}).get("live", {})
    return {name: found[name] for name in LIVE if name in found}


class Gauge:
    """Makes figures; asked a few times a second."""

    def __init__(self, title: str, watch: Watch) -> None:
        self.note = ""
        self._title, self._watch = title, watch
        self._samples: deque[tuple[float, int, int]] = deque()  # when, events, feeds, over RECENT_S
        self._user: str | None = None  # in the spotlight
        self._since = 0.0

    def figures(self, events: int, live: Mapping[str, float]) -> Figures:
        """What to show now."""
        now = time.perf_counter()
        events_per_s, feeds_per_s = self._rates(now, events)
        user = self._spotlight(now)
        before, last = (self._watch.feeds_of(user) if user else None) or (None, None)
        return Figures(
            title=self._title,
            events=events,
            feeds=self._watch.feeds,
            events_per_s=events_per_s,
            feeds_per_s=feeds_per_s,
            latency_ms=self._watch.percentiles(since=now - RECENT_S),
            live=live,
            user=user or "",
            history=[Deed(data["action"], data.get("item_id", "")) for data in self._watch.deeds(user)] if user else [],
            feed=read_feed(last) if last else None,
            before=[item.item_id for item in read_feed(before).items] if before else [],
            names=self._name,
            note=self.note,
        )

    def _name(self, item_id: str) -> str:
        return self._watch.titles.get(item_id, item_id)

    def _rates(self, now: float, events: int) -> tuple[float, float]:
        samples = self._samples
        samples.append((now, events, self._watch.feeds))
        while len(samples) > 2 and samples[0][0] < now - RECENT_S:
            samples.popleft()
        since, events_then, feeds_then = samples[0]
        seconds = max(now - since, 1e-9)
        return (events - events_then) / seconds, (self._watch.feeds - feeds_then) / seconds

    def _spotlight(self, now: float) -> str | None:
        if self._user is None or now - self._since > SPOTLIGHT_S:
            self._user, self._since = self._watch.busiest(), now
        return self._user
