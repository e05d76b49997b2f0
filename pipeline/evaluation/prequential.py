"""The loop: for each event its user's state and query as they were before it, the rank of what was chosen, then learn.

The objects are those that serve live: states by `advance`, queries by `queries_from`, lists by `shortlist` with
truncated sources, filters, ranker and guards, lessons by `lessons_from`, learning by `Learner`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from pipeline.blob import States, decode
from pipeline.candidates import Candidates, ranks
from pipeline.catalog import Catalog
from pipeline.evaluation.baselines import NAMES, Baselines, rank_of
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
from pipeline.types import F64, FORGETS, I16, I64, POSITIVE, Mask, Rows

CUT = 10  # places whose items count as shown
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


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of q queries, in order, and of the items."""

    event: I64  # (q,) place in the stream
    user: I64  # (q,)
    history: I64  # (q,) positive events of the user before it
    age: I64  # (q,) ms since the chosen item was first seen; -1 = never
    repeat: Mask  # (q,) the user had chosen the item before
    candidates: I64  # (q,) how many were ranked
    rank: F64  # (q,) of the chosen item after filters and guards; inf = a miss
    arranged: F64  # (q,) as the arrangers placed it
    baselines: F64  # (q, b) by each of baselines.NAMES; b = 0 without them
    sources: tuple[str, ...]  # s names
    proposed: I16  # (q, s) the best rank each source gave the chosen item, 0 = none
    shown: I64  # (n,) how often each item that is present in the end stood among the first CUT
    events: int  # of the stream
    learned: int  # of them
    reset: int  # rows of the model that were not finite
    query_s: float
    learn_s: float


@dataclass(slots=True)
class _Notes:
    """Columns of Outcomes, while they grow."""

    event: list[int] = field(default_factory=list)
    user: list[int] = field(default_factory=list)
    history: list[int] = field(default_factory=list)
    age: list[int] = field(default_factory=list)
    repeat: list[bool] = field(default_factory=list)
    candidates: list[int] = field(default_factory=list)
    rank: list[float] = field(default_factory=list)
    arranged: list[float] = field(default_factory=list)
    baselines: list[F64] = field(default_factory=list)
    proposed: list[I16] = field(default_factory=list)


class Prequential:
    """One pass over a stream. `clock` gives seconds of CPU, for the costs."""

    def __init__(self, stream: Stream, setup: Setup, clock: Callable[[], float] = lambda: 0.0) -> None:
        self.model = Model(ItemRows(), setup.dimension)
        self.catalog = Catalog(self.model.rows, setup.unlisted, ENCODING.dimension)
        self.learner = Learner(self.model, setup.seed, setup.negatives)
        self._stream, self._setup, self._clock = stream, setup, clock
        self._baselines = Baselines(self.model, self.catalog, setup.recipe) if setup.baselines else None
        self._blobs: dict[int, bytes] = {}
        self._markers: dict[int, tuple[I64, I64]] = {}  # of users that were forgotten
        self._chosen: set[tuple[int, int]] = set()  # user, item
        self._arrived = 0
        self._sources: tuple[str, ...] = ()
        self._notes = _Notes()
        self._shown = self.model.rows.column((), np.int64, 0)
        self._learned, self._query_s, self._learn_s = 0, 0.0, 0.0

    def run(self, progress: Callable[[int], None] = lambda _: None) -> Outcomes:
        """Go through the stream; `progress` is told of every event done."""
        for at in range(len(self._stream)):
            self._publish(at)
            self._step(at)
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
        self._shown.data[found.rows[:CUT]] += 1
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
        notes, first_seen = self._notes, int(self.model.trends.first_seen[chosen]) if chosen >= 0 else 0
        place = np.flatnonzero(shown.rows == chosen)
        notes.event.append(at)
        notes.user.append(user)
        notes.history.append(int(queries.history[0]))
        notes.age.append(max(int(self._stream.time[at]) - first_seen, 0) if first_seen else -1)
        notes.repeat.append((user, item) in self._chosen)
        notes.candidates.append(len(found))
        notes.rank.append(rank_of(found.rows, found.scores, chosen))
        notes.arranged.append(float(place[0]) + 1 if len(place) else np.inf)
        notes.proposed.append(self._proposed(found, chosen))
        if self._baselines is not None:
            notes.baselines.append(self._baselines.places(queries, chosen))

    def _proposed(self, found: Candidates, chosen: int) -> I16:
        """(s,) the rank that each source gave the chosen item. A source that failed once fails the run: it is mended
        before it is measured."""
        trail, row = found.trail, np.array([max(chosen, 0)])
        if trail.skipped:
            raise RuntimeError(f"evaluation: the source {trail.skipped[0]} failed; see its tests")
        self._sources, places = ranks(trail.proposals, trail.sources, row, _ZERO, 1, len(self.catalog))
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
        notes, n = self._notes, len(self._notes.event)
        return Outcomes(
            event=np.array(notes.event, np.int64),
            user=np.array(notes.user, np.int64),
            history=np.array(notes.history, np.int64),
            age=np.array(notes.age, np.int64),
            repeat=np.array(notes.repeat, np.bool_),
            candidates=np.array(notes.candidates, np.int64),
            rank=np.array(notes.rank, np.float64),
            arranged=np.array(notes.arranged, np.float64),
            baselines=np.array(notes.baselines, np.float64).reshape(n, len(NAMES) if self._baselines else 0),
            sources=self._sources,
            proposed=np.array(notes.proposed, np.int16).reshape(n, len(self._sources)),
            shown=self._shown.data[: len(self.model.rows)][self.catalog.present()],
            events=len(self._stream),
            learned=self._learned,
            reset=self.learner.reset,
            query_s=self._query_s,
            learn_s=self._learn_s,
        )


_ZERO: Rows = np.zeros(1, np.int64)
_ONE: I64 = np.array((0, 1))
_NO_MARKER: tuple[I64, I64] = (np.array([-1]), np.array([0]))
