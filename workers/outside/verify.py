"""Compare the store with what the log and `states` say it must hold, while workers run or not.

The log is replayed from its beginning, or where that is gone from a cut: a state before the cut comes from `states`,
where the record that stood at the cut is certainly there while the cut is younger than the compaction lag. A user is
compared at the event that the store had of them when it was read, so what moves on meanwhile is no difference.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple

from pipeline.blob import BlobError, decode, durable
from workers import topics
from workers.outside.announced import Announcements, Cut, announcements
from workers.outside.letters import refused_events
from workers.outside.offsets import EMPTY, problem
from workers.outside.replay import Known, Replay, from_announced, lenient
from workers.replica import LogReader, Span, log_reader
from workers.settings import Settings
from workers.store import Position, Store, UserRead
from workers.wire.errors import WireError
from workers.wire.ids import id_from_key
from workers.wire.marker import Marker, read_marker

_CUT_MS = 12 * 3_600_000  # half of the compaction lag of `states`: clocks differ, and reading takes its time
_READ = 500  # users asked for at once
_NOWHERE = Position(0, 0, 0, "")
_UNREADABLE = b"unreadable"


class Held(NamedTuple):
    """A user's state in the store."""

    offset: int  # of the last event in it; -1 = none, or no state that can be read
    digest: bytes  # of its durable part


class Difference(NamedTuple):
    """What is not as it must be, of one user."""

    user: str
    what: str


@dataclass(slots=True)
class Checked:
    """What was found of one partition."""

    partition: int
    log: Span
    position: Position | None
    replayed_from: int = 0
    events: int = 0  # replayed
    users: int = 0  # compared
    moved: int = 0  # left out: they had more events while we looked
    expired: int = 0  # left out: without an event for so long that the store has dropped them
    expected: str = ""  # digest over all users compared
    found: str = ""
    differences: list[Difference] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether all is as it must be."""
        return not self.differences and not self.problems


async def verify(settings: Settings) -> AsyncIterator[Checked]:
    """Check each partition. Raises StoreRefused where no worker would start, LogCut when retention is faster."""
    store = await Store.connect(settings)
    try:
        await store.check()
        await topics.check(settings)
        async with log_reader(settings) as reader:
            async for checked in _Verification(settings, store, reader).run():
                yield checked
    finally:
        await store.close()


class _Verification:
    """One look at store and topics, taken in this order: positions, states, positions again, logs."""

    def __init__(self, settings: Settings, store: Store, reader: LogReader) -> None:
        self._settings, self._store, self._reader = settings, store, reader
        self._now = round(time.time() * 1000)

    async def run(self) -> AsyncIterator[Checked]:
        """Check each partition."""
        settings, reader = self._settings, self._reader
        partitions = range(settings.kafka.partitions)
        before = await self._store.positions(partitions)
        held = await self._held()
        after = await self._store.positions(partitions)
        events = await reader.spans(settings.topic("events"))
        states = await reader.spans(settings.topic("states"))
        refused = await refused_events(reader, settings)
        cuts = await self._cuts(events, before)
        for p in sorted({*partitions, *held}):  # the store may have keys of partitions that are none
            log, cut = events.get(p, EMPTY), cuts.get(p, Cut(0, 0))
            said = await announcements(reader, settings, p, states.get(p, EMPTY), cut)
            problems = [*filter(None, [problem(log, before.get(p))]), *said.unreadable]
            checked = Checked(p, log, before.get(p), problems=problems)
            replay = Replay(lenient(settings), p, settings.model.dimension, refused.get(p, set()))
            mine = _Partition(settings, self._store, checked, held.get(p, {}), said, replay, self._now)
            await mine.replay(reader, cut, after.get(p, _NOWHERE).next)
            await mine.compare()
            yield checked

    async def _cuts(self, events: dict[int, Span], positions: dict[int, Position]) -> dict[int, Cut]:
        """Where each partition's replay begins: at 0, or in a log that was cut as late as `states` is surely whole."""
        old = [p for p, span in events.items() if span.begin]
        topic = self._settings.topic("events")
        since = await self._reader.written_since(topic, old, self._now - _CUT_MS)
        cuts = {p: Cut(0, 0) for p in events}
        for p in old:
            begin, position = events[p].begin, positions.get(p, _NOWHERE)
            cuts[p] = Cut(begin, max(begin, min(since.get(p, position.next), position.sent, position.next)))
        return cuts

    async def _held(self) -> dict[int, dict[str, Held]]:
        """Every state in the store; some 300 bytes a user."""
        held: dict[int, dict[str, Held]] = {}
        async for found in self._store.scan_users("u"):
            users: dict[int, list[str]] = {}
            for partition, user in found:
                users.setdefault(partition, []).append(user)
            for partition, reads in (await self._store.read_many(users)).items():
                for user, one in zip(users[partition], _digests(reads), strict=True):
                    if one is not None:
                        held.setdefault(partition, {})[user] = one
        return held


