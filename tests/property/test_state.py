"""What must hold of user state whatever the stream, against a plain reference written from the rules."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.blob import BlobError, decode, durable
from pipeline.state import Advanced, Outcome, Users, advance, stamp, together
from pipeline.types import (
    ATTRIBUTES,
    BLOCKS,
    CONSUMES,
    FORGETS,
    IDS,
    MARKS,
    NEGATIVES,
    POSITIVE,
    PROFILE,
    RING,
)
from tests.streams import Ev, after, batch, blobs, nobody

K = 4
Entry = tuple[int, int, int]  # item, seconds, action


@dataclass
class User:
    """One user, event by event. Lists are newest first."""

    counters: list[int] = field(default_factory=lambda: [0, 0, -1, 0])  # count, positives, last offset, last time
    ring: list[Entry] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    consumed: list[int] = field(default_factory=list)
    blocked: list[int] = field(default_factory=list)
    since: dict[int, int] = field(default_factory=dict)  # seconds of the event that blocked
    attributes: bytes = b""
    marker: tuple[int, int] = (-1, 0)  # time, version
    fresh: list[Entry] = field(default_factory=list)  # positives of this batch since the last forget

    def apply(self, e: Ev) -> Outcome:
        if e.offset <= max(self.counters[2], self.marker[1] - 1):
            return Outcome.REPLAYED
        if e.id and e.id in self.ids:
            return Outcome.DUPLICATE
        if e.effect & FORGETS:
            self.__init__(marker=(max(e.time, self.marker[0]), e.offset + 1))  # type: ignore[misc]
            return Outcome.APPLIED
        if e.time <= self.marker[0]:
            return Outcome.FORGOTTEN
        self.count(e)
        return Outcome.APPLIED

    def count(self, e: Ev) -> None:
        positive = bool(e.effect & POSITIVE and e.item)
        self.counters = [self.counters[0] + 1, self.counters[1] + positive, e.offset, e.time]
        self.ids = ([e.id] * bool(e.id) + self.ids)[:IDS]
        if positive:
            entry = (e.item, max(0, e.time // 1000), e.action)
            self.ring = [entry, *self.ring][:RING]
            self.fresh = [entry, *self.fresh]
        if e.item:
            self.mark(e.item & 0xFFFFFFFF, e.effect)
            if e.effect & BLOCKS:
                self.since[e.item & 0xFFFFFFFF] = max(0, e.time // 1000)
        if e.effect & PROFILE:
            self.attributes = e.attributes

    def mark(self, mark: int, effect: int) -> None:
        if effect & BLOCKS:
            self.blocked = [mark, *(old for old in self.blocked if old != mark)][:MARKS]
            self.consumed = [old for old in self.consumed if old != mark]
        elif effect & CONSUMES and mark not in self.blocked:
            self.consumed = [mark, *(old for old in self.consumed if old != mark)]
        self.consumed = self.consumed[: MARKS - len(self.blocked)]

    def blob(self) -> bytes:
        if not self.counters[0]:
            return b""
        r, i, c, b = len(self.ring), len(self.ids), len(self.consumed), len(self.blocked)
        items, times, actions = zip(*self.ring, strict=True) if self.ring else ((), (), ())
        since = [self.since[mark] for mark in self.blocked[:NEGATIVES]]
        head = struct.pack("<BBHBBHHHBxxx", 1, 0, K, r, i, c, b, len(self.attributes), len(since)) + bytes(4 * K + 8)
        ring = struct.pack(f"<{r}Q{r}I{r}B", *items, *times, *actions)
        lists = struct.pack(f"<{i}Q", *self.ids) + struct.pack(f"<{c + b}I", *self.consumed, *self.blocked)
        lists += struct.pack(f"<{len(since)}I", *since)
        return head + struct.pack("<QQqq", *self.counters) + ring + lists + self.attributes


@dataclass(frozen=True)
class Stream:
    """Events of n users in log order."""

    n: int
    events: list[Ev]


@st.composite
def streams(draw: st.DrawFn, longest: int = 400) -> Stream:
    """From quiet to crowded: few or many items, ids and times, so that repeats, duplicates and forgets occur."""
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    n, m = draw(st.integers(1, 4)), draw(st.integers(0, longest))
    pool = [rng.randrange(1, 1 << 64) for _ in range(draw(st.sampled_from([1, 3, 40, 3000])))]
    pool += [item ^ (1 << 40) for item in pool[:2]]  # other items with the same truncation
    ids, gap = draw(st.sampled_from([0, 3, 20, 10_000])), draw(st.sampled_from([1, 5]))
    forgets = draw(st.sampled_from([0.0, 0.01, 0.1]))
    offset, events = draw(st.integers(0, 3)), []
    for _ in range(m):
        events.append(one(rng, n, pool, ids, forgets, offset))
        offset += rng.randint(1, gap)
    return Stream(n, events)


def one(rng: random.Random, n: int, pool: list[int], ids: int, forgets: float, offset: int) -> Ev:
    effects = [0, POSITIVE, POSITIVE | CONSUMES, POSITIVE | CONSUMES, CONSUMES | BLOCKS, CONSUMES, PROFILE, 15]
    effect = FORGETS if rng.random() < forgets else rng.choice(effects)
    return Ev(
        offset,
        effect,
        item=0 if effect in (0, FORGETS, PROFILE) else rng.choice(pool),
        time=rng.randint(0, 50) * 700 + offset * rng.choice([0, 100]),
        id=rng.randint(0, ids),
        user=rng.randrange(n),
        action=rng.randrange(256),
        attributes=rng.randbytes(rng.choice([0, 1, 30, ATTRIBUTES])) if effect & PROFILE else b"",
    )


def replay(users: list[User], events: Iterable[Ev]) -> list[int]:
    return [int(users[e.user].apply(e)) for e in events]


def same_blobs(done: Advanced, users: list[User]) -> None:
    assert blobs(done) == [user.blob() for user in users]
    assert done.forgotten_time.tolist() == [user.marker[0] for user in users]
    assert done.forgotten_version.tolist() == [user.marker[1] for user in users]
    assert len(done.buffer) <= len(np.asarray(done.buffer.base))  # the room reckoned for the batch was enough


def entries(done: Advanced, u: int) -> tuple[list[Entry], list[Entry]]:
    """The ring of user u, and what was evicted from it."""
    length, lot = done.rings.length[u], slice(done.evicted_start[u], done.evicted_start[u + 1])
    rings = (column[u, :length].tolist() for column in (done.rings.items, done.rings.times, done.rings.actions))
    gone = (column[lot].tolist() for column in (done.evicted_items, done.evicted_times, done.evicted_actions))
    return list(zip(*rings, strict=True)), list(zip(*gone, strict=True))


@given(streams(), st.data())
@settings(deadline=None)
def test_batches_split_anywhere_agree_with_the_reference_event_by_event(stream: Stream, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream.events)), max_size=4)))
    reference, users = [User() for _ in range(stream.n)], nobody(stream.n)
    for begin, end in zip([0, *cuts], [*cuts, len(stream.events)], strict=True):
        before = [user.ring for user in reference]
        for user in reference:
            user.fresh = []
        expected = replay(reference, stream.events[begin:end])
        forgot = {
            e.user for e, o in zip(stream.events[begin:end], expected, strict=True) if o == 1 and e.effect & FORGETS
        }
        done = advance(users, batch(stream.events[begin:end]), K)
        assert done.outcome.tolist() == expected
        same_blobs(done, reference)
        assert done.last_time.tolist() == [user.counters[3] for user in reference]
        for u, user in enumerate(reference):
            ring, evicted = entries(done, u)
            assert ring == user.ring
            assert ring + evicted == user.fresh + ([] if u in forgot else before[u])
            assert not done.rings.items[u, len(ring) :].any()
        users = after(done)


@given(streams(), st.data())
@settings(deadline=None)
def test_a_suffix_of_the_log_told_again_changes_nothing(stream: Stream, data: st.DataObject) -> None:
    done = advance(nobody(stream.n), batch(stream.events), K)
    again = batch(stream.events[data.draw(st.integers(0, len(stream.events))) :])
    told = advance(after(done), again, K)
    assert blobs(told) == blobs(done)
    assert told.forgotten_version.tolist() == done.forgotten_version.tolist()
    assert told.forgotten_time.tolist() == done.forgotten_time.tolist()
    assert not (told.outcome == Outcome.APPLIED).any()
    assert len(told.evicted_items) == 0


@given(streams(longest=200))
@settings(deadline=None, max_examples=50)
def test_a_user_depends_on_their_own_events_only(stream: Stream) -> None:
    everyone = blobs(advance(nobody(stream.n), batch(stream.events), K))
    for u in range(stream.n):
        own = [e._replace(user=0) for e in stream.events if e.user == u]
        assert blobs(advance(nobody(1), batch(own), K)) == [everyone[u]]


@given(st.lists(streams(longest=60), min_size=1, max_size=4), st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=50)
def test_batches_together_are_as_each_alone(lot: list[Stream], seed: int) -> None:
    halves = [len(stream.events) // 2 for stream in lot]
    before = [after(advance(nobody(s.n), batch(s.events[:half]), K)) for s, half in zip(lot, halves, strict=True)]
    events = [batch(s.events[half:]) for s, half in zip(lot, halves, strict=True)]
    whole = advance(*together(list(zip(before, events, strict=True))), K)
    vectors = np.random.default_rng(seed).normal(size=(len(whole.last_time), K)).astype(np.float32)
    stamped = stamp(whole, vectors, 1, 2)
    user = event = 0
    for known, some in zip(before, events, strict=True):
        mine, its = slice(user, user + len(known)), slice(event, event + len(some))
        part, alone = whole.part(mine, its), advance(known, some, K)
        assert stamped[mine] == stamp(alone, vectors[mine], 1, 2)
        assert [entries(part, u) for u in range(len(known))] == [entries(alone, u) for u in range(len(known))]
        for column in ("outcome", "last_time", "forgotten_time", "forgotten_version"):
            assert getattr(part, column).tolist() == getattr(alone, column).tolist()
        user, event = mine.stop, its.stop


@given(streams(), st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=50)
def test_decode_tells_what_advance_wrote(stream: Stream, seed: int) -> None:
    reference = [User() for _ in range(stream.n)]
    replay(reference, stream.events)
    done = advance(nobody(stream.n), batch(stream.events), K)
    stamped = stamp(done, np.random.default_rng(seed).normal(size=(stream.n, K)).astype(np.float32), 1, seed % 7)
    states = decode(stamped)
    assert [durable(blob) for blob in stamped] == [durable(blob) for blob in blobs(done)]
    for u, user in enumerate(reference):
        columns = (states.count, states.positives, states.last_offset, states.last_time)
        assert [int(column[u]) for column in columns] == user.counters
        assert states.consumed[states.consumed_start[u] : states.consumed_start[u + 1]].tolist() == user.consumed
        mine = slice(states.blocked_start[u], states.blocked_start[u + 1])
        assert states.blocked[mine].tolist() == user.blocked
        since = [user.since[mark] for mark in user.blocked[:NEGATIVES]]
        assert states.blocked_times[mine].tolist() == since + [0] * (len(user.blocked) - len(since))
        assert states.attributes[u] == user.attributes
    for column in ("items", "times", "actions", "length"):
        assert getattr(states.rings, column).tolist() == getattr(done.rings, column).tolist()


@given(st.integers(0, 1 << 32))
@settings(deadline=None, max_examples=10)
def test_long_lives_keep_their_caps(seed: int) -> None:
    rng = random.Random(seed)
    pool = [rng.randrange(1, 1 << 64) for _ in range(2500)]
    effects = rng.choices([CONSUMES, BLOCKS, CONSUMES | POSITIVE], weights=[rng.random(), rng.random(), 0.2], k=4000)
    events = [Ev(at, effect, rng.choice(pool), id=at + 1) for at, effect in enumerate(effects)]
    reference, users = [User()], nobody(1)
    for begin in range(0, len(events), 50):
        replay(reference, events[begin : begin + 50])
        done = advance(users, batch(events[begin : begin + 50]), K)
        same_blobs(done, reference)
        states, users = decode(blobs(done)), after(done)
        assert len(states.consumed) + len(states.blocked) <= MARKS
        assert states.rings.length[0] <= RING
        assert not set(states.consumed.tolist()) & set(states.blocked.tolist())
    assert len(states.consumed) + len(states.blocked) == MARKS


def test_a_huge_batch_of_many_users_agrees_with_the_reference() -> None:
    rng, n = random.Random(1), 2_000
    pool = [rng.randrange(1, 1 << 64) for _ in range(5_000)]
    events = [one(rng, n, pool, ids=1 << 40, forgets=0.002, offset=at) for at in range(60_000)]
    reference = [User() for _ in range(n)]
    expected = replay(reference, events)
    done = advance(nobody(n), batch(events), K)
    assert done.outcome.tolist() == expected
    same_blobs(done, reference)


def users_of(given_blobs: list[bytes]) -> Users:
    return Users(given_blobs, np.full(len(given_blobs), -1), np.zeros(len(given_blobs), np.int64))


def refused_by(read: Callable[[list[bytes]], object], given_blobs: list[bytes]) -> int:
    """The blob that is refused, -1 = none."""
    try:
        read(given_blobs)
    except BlobError as refused:
        return refused.row
    return -1


@given(st.lists(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: b"\1\0\4\0" + data), max_size=5))
@settings(deadline=None)
def test_any_bytes_are_read_or_refused(garbage: list[bytes]) -> None:
    row = refused_by(lambda some: advance(users_of(some), batch([]), K), garbage)
    assert row < 0 or garbage[row]
    assert refused_by(decode, garbage[: None if row < 0 else row]) < 0


@given(streams(longest=80), st.data())
@settings(deadline=None)
def test_damaged_blobs_are_refused_or_go_on_as_they_are(stream: Stream, data: st.DataObject) -> None:
    whole = [blob for blob in blobs(advance(nobody(stream.n), batch(stream.events), K)) if blob]
    damaged = [damage(blob, data) for blob in whole]
    if refused_by(lambda some: advance(users_of(some), batch([]), K), damaged) < 0:
        again = advance(users_of(damaged), batch([]), K)
        assert [durable(blob) for blob in blobs(again)] == [durable(blob) for blob in damaged]


def damage(blob: bytes, data: st.DataObject) -> bytes:
    if data.draw(st.booleans()):
        return blob[: data.draw(st.integers(0, len(blob)))]
    at = data.draw(st.integers(0, min(len(blob), 80) - 1))
    return blob[:at] + bytes([blob[at] ^ 1 << data.draw(st.integers(0, 7))]) + blob[at + 1 :]
