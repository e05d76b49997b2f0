"""How good the feeds are, live: was what a user chose next in the feed that was served before?

Prequential (test, then learn): a user's first positive event after a feed is looked up in that feed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

USERS = 10_000  # whose last feed is remembered
AT = 10  # places that count as a hit


class HitRate:
    """Recall and NDCG at 10 over the users served last; a user whose feed was forgotten is not counted."""

    def __init__(self, users: int = USERS) -> None:
        self.events = 0
        self.hits = 0
        self._gain = 0.0
        self._users = users
        self._served: OrderedDict[str, tuple[int, Sequence[str]]] = OrderedDict()  # least recently served first

    def serve(self, user: str, version: int, items: Sequence[str]) -> None:
        """`user` was given `items`, best first; `version` is the first offset in `events` not known to the feed."""
        self._served[user] = version, items
        self._served.move_to_end(user)
        if len(self._served) > self._users:
            self._served.popitem(last=False)

    def expects(self, user: str) -> int:
        """The first offset of `user` that would be judged; -1 = nothing is: no feed, or it was judged already."""
        return self._served[user][0] if user in self._served else -1

    def judge(self, user: str, item: str) -> None:
        """`user` chose `item`, after the feed that `expects` speaks of: it is judged once."""
        items = self._served.pop(user)[1][:AT]
        self.events += 1
        if item in items:
            self.hits += 1
            self._gain += 1 / math.log2(2 + items.index(item))

    def forget(self, user: str) -> None:
        """`user` was forgotten."""
        self._served.pop(user, None)

    def figures(self) -> dict[str, float]:
        """recall@10, ndcg@10 and the events that they are means of; 0 before the first."""
        n = max(self.events, 1)
        return {"recall@10": self.hits / n, "ndcg@10": self._gain / n, "events": self.events}
