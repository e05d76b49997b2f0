"""Training examples for the ranker: lists wait, with the features they were ranked by, for their users to choose.

A uniform sample of the lists served waits in memory: the last USERS users', within LISTS_BYTES. A list of 600
candidates, 50 random items and 32 features takes 49 KB, so that about 2,700 of such wait at most. Whatever is dropped,
because there is no room or the user's partition went to another worker, is an example less, and counted.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipeline.model.ranker import Choice
from pipeline.model.sequence import draw
from pipeline.ranking import Served

USERS = 10_000
LISTS_BYTES = 128 << 20
LISTS_A_SECOND = 200  # that begin to wait: about one in four brings an example
EXAMPLES_A_SECOND = 50  # that are published
SEEN = 20  # rows of a list that are remembered as looked at, at most
DRAWS = 100  # of the candidates that were not chosen, published with an example

_SEED = 0x5A3D1E


class Sampler:
    """Takes a uniform sample of what comes, about `rate` a second and never more within one.

    The chance is the rate over what came in the second before; all is taken while less comes.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._second, self._came, self._taken, self._tosses = -1, 0, 0, 0
        self._chance = 1.0

    def take(self, now_s: float) -> bool:
        """Is this one in the sample? `now_s` is a clock that does not go back."""
        if int(now_s) != self._second:
            self._chance = min(1.0, self._rate / max(self._came, 1)) if int(now_s) == self._second + 1 else 1.0
            self._second, self._came, self._taken = int(now_s), 0, 0
        self._came += 1
        self._tosses += 1
        lucky = int(draw(np.uint64(_SEED), self._tosses)) < self._chance * 2**64
        self._taken += lucky
        return lucky and self._taken <= self._rate


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A list whose user has not chosen yet."""

    partition: int
    version: int  # the first offset in `events` not known to the feed
    feed_id: str
    served: Served
    seen: set[int] = field(default_factory=set)  # rows that the user is known to have looked at


class WaitingLists:
    """The lists that wait, least recently served first."""

    def __init__(self, users: int = USERS, nbytes: int = LISTS_BYTES) -> None:
        self.counts: Counter[str] = Counter()
        self.nbytes = 0
        self._users, self._most = users, nbytes
        self._lists: OrderedDict[str, _Waiting] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lists)

    def serve(self, user: str, partition: int, version: int, feed_id: str, served: Served | None) -> None:
        """`user` was served a list; None = it is not in the sample, and the one that waited is not what they see."""
        self._drop(user)
        if served is None:
            return
        self._lists[user] = _Waiting(partition, version, feed_id, served)
        self.nbytes += served.nbytes
        self.counts["lists_logged"] += 1
        while len(self._lists) > self._users or self.nbytes > self._most:
            self.counts["lists_without_room"] += 1
            self._drop(next(iter(self._lists)))

    def expects(self, user: str) -> int:
        """The first offset of `user` that would be an answer to the list that waits; -1 = none waits."""
        return self._lists[user].version if user in self._lists else -1

    def saw(self, user: str, feed_id: str, rows: Sequence[int]) -> None:
        """`user` looked at `rows` of a feed; of another than the one that waits nothing is kept."""
        waiting = self._lists.get(user)
        if waiting is None or waiting.feed_id != feed_id:
            return
        self.counts["impressions"] += 1
        candidates = set(waiting.served.rows[: len(waiting.served.scores)].tolist())
        waiting.seen.update([row for row in rows if row in candidates - waiting.seen][: SEEN - len(waiting.seen)])

    def choose(self, user: str, row: int) -> tuple[str, Choice | None]:
        """`user`, whose list waits, chose `row`: the feed's id and what there is to learn; None if it was not in it."""
        waiting = self._lists[user]
        self._drop(user)
        choice = waiting.served.chosen(row, waiting.seen)
        self.counts["chosen" if choice else "chosen_elsewhere"] += 1
        return waiting.feed_id, choice

    def forget(self, user: str) -> None:
        """`user` was forgotten."""
        self._drop(user)

    def lose(self, partition: int) -> None:
        """The partition went to another worker."""
        users: Iterable[str] = [user for user, waiting in self._lists.items() if waiting.partition == partition]
        for user in users:
            self.counts["lists_lost"] += 1
            self._drop(user)

    def _drop(self, user: str) -> None:
        waiting = self._lists.pop(user, None)
        if waiting is not None:
            self.nbytes -= waiting.served.nbytes