class _Partition:
    """The comparison of one partition."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        checked: Checked,
        held: dict[str, Held],
        said: Announcements,
        replay: Replay,
        now: int,
    ) -> None:
        self._store, self._checked, self._held, self._said, self._replay = store, checked, held, said, replay
        self._now, self._ttl_ms = now, round(1000 * store.state_ttl_s)
        self._next, self._sent = (checked.position or _NOWHERE)[:2]
        self._met: set[str] = set()  # users whose markers were asked for
        self._later = {user.encode(): one.offset + 1 for user, one in held.items() if one.offset >= self._next}
        self._topic = settings.topic("events")

    async def replay(self, reader: LogReader, cut: Cut, next_: int) -> None:
        """Replay the log from the cut to `next_`, of each user no further than the store had come when it was read: of
        some that may be further, as everywhere in a store that was just rebuilt."""
        newest = max((one.offset for one in self._held.values()), default=-1)
        end = min(max(next_, newest + 1), self._checked.log.end)
        begin = self._checked.replayed_from = max(min(self._said.first, cut.at), cut.begin)
        for user, said in self._said.base.items():
            if not said.blob or said.written + self._ttl_ms >= self._now - _CUT_MS:
                self._replay.users[user] = from_announced(said, None)
        async for records in reader.read(self._topic, self._checked.partition, begin, end):
            await self._mark({record.key for record in records}, max(begin, 1))
            self._replay.take(records, lambda key: self._later.get(key or b"", self._next))
        self._checked.events = self._replay.events

    async def _mark(self, keys: Iterable[bytes | None], first: int) -> None:
        """A forget before the replay's first offset is known by the marker that it left in the store alone."""
        users = [user for user in map(_user, keys) if user is not None and user not in self._met]
        self._met.update(users)
        async for user, read in self._read(users):
            marker = read_marker(read.marker) if read.marker else None
            known = self._replay.users.get(user, Known(b"", Marker(0, -1), 0))
            if marker is not None and known.marker.version < marker.version <= first:
                self._replay.users[user] = known._replace(marker=marker)

    async def compare(self) -> None:
        """Fill in what was found."""
        expected = {user: known for user, known in self._replay.users.items() if known.blob}
        absent = await self._absent([user for user in expected if user not in self._held], expected)
        self._checked.differences += [Difference(user, "not in the store") for user in absent]
        users = sorted({*self._held, *absent})
        wanted, there = blake2b(digest_size=8), blake2b(digest_size=8)
        for user in users:
            must, has = expected.get(user), self._held.get(user)
            want = _digest(must.blob) if must else b""
            wanted.update(user.encode() + want)
            there.update(user.encode() + (has.digest if has else b""))
            if has is not None and want != has.digest:
                what = "another state than the log makes" if must else "in the store, but not in the log"
                self._checked.differences.append(Difference(user, what))
        self._checked.users = len(users)
        self._checked.expected, self._checked.found = wanted.hexdigest(), there.hexdigest()
        self._compare_announced()
        await self._compare_markers()

    async def _absent(self, users: Sequence[str], expected: dict[str, Known]) -> list[str]:
        """Of users that the store did not have when it was scanned those that it must have had."""
        missing = []
        async for user, read in self._read(users):
            version = read_marker(read.marker).version if read.marker else 0
            if _offset(read.blob) >= self._next or version > self._next:
                self._checked.moved += 1
            elif version > _offset(expected[user].blob) + 1:
                continue  # forgotten, before the replay and unannounced: the marker is all that knows
            elif expected[user].written + self._ttl_ms < self._now:
                self._checked.expired += 1
            else:
                missing.append(user)
        return missing

    def _compare_announced(self) -> None:
        """The last record of each user in `states` must be what the store holds, as far as that is announced."""
        for user, has in self._held.items():
            said = self._said.newest.get(user)
            if has.digest == _UNREADABLE:
                continue
            if said is None or said.offset < has.offset:
                if has.offset < self._sent:
                    self._checked.differences.append(Difference(user, "not announced"))
            elif said.offset == has.offset and said.blob and _digest(said.blob) != has.digest:
                self._checked.differences.append(Difference(user, "announced otherwise"))

    async def _compare_markers(self) -> None:
        """Who was forgotten must have a marker as long as it lives."""
        forgotten = {u: known for u, known in self._replay.users.items() if 0 < known.marker.version <= self._next}
        ttl_ms = round(1000 * self._store.marker_ttl_s)
        async for user, read in self._read(list(forgotten)):
            known = forgotten[user]
            marker = read_marker(read.marker) if read.marker else Marker(0, -1)
            gone = not read.marker and known.written + ttl_ms < self._now
            if not gone and marker != known.marker and marker.version <= self._next:
                self._checked.differences.append(Difference(user, "forgotten, but the marker does not say so"))

    async def _read(self, users: Sequence[str]) -> AsyncIterator[tuple[str, UserRead]]:
        for at in range(0, len(users), _READ):
            chunk = users[at : at + _READ]
            for user, read in zip(chunk, await self._store.read_users(self._checked.partition, chunk), strict=True):
                yield user, read


def _digests(reads: Sequence[UserRead]) -> list[Held | None]:
    """Of each state read; None = there was none any more. What is no state has a digest that nothing has."""
    blobs = [blob for blob, _ in reads]
    try:
        offsets = decode(blobs).last_offset.tolist()
    except BlobError:
        return [held for read in reads for held in _digests([read])] if len(reads) > 1 else [Held(-1, _UNREADABLE)]
    return [Held(at, _digest(blob)) if blob else None for at, blob in zip(offsets, blobs, strict=True)]


def _digest(blob: bytes) -> bytes:
    return blake2b(durable(blob), digest_size=16).digest()


def _offset(blob: bytes) -> int:
    return int(decode([blob]).last_offset[0])


def _user(key: Any) -> str | None:
    try:
        return id_from_key(key, "user id")
    except WireError:
        return None
