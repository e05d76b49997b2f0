"""The loop: for each event its user's state and query as they were before it, the rank of what was chosen, then learn.

The objects are those that serve live: states by `advance`, queries by `queries_from`, lists by `shortlist` with
truncated sources, filters, ranker and guards, lessons by `lessons_from`, learning by `Learner`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pipeline.blob import States, decode
from pipeline.candidates import Candidates, ranks
from pipeline.catalog import Catalog
from pipeline.evaluation.baselines import NAMES, Baselines, rank_of
from pipeline.evaluation.outcomes import Notes, Outcomes
from pipeline.evaluation.stream import Stream
from pipeline.learning import Learner
from pipeline.lessons import Told, lessons_from
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.model.sequence import draw
from pipeline.queries import NO_ATTRIBUTES, Attributes, Queries, queries_from
from pipeline.recipe import ENCODING
from pipeline.retrieval import Recipe, arrange, shortlist
from pipeline.state import Advanced, Outcome, Users, advance
from pipeline.types import F64, FORGETS, I16, I64, POSITIVE, Rows

SHOWN = 10  # places whose items count as shown
FLUSH = 250  # events between what the trainer does to the model at each flush
_DICE = 0x5EED0FEA1  # of the sample: it does not depend on the seed, so that runs are compared on the same queries


@dataclass(frozen=True, slots=True)
class Setup:
    """What is evaluated, and how."""

    recipe: Recipe
    dimension: int = 64
    negatives: int = 100
    seed: int = 1
    unlisted: bool = True  # may items without a catalogue entry be recommended
    sample: int = 1  # query one event in so many; learning takes all
    baselines: bool = True
    profile: Callable[[bytes], Attributes] = lambda _: NO_ATTRIBUTES


class Prequential:
    """One pass over a stream. `clock` gives seconds of CPU, for the costs."""

    def __init__(self, stream: Stream, setup: Setup, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.model = Model(ItemRows(), setup.dimension, ENCODING.dimension)
        self.catalog = Catalog(self.model.rows, setup.unlisted, ENCODING.dimension)
        self.learner = Learner(self.model, setup.seed, setup.negatives, self.catalog)
        self._stream, self._setup, self._clock = stream, setup, clock
        self._baselines = Baselines(self.model, self.catalog, setup.recipe) if setup.baselines else None
        self._blobs: dict[int, bytes] = {}
        self._markers: dict[int, tuple[I64, I64]] = {}  # of users that were forgotten
        self._chosen: set[tuple[int, int]] = set()  # user, item
        self._arrived = 0
        self._sources: tuple[str, ...] = ()
        self._notes = Notes()
        self._shown = self.model.rows.column((), np.int64, 0)
        self._learned, self._query_s, self._learn_s = 0, 0.0, 0.0

    def run(self, progress: Callable[[int], None] = lambda _: None) -> Outcomes:
        """Go through the stream; `progress` is told of every event done."""
        for at in range(len(self._stream)):
            self._publish(at)
            self._step(at)
            if at % FLUSH == FLUSH - 1:
                self.learner.regroup()
            progress(at + 1)
        self._publish(len(self._stream))
        return self._outcomes()

    def _publish(self, at: int) -> None:
        """Items that enter the catalogue before event `at`."""
        arrivals = self._stream.arrivals
        while self._arrived < len(arrivals) and arrivals[self._arrived][0] <= at:
            self.catalog.put(arrivals[self._arrived][1])
            self._arrived += 1

    def _step(self, at: int) -> None:
        """One event: test, then learn."""
        user = int(self._stream.user[at])
        before = self._blobs.get(user, b"")
        advanced = self._advance(at, user, before)
        if advanced.outcome[0] != Outcome.APPLIED:
            return
        self._blobs[user] = advanced.buffer.tobytes()
        item = int(self._stream.item[at])
        if self._stream.effect[at] & FORGETS:
            self.model.neighbourhood.forget(int(self._stream.user_hash[user]))
        if self._stream.effect[at] & POSITIVE and item:
            if draw(np.uint64(_DICE), at) % np.uint64(self._setup.sample) == 0:
                self._test(at, user, before, item)
            self._learn(at, advanced)
            self._chosen.add((user, item))

    def _advance(self, at: int, user: int, before: bytes) -> Advanced:
        time, version = self._markers.get(user, _NO_MARKER)
        advanced = advance(Users([before], time, version), self._stream.event(at), self._setup.dimension)
        if advanced.forgotten_version[0]:
            self._markers[user] = advanced.forgotten_time, advanced.forgotten_version
        return advanced

    # ---------------------------------------------------------------- test
    def _test(self, at: int, user: int, before: bytes, item: int) -> None:
        """Ask as of the event's time, and note where the chosen item stands."""
        begun = self._clock()
        queries = self._queries(at, user, decode([before]))
        found = shortlist(queries, self.catalog, self.model, self._setup.recipe)
        shown = arrange(queries, self.catalog, self.model, found, self._setup.recipe.arrangers)
        self._query_s += self._clock() - begun
        chosen = int(self.model.rows.find(self._stream.item[at : at + 1])[0])
        self._shown.data[found.rows[:SHOWN]] += 1
        self._note(at, user, item, queries, chosen, found, shown)
        begun = self._clock()
        self._learn_to_rank(queries, found, chosen)
        self._learn_s += self._clock() - begun

    def _queries(self, at: int, user: int, states: States) -> Queries:
        attributes = [self._setup.profile(raw) if raw else NO_ATTRIBUTES for raw in states.attributes]
        users = self._stream.user_hash[user : user + 1]
        return queries_from(states, self._stream.time[at : at + 1], self.model, attributes, users=users)

    def _note(
        self, at: int, user: int, item: int, queries: Queries, chosen: int, found: Candidates, shown: Candidates
    ) -> None:
        first_seen = int(self.model.trends.first_seen[chosen]) if chosen >= 0 else 0
        place = np.flatnonzero(shown.rows == chosen)
        self._notes.add(
            event=at,
            user=user,
            history=int(queries.history[0]),
            age=max(int(self._stream.time[at]) - first_seen, 0) if first_seen else -1,
            repeat=(user, item) in self._chosen,
            candidates=len(found),
            rank=rank_of(found.rows, found.scores, chosen),
            arranged=float(place[0]) + 1 if len(place) else np.inf,
            proposed=self._proposed(found, chosen),
            baselines=self._baselines.places(queries, chosen) if self._baselines is not None else _NO_PLACES,
        )

    def _proposed(self, found: Candidates, chosen: int) -> I16:
        """(s,) the rank that each source gave the chosen item. A source that failed once fails the run: it is mended
        before it is measured."""
        trail, row = found.trail, np.array([max(chosen, 0)])
        if trail.skipped:
            raise RuntimeError(f"evaluation: the source {trail.skipped[0]} failed; see its tests")
        self._sources, places = ranks(trail.lists, trail.sources, row, _ZERO, len(self.catalog))
        found_at: I16 = places[0] if chosen >= 0 else np.zeros_like(places[0])
        return found_at

    # ---------------------------------------------------------------- learn
    def _learn_to_rank(self, queries: Queries, found: Candidates, chosen: int) -> None:
        """A ranker that learns does so from each query's own candidates, before the model has moved."""
        learn = getattr(self._setup.recipe.ranker, "learn", None)
        if learn is not None:
            learn(queries, self.catalog, self.model, found, np.array([chosen]))

    def _learn(self, at: int, advanced: Advanced) -> None:
        """As the trainer does from what the `states` record of this event tells, and retrieval from `recent`."""
        begun = self._clock()
        learned = self.learner.learn(lessons_from(self._told(at, advanced), self._stream.weights))
        user, row = self._stream.user[at], self.model.rows.rows(self._stream.item[at : at + 1])
        self.model.neighbourhood.add(self._stream.user_hash[user : user + 1], row)
        self._learn_s += self._clock() - begun
        self._learned += learned.learned
        if self._baselines is not None and learned.learned:
            self._baselines.count(int(row[0]))

    def _told(self, at: int, advanced: Advanced) -> Told:
        stream, one = self._stream, slice(at, at + 1)
        return Told(
            partition=np.zeros(1, np.int64),
            states=decode([self._blobs[int(stream.user[at])]]),
            evicted_start=advanced.evicted_start,
            evicted_items=advanced.evicted_items,
            evicted_times=advanced.evicted_times,
            evicted_actions=advanced.evicted_actions,
            fresh_start=_ONE,
            offset=np.array([at]),
            time=stream.time[one],
            item=stream.item[one],
            action=stream.action[one],
            item_ids=[stream.item_ids[at]],
        )

    def _outcomes(self) -> Outcomes:
        return self._notes.done(
            sources=self._sources,
            baselines=len(NAMES) if self._baselines is not None else 0,
            shown=self._shown.data[: len(self.model.rows)][self.catalog.present()],
            events=len(self._stream),
            learned=self._learned,
            reset=self.learner.reset,
            query_s=self._query_s,
            learn_s=self._learn_s,
        )


_NO_PLACES: F64 = np.empty(0)
_ZERO: Rows = np.zeros(1, np.int64)
_ONE: I64 = np.array((0, 1))
_NO_MARKER: tuple[I64, I64] = (np.array([-1]), np.array([0]))
