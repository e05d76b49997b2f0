"""The embedding worker: events in, user states moved in the store, states announced."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import structlog

from pipeline.embedding import compose
from pipeline.model import Model
from pipeline.state import Advanced, Outcome, Users, advance, stamp, together
from pipeline.types import FORGETS, POSITIVE, Events, Mask
from workers.announcing import Announcer, by_user
from workers.positions import Batch, Result
from workers.settings import Settings
from workers.state_cache import StateCache
from workers.store import Store, UserRead, Write
from workers.wire.dead_letter import BadRecord
from workers.wire.errors import expectation
from workers.wire.event import EventBatch, Rules, read_events
from workers.wire.marker import Marker, read_marker, write_marker
from workers.wire.output import Output
from workers.wire.state import pack_ring

log = structlog.get_logger()

_COUNTERS = 100
_TOGETHER = 1024  # events that are applied in one call, if that many wait
_TWO_BYTES = (np.ones(1, np.uint8), np.full(1, POSITIVE, np.uint8))  # action and effect of a view
_NO_MARKER = Marker(version=0, time=-1)


@dataclass(frozen=True, slots=True)
class _Work:
    """A batch, what its records say, and its users before it."""

    batch: Batch
    read: EventBatch
    users: Users


@dataclass(frozen=True, slots=True)
class _Moved:
    """A batch that was applied in memory."""

    work: _Work
    advanced: Advanced
    blobs: list[bytes]  # of its users after it; b"" = no state


@dataclass(slots=True)
class _Change:
    """What a batch will have changed, once the store has it."""

    users: list[str]
    blobs: list[bytes]
    markers: dict[str, Marker]
    counts: Counter[str]


class EmbeddingHandler:
    """Moves states by events. Its cache belongs to the lane's claims: see `Lane` on `stored` and `drop`."""

    def __init__(self, settings: Settings, store: Store, rules: Rules, model: Model) -> None:
        self.counts: Counter[str] = Counter()
        self._settings, self._store, self._rules, self._model = settings, store, rules, model
        self._announcer = Announcer(settings)
        self._cache = StateCache(settings.users.cache)
        self._changes: dict[int, _Change] = {}

    def warm_up(self) -> None:
        """Load the kernels."""
        one = np.ones(1, np.int64)
        event = Events(0 * one, one, one, one.astype(np.uint64), one.astype(np.uint64), *_TWO_BYTES, [])
        advanced = advance(Users([b""], -one, 0 * one), event, self._settings.model.dimension)
        stamp(advanced, compose(advanced.rings, advanced.last_time, self._model), 0, 0)

    async def handle(self, batches: list[Batch]) -> list[Result]:
        """States and announcements of each batch; nothing is changed before `stored`."""
        now = int(time.time() * 1000)
        self._changes.clear()
        reads = [read_events(batch.records, self._rules, batch.partition, now) for batch in batches]
        cold = {batch.partition: self._cold(batch, read) for batch, read in zip(batches, reads, strict=True)}
        found = await self._store.read_many(cold) if any(cold.values()) else {}
        results, works = {}, []
        for batch, read in zip(batches, reads, strict=True):
            known = dict(zip(cold[batch.partition], found.get(batch.partition, []), strict=True))
            users = self._users(batch, read, known)
            if batch.again:
                results[batch.partition] = self._announce_again(batch, read, users, now)
            else:
                works.append(_Work(batch, read, users))
        for some in _in_groups(works):
            for moved in self._advanced(some, now):
                results[moved.work.batch.partition] = self._result(moved, now)
        return [results[batch.partition] for batch in batches]

    def stored(self, result: Result) -> None:
        """The batch is in the store: its states are the ones to go on from."""
        change = self._changes.pop(result.batch.partition, None)
        if change is None:
            return
        for user in self._cache.put(result.batch.partition, change.users, change.blobs, change.markers):
            self._rules.forget(user)  # nothing in this process shall name who has no state
        self._count(change.counts)

    def _count(self, counts: Counter[str]) -> None:
        """Add up; of unknown actions only the first names have a counter of their own: producers choose them."""
        for name, times in counts.items():
            crowded = name.startswith("unknown:") and name not in self.counts and len(self.counts) >= _COUNTERS
            self.counts["unknown:(more)" if crowded else name] += times

    def drop(self, partition: int) -> None:
        """Forget what is cached of a partition."""
        self._cache.drop(partition)
        self._changes.pop(partition, None)

    def _cold(self, batch: Batch, read: EventBatch) -> list[str]:
        """Users whose states must be read: all of them where a batch is announced again."""
        known = {} if batch.again else self._cache.blobs(batch.partition)
        cold = [user for user in read.users if user not in known]
        self.counts["cold_users"] += len(cold)
        return cold

    def _users(self, batch: Batch, read: EventBatch, found: dict[str, UserRead]) -> Users:
        """States and forget markers before the batch, from the cache or just read."""
        cached = self._cache.blobs(batch.partition)
        marked = {user: read_marker(known.marker) for user, known in found.items() if known.marker}
        n = len(read.users)
        users = Users(
            blobs=[found[user].blob if user in found else cached[user] for user in read.users],
            forgotten_time=np.full(n, -1, np.int64),
            forgotten_version=np.zeros(n, np.int64),
        )
        markers = {**self._cache.markers(batch.partition), **marked}
        if markers:
            for i, user in enumerate(read.users):
                marker = markers.get(user, _NO_MARKER)
                users.forgotten_time[i], users.forgotten_version[i] = marker.time, marker.version
        return users

    # ---------------------------------------------------------------- new events
    def _advanced(self, some: Sequence[_Work], now: int) -> list[_Moved]:
        """The batches at once: what a call costs is spent once, however many partitions brought an event.

        Should that fail, batch by batch; should one fail, event by event, so that one failing event costs only itself.
        """
        try:
            whole = advance(
                *together([(work.users, work.read.events) for work in some]), self._settings.model.dimension
            )
        except Exception as error:  # pure code that fails would fail again: find whose fault it is
            log.warning("a batch could not be applied at once", error=f"{type(error).__name__}: {expectation(error)}")
            if len(some) > 1:
                return [moved for work in some for moved in self._advanced([work], now)]
            work, whole = self._without_failing(some[0], now)
            some = [work]
        vectors = compose(whole.rings, whole.last_time, self._model)
        blobs = stamp(whole, vectors, self._model.epoch, self._model.version)
        moved, user, event = [], 0, 0
        for work in some:
            users = slice(user, user + len(work.users))
            events = slice(event, event + len(work.read.events))
            moved.append(_Moved(work, whole.part(users, events), blobs[users]))
            user, event = users.stop, events.stop
        return moved

    def _result(self, moved: _Moved, now: int) -> Result:
        batch, read, users = moved.work.batch, moved.work.read, moved.work.users
        advanced, events = moved.advanced, moved.work.read.events
        applied = advanced.outcome == Outcome.APPLIED
        announced = applied & (events.offset >= advanced.forgotten_version[events.user])
        writes, outputs = self._effects(batch, read, users, advanced, moved.blobs, by_user(read, announced))
        outcomes = _outcomes(advanced, read)
        self._changes[batch.partition] = _Change(read.users, moved.blobs, _markers(read, advanced), outcomes)
        outputs += self._announcer.others(batch.partition, read, applied, now)
        return Result(batch, writes=writes, outputs=outputs)

    def _effects(
        self,
        batch: Batch,
        read: EventBatch,
        users: Users,
        advanced: Advanced,
        blobs: list[bytes],
        fresh: list[list[int]],
    ) -> tuple[list[Write], list[Output]]:
        """What to store and to say of each user that the batch changed."""
        writes: list[Write] = []
        outputs: list[Output] = []
        forgotten = (advanced.forgotten_version > users.forgotten_version).tolist()
        evicted = _evicted(advanced)
        state_key, ttl = self._store.state_key, self._store.state_ttl_s
        for i, user in enumerate(read.users):
            if forgotten[i]:
                marker = Marker(int(advanced.forgotten_version[i]), int(advanced.forgotten_time[i]))
                writes += self._forget(batch.partition, user, marker)
                outputs.append(self._announcer.tombstone(batch.partition, user, marker))
            if fresh[i]:
                writes.append(Write(state_key(batch.partition, user), ttl, blobs[i]))
                outputs.append(self._announcer.state(batch.partition, user, blobs[i], evicted[i], fresh[i], read))
        return writes, outputs

    def _without_failing(self, work: _Work, now: int) -> tuple[_Work, Advanced]:
        """A batch that cannot be applied at once, without the events that cannot be applied."""
        batch, read = work.batch, work.read
        bad = self._failing(batch, read, work.users, now)
        failing = {id(one.record) for one in bad}
        good = [record for record in batch.records if id(record) not in failing]
        kept = read_events(good, self._rules, batch.partition, now)
        kept.bad.extend(bad)
        row = {user: i for i, user in enumerate(read.users)}
        users = _Rows(work.users).take([row[user] for user in kept.users])
        return _Work(batch, kept, users), advance(users, kept.events, self._settings.model.dimension)

    def _failing(self, batch: Batch, read: EventBatch, users: Users, now: int) -> list[BadRecord]:
        """The records whose events cannot be applied, found one by one from clean rows."""
        bad, rows = [], _Rows(users)
        for at, i in zip(read.positions, read.events.user.tolist(), strict=True):
            one = read_events([batch.records[at]], self._rules, batch.partition, now)
            try:
                rows.put(i, advance(rows.take([i]), one.events, self._settings.model.dimension))
            except Exception as error:
                bad.append(BadRecord(batch.records[at], "update", str(error), type(error).__name__))
        return bad

    def _forget(self, partition: int, user: str, marker: Marker) -> list[Write]:
        """Erase the user: no state, no cached feed, a marker that nothing older passes."""
        store = self._store
        return [
            Write(store.state_key(partition, user), 1, b""),
            Write(store.feed_key(partition, user), 1, b""),
            Write(store.marker_key(partition, user), store.marker_ttl_s, write_marker(marker)),
        ]

    # ---------------------------------------------------------------- announcements
    def _announce_again(self, batch: Batch, read: EventBatch, users: Users, now: int) -> Result:
        """What a batch that is in the store already should have said: states as they are now, without `evicted`."""
        events = read.events
        valid = (events.time > users.forgotten_time[events.user]) & (
            events.offset >= users.forgotten_version[events.user]
        )
        valid &= (events.effect & FORGETS) == 0
        outputs = []
        fresh = by_user(read, valid & _first_of_its_id(events))
        for at in np.flatnonzero((events.effect & FORGETS) != 0).tolist():
            marker = Marker(int(events.offset[at]) + 1, int(events.time[at]))
            outputs.append(self._announcer.tombstone(batch.partition, read.users[int(events.user[at])], marker))
        for i, user in enumerate(read.users):
            if not users.blobs[i]:
                self._rules.forget(user)
            elif fresh[i]:
                outputs.append(self._announcer.state(batch.partition, user, users.blobs[i], None, fresh[i], read))
        self._changes[batch.partition] = _Change([], [], {}, Counter(announced_again=len(batch.records)))
        return Result(batch, outputs=outputs + self._announcer.others(batch.partition, read, valid, now))


