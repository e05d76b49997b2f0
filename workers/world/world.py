"""A seeded synthetic world: titled items, users with tastes, sessions, trends, new items. One seed, one world.

Users and items are unit vectors of one latent space. A session of user u at time t picks item i with probability
softmax_i(FOCUS (p_u + mood).q_i + appeal_i(t)): taste, the mood of the session, and what the item is to everybody
(popularity, a tide that rises and falls, the charm of the new). Series are followed in order. So popularity explains
something, trends more, co-visitation more still, and the true tastes, which `affinity` tells, most.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from workers.world.assortment import DAY_MS, DIMENSION, F32, F64, Assortment, item_id, number_of, unit

Kind = Literal["item", "event"]
Moment = tuple[Kind, dict[str, Any]]

START = 1_767_600_000_000  # 2026-01-05T08:00:00Z
FOCUS = 8.0  # how much taste decides
MOOD = 1.0  # how much the session's mood adds to the taste
BLOCK = 32  # sessions drawn together, under the trends of one moment
TRIES = 8  # draws for one pick, until one is not consumed yet
REVISIT = 0.2  # chance that the user looks again at a consumed one, when all draws are
SEQUEL = 0.5  # chance that the next pick is the next of the series

# What a pick becomes, cumulative: (view, click, view + click, like or purchase, view + like or purchase).
# Nothing but views comes twice for the same pick: a consumed item is not recommended again.
OUTCOMES = np.array([0.30, 0.62, 0.75, 0.90, 1.0])


@dataclass(frozen=True, slots=True)
class _Session:
    """One sitting of one user."""

    id: str
    user: int
    start: int  # ms
    draws: F64  # (picks, TRIES + 3) uniform numbers that decide everything in it


@dataclass(slots=True)
class _Course:
    """What a stream remembers on its way."""

    rng: np.random.Generator
    now: int  # ms
    published: int  # items out so far
    sessions: int = 0
    events: int = 0
    consumed: dict[int, set[int]] = field(default_factory=dict)  # user -> items
    pending: list[tuple[int, int, Kind, dict[str, Any]]] = field(default_factory=list)  # heap by time
    serial: int = 0

    def push(self, time: int, kind: Kind, data: dict[str, Any]) -> None:
        """Remember what will happen at `time`."""
        self.serial += 1
        heappush(self.pending, (time, self.serial, kind, data))


class World:
    """Items `i-0001`.. and users `u-0001`.. with true tastes; `stream` tells what happens from `start` on.

    `items` are there before the stream begins; new ones appear in it, `items_a_day`. Every method can be called any
    number of times, in any order: nothing that happened changes what happens.
    """

    def __init__(
        self,
        seed: int = 1,
        users: int = 300,
        items: int = 800,
        *,
        start: int = START,
        sessions_a_day: float = 3.0,
        items_a_day: float = 48.0,
    ) -> None:
        self.seed = seed
        self.start = start
        self.size = items
        self._sessions_a_day = sessions_a_day * users
        self._items = Assortment(seed, items, start, DAY_MS / items_a_day)
        rng = np.random.default_rng([seed, 1])
        self._tastes = self._draw_tastes(rng, users)  # (users, d)
        self._activity = np.cumsum(_shares(rng.random(users)))

    @property
    def users(self) -> list[str]:
        """Every user's id."""
        return [user_id(number) for number in range(len(self._tastes))]

    def items(self) -> Iterator[dict[str, Any]]:
        """The items that are there before the first event, as data of `items` records."""
        return (self._items.data(number) for number in range(self.size))

    def events(self, n: int) -> Iterator[dict[str, Any]]:
        """The first `n` events, as data of `events` records."""
        return (data for kind, data in self.stream(n) if kind == "event")

    def stream(self, n: int) -> Iterator[Moment]:
        """The first `n` events and the items published between them, in the order of time."""
        course = _Course(np.random.default_rng([self.seed, 2]), self.start, self.size)
        while True:
            self._draw_block(course)
            while course.pending and course.pending[0][0] < course.now:
                _, _, kind, data = heappop(course.pending)
                if kind == "event":
                    if course.events == n:
                        return
                    course.events += 1
                    data["event_id"] = f"w{self.seed}-{course.events}"
                yield kind, data

    def affinity(self, user: str, item: str) -> float:
        """How much the user truly likes the item: the log-odds that taste alone adds to its being picked."""
        row = number_of(item)
        self._items.grow(row + 1)
        return float(FOCUS * (self._tastes[number_of(user)] @ self._items.vectors[row]))

    def appeal(self, item: str, time: int) -> float:
        """What the item is to everybody at `time` (ms), as log-odds; very low when it is not to be had."""
        row = number_of(item)
        self._items.grow(row + 1)
        return float(self._items.appeal(row + 1, time)[row])

    def _draw_tastes(self, rng: np.random.Generator, users: int) -> F32:
        """Three styles each, liked in this order, and something of their own."""
        styles = self._items.styles.reshape(-1, DIMENSION)  # (shelves * styles, d)
        liked = styles[rng.integers(len(styles), size=(users, 3))] * np.array([1.0, 0.7, 0.5])[:, None]
        return unit(liked.sum(1) + 0.3 * unit(rng.standard_normal((users, DIMENSION)))).astype(np.float32)

    def _draw_block(self, course: _Course) -> None:
        """Draw the next sessions, and publish the items of the time that they begin in."""
        rng, begin = course.rng, course.now
        gaps = -np.log1p(-rng.random(BLOCK)) * DAY_MS / self._sessions_a_day
        starts = begin + np.cumsum(gaps).astype(np.int64)
        users = np.searchsorted(self._activity, rng.random(BLOCK) * self._activity[-1])
        moods = rng.random(BLOCK)
        picks = 2 + np.floor(np.log1p(-rng.random(BLOCK)) / np.log(0.75)).astype(np.int64).clip(0, 20)
        weights = self._weights(users, moods, course.published, begin)
        for at in range(BLOCK):
            course.sessions += 1
            draws = rng.random((picks[at], TRIES + 3))
            self._play(course, _Session(f"s-{course.sessions}", int(users[at]), int(starts[at]), draws), weights[at])
        course.now = int(starts[-1])
        while (time := self._items.published(course.published)) < course.now:
            course.push(time, "item", self._items.data(course.published))
            course.published += 1

    def _weights(self, users: NDArray[np.int64], moods: F64, items: int, time: int) -> F32:
        """(sessions, items) cumulative weights of what each session may pick."""
        self._items.grow(items)
        tastes = self._tastes[users]  # (b, d)
        lean = np.cumsum(np.exp(FOCUS * (tastes @ self._items.shelves.T)), 1)  # (b, shelves): moods follow tastes
        shelf = (lean < moods[:, None] * lean[:, -1:]).sum(1)
        wanted = (tastes + MOOD * self._items.shelves[shelf]).astype(np.float32)
        logits = FOCUS * (wanted @ self._items.vectors[:items].T) + self._items.appeal(items, time)
        weights: F32 = np.cumsum(np.exp(logits - logits.max(1, keepdims=True)), 1)
        return weights

    def _play(self, course: _Course, session: _Session, weights: F32) -> None:
        """Push the events of one session."""
        time, item = session.start, -1
        consumed = course.consumed.setdefault(session.user, set())
        found = np.searchsorted(weights, session.draws[:, :TRIES] * weights[-1])  # (picks, TRIES)
        for row, draw in zip(found.tolist(), session.draws[:, TRIES:].tolist(), strict=True):
            sequel = self._items.sequel(item, course.published) if item >= 0 and draw[0] < SEQUEL else -1
            fresh = (number for number in (sequel, *row) if number >= 0 and number not in consumed)
            item = min(next(fresh, row[0]), course.published - 1)
            if item in consumed and draw[1] > REVISIT:
                continue
            for action in self._actions(item, item in consumed, draw[1]):
                course.push(time, "event", _event(session, item, action, time))
                time += 4000 + int(90_000 * draw[2] * draw[2])
                if action != "view":
                    consumed.add(item)

    def _actions(self, item: int, again: bool, draw: float) -> tuple[str, ...]:
        """What the user does with the item picked."""
        if again:
            return ("view",)
        outcome = int(np.searchsorted(OUTCOMES, draw, side="right"))
        shown = ("view",) if outcome in (0, 2, 4) else ()
        if outcome == 0:
            return shown
        if outcome < 3:
            return (*shown, "click")
        return (*shown, "purchase" if self._items.for_sale(item) else "like")


def user_id(number: int) -> str:
    """The id of user `number`, from 0."""
    return f"u-{number + 1:04}"


def _event(session: _Session, item: int, action: str, time: int) -> dict[str, Any]:
    """The data of an `events` record; its id comes with its place in the stream."""
    return {
        "user_id": user_id(session.user),
        "item_id": item_id(item),
        "action": action,
        "time": time,
        "session_id": session.id,
    }


def _shares(draws: F64) -> F64:
    """How active users are: a long tail, the busiest thirty times the laziest."""
    shares: F64 = np.exp(3.4 * draws)
    return shares
