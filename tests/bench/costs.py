"""`./dev bench costs [--json] [--recipe NAME]`: CPU time of a query and of an event's lessons, in memory, and how they
grow with items, dimension and history.

No broker and no store: the objects that serve and learn live, on a model that learned the load of `./dev bench lanes`.
A query is all of it, from decoded state to feed with reasons; what is the same for everyone is shared, as live. Lessons
are learned in batches, as a trainer with a backlog does. Compare figures of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TypeVar

import numpy as np

from pipeline.blob import decode
from pipeline.catalog import Catalog, Entry
from pipeline.learning import Learner
from pipeline.lessons import Told, lessons_from
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.queries import NO_ATTRIBUTES, Queries, queries_from
from pipeline.ranking import Learned
from pipeline.recipe import ENCODING, RECIPES
from pipeline.retrieval import Recipe, build_feeds
from pipeline.state import Users, advance, stamp
from pipeline.types import F32, I64, POSITIVE, U64, Events, hash_id, hash_of
from tests.bench.lanes import machine
from tests.bench.load import TASTES, Load
from workers.examples import DRAWS
from workers.feeds import CHUNK
from workers.lessons import action_weights
from workers.settings import load

T = TypeVar("T")

BATCH = 1_000  # events a lesson
ASKED = 512  # queries of a measurement
CHOICES = 256  # choices that the ranker has learned from before anything is measured, and that are measured


@dataclass(frozen=True, slots=True)
class Size:
    """What is measured."""

    items: int = 10_000
    dimension: int = 64
    history: int = 20  # positive events of a user, about

    @property
    def users(self) -> int:
        """As many as make the load what `./dev bench lanes` has: each item about ten times."""
        return max(2_000, 10 * self.items // self.history)


SIZES = (
    Size(),
    Size(items=1_000),
    Size(items=100_000),
    Size(dimension=16),
    Size(dimension=128),
    Size(dimension=256),
    Size(history=3),
    Size(history=60),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds of CPU."""

    size: Size
    candidates: float  # that a query ranks
    alone: float  # a query
    chunk: float  # a query in a chunk of CHUNK
    learn: float  # an event: sequence, co-visitation, trends
    neighbours: float  # an event: neighbourhoods
    choice: float  # a choice that the ranker learns from