class _Rows:
    """Users that can be taken apart and put back, for the way event by event."""

    def __init__(self, users: Users) -> None:
        self._blobs = list(users.blobs)
        self._time, self._version = users.forgotten_time.copy(), users.forgotten_version.copy()

    def take(self, rows: list[int]) -> Users:
        """The users of `rows`, as they are now."""
        return Users([self._blobs[i] for i in rows], self._time[rows], self._version[rows])

    def put(self, row: int, advanced: Advanced) -> None:
        """User `row`, advanced alone."""
        self._blobs[row] = advanced.buffer[advanced.start[0] : advanced.start[1]].tobytes()
        self._time[row], self._version[row] = advanced.forgotten_time[0], advanced.forgotten_version[0]


def _in_groups(works: Sequence[_Work]) -> Iterator[list[_Work]]:
    """In runs of about _TOGETHER events: larger ones gain nothing and need more memory at a time."""
    some: list[_Work] = []
    events = 0
    for work in works:
        some.append(work)
        events += len(work.read.events)
        if events >= _TOGETHER:
            yield some
            some, events = [], 0
    if some:
        yield some


def _first_of_its_id(events: Events) -> Mask:
    """(m,) False where a user's earlier event of the batch has the same id."""
    keys = np.stack([events.user.astype(np.uint64), events.id], 1)
    first = np.zeros(len(events), np.bool_)
    first[np.unique(keys, axis=0, return_index=True)[1]] = True
    first[events.id == 0] = True
    return first


def _evicted(advanced: Advanced) -> list[bytes]:
    """What the batch pushed out of each user's ring, packed; most often nothing."""
    items, times, actions = advanced.evicted_items, advanced.evicted_times, advanced.evicted_actions
    bounds = pairwise(advanced.evicted_start.tolist())
    return [pack_ring(items[i:j], times[i:j], actions[i:j]) if i < j else b"" for i, j in bounds]


def _markers(read: EventBatch, advanced: Advanced) -> dict[str, Marker]:
    """The markers of the batch's users that were ever forgotten."""
    return {
        read.users[i]: Marker(int(advanced.forgotten_version[i]), int(advanced.forgotten_time[i]))
        for i in np.flatnonzero(advanced.forgotten_version > 0).tolist()
    }


def _outcomes(advanced: Advanced, read: EventBatch) -> Counter[str]:
    found = np.bincount(advanced.outcome, minlength=len(Outcome) + 1)
    counts = Counter({outcome.name.lower(): int(found[outcome]) for outcome in Outcome if found[outcome]})
    counts["dead_letters"] += len(read.bad)
    counts["rerouted"] += len(read.astray)
    for name, times in read.unknown.items():
        counts[f"unknown:{name}"] += times
    return counts
