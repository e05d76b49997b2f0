"""How good the feeds are, live: was what a user chose next in the feed that was served before?

Prequential (test, then learn): a user's first positive event after a feed is looked up in that feed. The figures, and
when they are an alarm, are those of `pipeline.drift`; they are of this worker's users, since it was started.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from pipeline.drift import CUT, Drift

log = structlog.get_logger()

USERS = 10_000  # whose last feed is remembered: some 300 bytes each

_Served = tuple[int, tuple[str, ...], tuple[tuple[str, ...], ...]]  # version, items, the sources of each


class HitRate:
    """Recall and NDCG at 10 of the users served last, lately; a user whose feed was forgotten is not counted."""

    def __init__(self, users: int = USERS) -> None:
        self.drift = Drift()
        self._users = users
        self._served: OrderedDict[str, _Served] = OrderedDict()  # least recently served first
        self._together: dict[tuple[str, ...], tuple[str, ...]] = {}  # sources that proposed together: each kept once

    def serve(self, user: str, version: int, items: Sequence[str], sources: Sequence[Sequence[str]]) -> None:
        """`user` was given `items`, best first, that `sources` had proposed; `version` is the first offset in `events`
        not known to the feed."""
        told = (self._together.setdefault(some, some) for some in map(tuple, sources[:CUT]))
        self._served[user] = version, tuple(items[:CUT]), tuple(told)
        self._served.move_to_end(user)
        if len(self._served) > self._users:
            self._served.popitem(last=False)

    def expects(self, user: str) -> int:
        """The first offset of `user` that would be judged; -1 = nothing is: no feed, or it was judged already."""
        return self._served[user][0] if user in self._served else -1

    def judge(self, user: str, item: str, now: int, places: Sequence[float] | None = None) -> None:
        """`user` chose `item` at `now` (ms), after the feed that `expects` speaks of: it is judged once. `places`: of
        the item in the ranked list and in plain trending, where they are known; see Drift.compare."""
        _, items, sources = self._served.pop(user)
        at = items.index(item) if item in items else -1
        place, by = (at + 1, sources[at]) if at >= 0 else (math.inf, ())
        if self.drift.note(place, by, now):
            self._say_falling()
        if places is not None and self.drift.compare(places, now):
            self._say_below_trending()

    def forget(self, user: str) -> None:
        """`user` was forgotten."""
        self._served.pop(user, None)

    def figures(self) -> dict[str, Any]:
        """See Drift.figures."""
        return self.drift.figures()

    def _say_falling(self) -> None:
        found, alarm = self.figures(), self.drift.alarms["falling"]
        facts = {"events": found["events"], "ndcg": found["ndcg@10"], "past": found["past"]["ndcg@10"]}
        if alarm.on:
            log.warning("feeds fall below their own past", **_short(facts), raised=alarm.raised)
        else:
            log.info("feeds are as good as their past again", **_short(facts), raised=alarm.raised)

    def _say_below_trending(self) -> None:
        facts, alarm = self.figures()["against_trending"], self.drift.alarms["below_trending"]
        if alarm.on:
            log.warning("the ranked list falls below plain trending", **_short(facts), raised=alarm.raised)
        else:
            log.info("the ranked list is as good as trending again", **_short(facts), raised=alarm.raised)


def _short(facts: Mapping[str, float]) -> dict[str, float]:
    """For a line of the log."""
    return {name: round(value, 4) for name, value in facts.items()}
