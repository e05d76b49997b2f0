"""Write the users of a prefix into the store again, from `states`: its own, or those of another prefix.

From its own: the record with the greatest offset of each user, then `next = sent =` the log's beginning. A worker then
reads the whole retained log, and the offset inside each state skips what it holds.
From another (other partitions, another dimension): the states are carried over, their offsets before everything in the
new log, and announced again, so that the new prefix can be rebuilt from its own. Events are not copied.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from msgspec.structs import replace

from workers import kafka, topics
from workers.outside.announced import Announced, Announcements, announcements
from workers.outside.offsets import EMPTY
from workers.outside.replay import forget_version, forgets
from workers.producer import Producer
from workers.replica import LogReader, Span, log_reader
from workers.settings import Settings
from workers.store import Rebuilding, Store, Write
from workers.wire.marker import Marker, read_marker, write_marker
from workers.wire.output import Output
from workers.wire.partition import partition_of
from workers.wire.state import CARRIED, StateRecord, carried_over, encode_state, forgotten_headers

_WRITTEN = 500  # users in one call: it blocks the store
_SAID = 2000  # states announced at once


class RebuildRefused(RuntimeError):
    """The users cannot be rebuilt as it was asked; the message says what was found and what to do."""


@dataclass(slots=True)
class Rebuilt:
    """What was written of one partition of `states`."""

    partition: int
    states: int = 0
    forgotten: int = 0
    expired: int = 0  # left out: without events for so long that the store would have dropped them
    surplus: int = 0  # keys that were in the store, and nobody's: deleted
    next: int = 0  # where a worker will begin to read
    unreadable: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Kept:
    """What the store is to have of one partition: writes, and the users that they are of."""

    writes: list[Write] = field(default_factory=list)
    users: set[str] = field(default_factory=set)


async def rebuild(settings: Settings, source: str | None, *, accept_loss: bool = False) -> AsyncIterator[Rebuilt]:
    """Rebuild, a partition of `states` at a time. Raises RebuildRefused, StoreRefused, NotOurs, LogCut.

    It may be broken off at any time: workers refuse the partitions that are not done, and it is begun again.
    """
    if source == settings.prefix:
        raise RebuildRefused(f"rebuild: {source} is this prefix: leave --from out")
    store = await Store.connect(settings)
    try:
        await store.check()
        await topics.check(settings)
        group = settings.topic("embedding")
        if running := await kafka.members(settings, group):
            raise RebuildRefused(f"rebuild: {running} embedding workers run (group {group}): stop them first")
        async with log_reader(settings) as reader:
            work = _Rebuild(settings, store, reader)
            steps = work.own() if source is None else work.carried(source, accept_loss=accept_loss)
            async for rebuilt in steps:
                yield rebuilt
    finally:
        await store.close()


class _Rebuild:
    def __init__(self, settings: Settings, store: Store, reader: LogReader) -> None:
        self._settings, self._store, self._reader = settings, store, reader
        owner = f"rebuild:{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._rebuilding: Rebuilding = store.rebuilding(owner)
        self._now = round(time.time() * 1000)

    # ---------------------------------------------------------------- from the prefix itself
    async def own(self) -> AsyncIterator[Rebuilt]:
        """Partition by partition; each can be claimed as soon as it is done."""
        settings = self._settings
        events = await self._reader.spans(settings.topic("events"))
        states = await self._reader.spans(settings.topic("states"))
        there = await self._there()
        for p in range(settings.kafka.partitions):
            said = await self._said(settings, p, states.get(p, EMPTY), events[p])
            self._check_log(p, events[p], said.newest)
            done = Rebuilt(p, next=events[p].begin, unreadable=said.unreadable)
            kept = _Kept()
            gone = await self._forget_unannounced(kept, p, said, events[p].begin)
            for user, one in _all(said):
                if user not in gone:
                    self._keep(kept, p, user, one, done)
            await self._rebuilding.begin([p])
            await self._write(p, kept, there.get(p, set()), done)
            await self._rebuilding.end(p, done.next)
            yield done

    async def _said(self, of: Settings, partition: int, states: Span, events: Span) -> Announcements:
        """What `states` says, and of users who were forgotten and are back what the log still says of that: the null
        does not survive the newer record, and no replay makes the marker again, for the state is newer."""
        said = await announcements(self._reader, of, partition, states)
        async for user, forget in forgets(self._reader, of, partition, events):
            state, known = said.newest.get(user), said.forgotten.get(user)
            if state is None:
                said.unheard.add(user)
            if state is None or not state.blob or forget.offset > state.offset:
                continue  # the null says it, or a worker will meet the forget itself
            if known is None or forget.offset >= known.offset:
                latest = max(forget.forgotten_at, known.forgotten_at if known else -1)
                said.forgotten[user] = forget._replace(forgotten_at=latest)
        return said

    async def _forget_unannounced(self, kept: _Kept, partition: int, said: Announcements, begin: int) -> set[str]:
        """Deal with forgets that the store has taken and `states` never heard of: a state from before must not come
        back behind their markers, and they must be told. Where the retained log has the forget, the marker goes and
        the log does it again; where not, the marker stays, and the user is one of those returned, of whom nothing
        else is kept."""
        store, gone = self._store, set()
        users = sorted(said.newest.keys() | said.unheard)
        for at in range(0, len(users), _WRITTEN):
            chunk = users[at : at + _WRITTEN]
            for user, read in zip(chunk, await store.read_users(partition, chunk), strict=True):
                version = read_marker(read.marker).version if read.marker else 0
                if version <= max((forget_version(one) for one in _said_of(said, user)), default=0):
                    continue
                if version > begin:
                    kept.writes.append(Write(store.marker_key(partition, user), 1, b""))
                else:
                    gone.add(user)
        return gone

    def _check_log(self, partition: int, log: Span, newest: Mapping[str, Announced]) -> None:
        last = max((one.offset for one in newest.values()), default=CARRIED)
        if last >= log.end:
            events = self._settings.topic("events")
            raise RebuildRefused(
                f"{events}[{partition}]: `states` knows of event {last}, the log ends at {log.end}: it is not the log "
                "that the states were made from; begin another prefix, and rebuild it --from this one"
            )

    def _keep(self, kept: _Kept, partition: int, user: str, said: Announced, done: Rebuilt) -> None:
        """What the store is to have of a user, for the time that is left to it since the record was written."""
        store, age_s = self._store, max(0, self._now - said.written) // 1000
        if said.blob:
            ttl_s, key, value = store.state_ttl_s - age_s, store.state_key(partition, user), said.blob
        else:
            marker = Marker(forget_version(said), said.forgotten_at)
            ttl_s, key, value = store.marker_ttl_s - age_s, store.marker_key(partition, user), write_marker(marker)
        if ttl_s <= 0:
            done.expired += 1
            return
        kept.writes.append(Write(key, ttl_s, value))
        if said.blob:
            kept.users.add(user)
            done.states += 1
        else:
            done.forgotten += 1

    # ---------------------------------------------------------------- from another prefix
    async def carried(self, source: str, *, accept_loss: bool) -> AsyncIterator[Rebuilt]:
        """Partition by partition of the source; none can be claimed before all are done."""
        settings, old = self._settings, replace(self._settings, prefix=source)
        events = await self._reader.spans(settings.topic("events"))
        states = await self._reader.spans(old.topic("states"))
        await self._check_new()
        await self._check_drained(old, accept_loss=accept_loss)
        there = await self._there()
        await self._rebuilding.begin(list(events))
        written: dict[int, set[str]] = {p: set() for p in events}
        producer = await Producer(settings).start()
        try:
            log = await self._reader.spans(old.topic("events"))
            for p, span in states.items():
                said = await self._said(old, p, span, log.get(p, EMPTY))
                done = Rebuilt(p, unreadable=said.unreadable)
                await self._carry(said, written, producer, done)
                yield done
        finally:
            await producer.stop()
        for p, span in events.items():
            await self._delete(p, there.get(p, set()) - written[p])
            await self._rebuilding.end(p, span.begin)

    async def _carry(
        self, said: Announcements, written: dict[int, set[str]], producer: Producer, done: Rebuilt
    ) -> None:
        """Write and announce the users of a partition of the source, where they belong now; forgets first."""
        settings, outputs = self._settings, []
        kept: dict[int, _Kept] = {}
        for user, one in _all(said):
            p = partition_of(user.encode(), settings.kafka.partitions, settings.partitioner)
            blob = carried_over(one.blob, settings.model.dimension) if one.blob else b""
            # Whoever comes along begins a new time to live: the new topic's record is as old as the new key.
            carried = one._replace(offset=CARRIED, blob=blob, written=self._now)
            self._keep(kept.setdefault(p, _Kept()), p, user, carried, done)
            outputs.append(self._announcement(p, user, carried))
        for p, mine in kept.items():
            await self._write(p, mine, set(), done)
            written[p] |= mine.users
        for at in range(0, len(outputs), _SAID):
            await producer.send(outputs[at : at + _SAID])

    def _announcement(self, partition: int, user: str, said: Announced) -> Output:
        """As the embedding worker would have said it, but that no event is new, and no feed is due."""
        topic, key = self._settings.topic("states"), user.encode()
        if not said.blob:
            return Output(topic, key, None, forgotten_headers(said.offset, said.forgotten_at), partition)
        return Output(topic, key, encode_state(StateRecord(said.blob, None, [], False, None)), [], partition)

    async def _check_new(self) -> None:
        """A prefix that has states of its own keeps them."""
        positions = await self._store.positions(range(self._settings.kafka.partitions))
        own = {p: at.next for p, at in positions.items() if at.next > 0}
        topic = self._settings.topic("states")
        for p, span in (await self._reader.spans(topic)).items() if not own else ():
            newest = (await announcements(self._reader, self._settings, p, span)).newest.values()
            last = max((one.offset for one in newest), default=CARRIED)
            own |= {p: last + 1} if last > CARRIED else {}
        if own:
            p, at = min(own.items())
            raise RebuildRefused(
                f"rebuild: {self._settings.prefix} has states of its own (partition {p} as of event {at - 1}); "
                "--from is for a new prefix"
            )

    async def _check_drained(self, old: Settings, *, accept_loss: bool) -> None:
        """What the source has not applied and announced would be lost. Markers of transactions are no events."""
        if accept_loss:
            return
        topic = old.topic("events")
        events = await self._reader.spans(topic)
        store = await Store.connect(old)
        try:
            positions = await store.positions(list(events))
        finally:
            await store.close()
        left = 0
        for p, span in events.items():
            done = min(positions[p][:2]) if p in positions else 0
            async for records in self._reader.read(topic, p, max(done, span.begin), span.end):
                left += len(records)
        if left:
            raise RebuildRefused(
                f"rebuild: {left} events of {topic} are not applied and announced, as far as this store knows: let its "
                "workers finish, or go on without them with --accept-loss"
            )

    # ---------------------------------------------------------------- the store
    async def _there(self) -> dict[int, set[str]]:
        """Users of whom the store has a state or a feed."""
        there: dict[int, set[str]] = {}
        for kind in ("u", "f"):
            async for found in self._store.scan_users(kind):
                for partition, user in found:
                    there.setdefault(partition, set()).add(user)
        return there

    async def _write(self, partition: int, kept: _Kept, there: set[str], done: Rebuilt) -> None:
        for at in range(0, len(kept.writes), _WRITTEN):
            await self._rebuilding.write(partition, kept.writes[at : at + _WRITTEN])
        done.surplus += await self._delete(partition, there - kept.users)

    async def _delete(self, partition: int, users: Iterable[str]) -> int:
        """Delete state and feed of users that nothing speaks of any more."""
        store, gone = self._store, sorted(users)
        for at in range(0, len(gone), _WRITTEN):
            writes = [
                Write(key(partition, user), 1, b"")
                for user in gone[at : at + _WRITTEN]
                for key in (store.state_key, store.feed_key)
            ]
            await self._rebuilding.write(partition, writes)
        return len(gone)


def _said_of(said: Announcements, user: str) -> list[Announced]:
    """The newest record of a user, and the newest forget: a marker of no later version is known."""
    return [known[user] for known in (said.newest, said.forgotten) if user in known]


def _all(said: Announcements) -> Iterator[tuple[str, Announced]]:
    """Forgets, then states: of who is back both."""
    yield from said.forgotten.items()
    yield from ((user, one) for user, one in said.newest.items() if one.blob)