class School:
    """A model that learns from a load, and its users."""

    def __init__(self, size: Size) -> None:
        self.size = size
        self.model = Model(ItemRows(), size.dimension, ENCODING.dimension)
        self.catalog = Catalog(self.model.rows, True, ENCODING.dimension)
        self.learner = Learner(self.model, 1, catalog=self.catalog)
        settings = load(environ={})
        self._weights, self._code = action_weights(settings), settings.all_actions()["click"].code
        self.blobs: dict[int, bytes] = {}  # states of its users
        self._offset = 0
        self.learn_s = self.neighbours_s = 0.0
        self.events = 0
        for at in range(size.items):
            self.catalog.put(_entry(at, size.items))

    def attend(self) -> None:
        """Learn the whole load. What is learned after the first half is measured."""
        size = self.size
        count = size.items + size.users * size.history
        events = Load(size.users, size.items).events(count, "costs")
        done = 0
        while batch := list(islice(events, BATCH)):
            users = np.array([int(event["user_id"].removeprefix("user-")) for event in batch])
            items = [event["item_id"] for event in batch]
            times = np.array([event["time"] for event in batch], np.int64)
            self._learn(users, items, times, measured=done >= count // 2)
            done += len(batch)
            if done % (10 * BATCH) == 0:
                self.learner.regroup()

    def _learn(self, users: I64, items: list[str], times: I64, *, measured: bool) -> None:
        order = np.argsort(users, kind="stable")
        names = [items[at] for at in order.tolist()]
        told, who, what = self._told(users[order], names, times[order])
        _, learn_s = _timed(lambda: self.learner.learn(lessons_from(told, self._weights)))
        rows = self.model.rows.find(what)
        _, neighbours_s = _timed(lambda: self.model.neighbourhood.add(who, rows))
        if measured:
            self.learn_s, self.neighbours_s = self.learn_s + learn_s, self.neighbours_s + neighbours_s
            self.events += len(items)

    def _told(self, users: I64, items: list[str], times: I64) -> tuple[Told, U64, U64]:
        """What a `states` record for each user of a batch says; whom and what each event names. Users ascend."""
        m = len(users)
        offsets = self._offset + np.arange(m)
        self._offset += m
        known, first, row = np.unique(users, return_index=True, return_inverse=True)
        hashes = np.array([hash_id(item) for item in items], np.uint64)
        code = np.full(m, self._code, np.uint8)
        ids = offsets.astype(np.uint64) + np.uint64(1)
        effect = np.full(m, POSITIVE, np.uint8)
        before = Users(
            [self.blobs.get(user, b"") for user in known.tolist()],
            np.full(len(known), -1, np.int64),
            np.zeros(len(known), np.int64),
        )
        events = Events(row.astype(np.int64), offsets, times, hashes, ids, code, effect, [])
        advanced = advance(before, events, self.size.dimension)
        blobs = stamp(advanced, np.zeros((len(known), self.size.dimension), np.float32), 0, 0)
        self.blobs.update(zip(known.tolist(), blobs, strict=True))
        told = Told(
            np.zeros(len(known), np.int64), decode(blobs), advanced.evicted_start, advanced.evicted_items,
            advanced.evicted_times, advanced.evicted_actions, np.append(first, m).astype(np.int64), offsets, times,
            hashes, code, items,
        )  # fmt: skip
        return told, np.array([hash_of(f"user-{user}") for user in users.tolist()], np.uint64), hashes

    def ask(self, users: Sequence[int], commons: dict[Hashable, object]) -> Queries:
        """Their queries, a moment after the last event."""
        states = decode([self.blobs[user] for user in users])
        now = np.full(len(users), int(time.time() * 1000), np.int64)
        hashes = np.array([hash_of(f"user-{user}") for user in users], np.uint64)
        return queries_from(states, now, self.model, [NO_ATTRIBUTES] * len(users), commons, hashes)

    def guests(self) -> list[int]:
        """Users to ask for, at random."""
        users = np.array(sorted(self.blobs))
        return list(np.random.default_rng(1).choice(users, ASKED, replace=len(users) < ASKED).tolist())


def cost(size: Size, recipe: Recipe) -> Cost:
    """Measure one size."""
    school = School(size)
    school.attend()
    choice = _choices(school, recipe)
    _queries(school, recipe, CHUNK)  # once for the caches
    chunk, candidates = _queries(school, recipe, CHUNK)
    alone, _ = _queries(school, recipe, 1)
    learn, neighbours = 1e6 * school.learn_s / school.events, 1e6 * school.neighbours_s / school.events
    return Cost(size, *(round(figure, 1) for figure in (candidates, alone, chunk, learn, neighbours, choice)))


def _queries(school: School, recipe: Recipe, together: int) -> tuple[float, float]:
    """Microseconds and candidates a query."""
    commons: dict[Hashable, object] = {}
    guests, spent, candidates = school.guests(), 0.0, 0

    def answer(users: Sequence[int]) -> int:
        feeds = build_feeds(school.ask(users, commons), school.catalog, school.model, recipe)
        return sum(feed.ranked for feed in feeds)

    for begin in range(0, len(guests), together):
        found, took = _timed(lambda users=guests[begin : begin + together]: answer(users))  # type: ignore[misc]
        spent, candidates = spent + took, candidates + found
    return 1e6 * spent / len(guests), candidates / len(guests)


def _choices(school: School, recipe: Recipe) -> float:
    """Let the ranker learn, from choices of what stands fifth, as a trainer does; microseconds a choice."""
    ranker = recipe.ranker
    if not isinstance(ranker, Learned):
        return 0.0
    spent, learned = 0.0, 0
    for user in school.guests()[:CHOICES]:
        queries = school.ask([user], {})
        (feed,) = build_feeds(queries, school.catalog, school.model, recipe)
        (served,) = ranker.served(queries, school.catalog, school.model, [0])
        choice = served.chosen(int(feed.rows[min(4, len(feed.rows) - 1)])) if len(feed.rows) else None
        if choice is not None:
            sampled = choice.sampled(DRAWS, user)
            spent += _timed(lambda choice=sampled: ranker.take_in(school.model, choice))[1]  # type: ignore[misc]
            learned += 1
    return 1e6 * spent / max(learned, 1)


def _entry(at: int, items: int) -> Entry:
    """An item with a category and a creator of its taste."""
    name, taste = f"item-{at}", at // (items // TASTES)
    rng = np.random.default_rng((taste, at))
    content = np.random.default_rng(taste).standard_normal(ENCODING.dimension)
    content += rng.standard_normal(ENCODING.dimension)
    vector: F32 = (content / np.linalg.norm(content)).astype(np.float32)
    return Entry(
        name, hash_id(name), name, (f"taste {taste}",), (), f"creator {at % 500}", True, (), None, 0, 0, at, vector
    )


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.thread_time()
    done = work()
    return done, time.thread_time() - begun


def costs(recipe: str) -> Iterator[Cost]:
    """Each size in turn. The first is measured twice, since kernels compile: the first time does not count."""
    made = RECIPES[recipe]()
    cost(replace(SIZES[0], items=1_000), made)
    for size in SIZES:
        yield cost(size, made)


def main() -> None:
    parser = argparse.ArgumentParser(prog="./dev bench costs", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--recipe", default="home", choices=RECIPES, help="what feeds are made by")
    asked = parser.parse_args()
    conditions = f"{machine()}; recipe {asked.recipe}; load before: {os.getloadavg()[0]:.1f}"
    columns = ("items", "dimension", "history", "candidates", "alone", f"of {CHUNK}", "learn", "neighbours", "choice")
    if not asked.json:
        print(f"{conditions}; microseconds of CPU\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)
    found = []
    for one in costs(asked.recipe):
        found.append(asdict(one))
        if not asked.json:
            size = f"{one.size.items:,} | {one.size.dimension} | {one.size.history}"
            figures = (one.candidates, one.alone, one.chunk, one.learn, one.neighbours, one.choice)
            print(f"| {size} | {' | '.join(f'{figure:,.1f}' for figure in figures)} |", flush=True)
    if asked.json:
        print(json.dumps({"conditions": conditions, "unit": "us of CPU", "rows": found}))


if __name__ == "__main__":
    main()
