"""The retrieval worker: newest states in, feeds out. Many events of one user between two passes make one feed."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog

from pipeline.blob import BlobError, decode
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.trends import LADDER
from pipeline.types import POSITIVE, hash_id, hash_of
from workers.examples import DRAWS, EXAMPLES_A_SECOND, Sampler, WaitingLists
from workers.feeds import Asked, FeedMaker, Made, in_chunks
from workers.live import HitRate
from workers.positions import Batch, FeedOutput, Result
from workers.settings import Settings
from workers.store import Store
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.errors import WireError, expectation
from workers.wire.event_data import EventData, read_data
from workers.wire.example import encode_example
from workers.wire.feed import pair_headers
from workers.wire.ids import id_from_key
from workers.wire.output import Output, Record
from workers.wire.rules import Rules
from workers.wire.state import Cause, Forgotten, Fresh, StateRecord, decode_state, read_forgotten

log = structlog.get_logger()

_SOON_S = 0.2
_READ_AT_ONCE = 512  # records: some 5 ms


@dataclass(slots=True)
class _User:
    """What a batch says of one user, all its records together."""

    offset: int = -1  # of the newest state
    blob: bytes = b""
    record: Record | None = None  # that the newest state came in
    fresh: list[Fresh] = field(default_factory=list)
    cause: Cause | None = None  # of the newest refreshing record; None = no feed is due
    refreshed: int = -1  # offset of the state that brought `cause`
    refreshing: int = 0  # states that ask for a feed: one is answered, the others are shed
    forgotten: int = -1  # offset of the newest forget


@dataclass(frozen=True, slots=True)
class _Read:
    """A record of `states` that is one."""

    partition: int
    record: Record
    user: str
    state: StateRecord


_Told = dict[int, dict[str, _User]]  # by partition and user


class RetrievalHandler:
    """Answers states with feeds, from the replicas as they are. Holds nothing durable."""

    def __init__(self, settings: Settings, rules: Rules, model: Model, catalog: Catalog) -> None:
        self.counts: Counter[str] = Counter()
        self.live = HitRate()
        self.lists = WaitingLists()
        self._settings, self._rules, self._model = settings, rules, model
        self._maker = FeedMaker(settings, model, catalog)
        self._feeds_topic, self._examples_topic = settings.topic("feeds"), settings.topic("examples")
        self._served: dict[int, list[Made]] = {}  # by partition: feeds that are on their way to the store
        self._examples: dict[int, list[Output]] = {}  # by partition: of this round
        self._sampler = Sampler(EXAMPLES_A_SECOND)
        self._greatest_time = 0  # of all events seen, ms: the clock of a stream

    async def handle(self, batches: list[Batch]) -> list[Result]:
        """Per batch: the feeds that are due, the nulls of users that were forgotten, and dead letters."""
        self._served.clear()
        self._examples.clear()
        bad: dict[int, list[BadRecord]] = {batch.partition: [] for batch in batches}
        told = await self._told(batches, bad)
        for partition, users in told.items():
            for user, newest in users.items():
                self._judge(partition, user, newest)
        asked = [
            Asked(user, partition, newest.blob, newest.cause)
            for partition, users in told.items()
            for user, newest in users.items()
            if newest.cause is not None and newest.offset > newest.forgotten
        ]
        self.counts["states"] += sum(len(batch.records) for batch in batches)
        for chunk in in_chunks(asked):
            for made in self._answer(chunk, told, bad):
                self._served.setdefault(made.asked.partition, []).append(made)
            await asyncio.sleep(0)  # others share the loop
        return [self._result(batch, told[batch.partition], bad[batch.partition]) for batch in batches]

    def stored(self, result: Result) -> None:
        """The feeds were offered to the store: these are what the users see until the next."""
        for made in self._served.pop(result.batch.partition, []):
            self.live.serve(made.asked.user, made.version, made.items, made.sources)
            self.lists.serve(made.asked.user, made.asked.partition, made.version, made.feed_id, made.served)

    def drop(self, partition: int) -> None:
        """Forget what is on its way of a partition, and which lists of its users wait for a choice."""
        self._served.pop(partition, None)
        self.lists.lose(partition)

    def warm_up(self) -> None:
        """Load the kernels."""
        self._maker.warm_up()

    def default_feed(self) -> tuple[int, bytes]:
        """The feed of users that nobody knows, and its revision (ms)."""
        return self._maker.default(self._now())

    def stats(self) -> dict[str, Any]:
        """Counters, how good the feeds are, and what the trend check finds."""
        waiting = {"lists_waiting": len(self.lists), "lists_bytes": self.lists.nbytes}
        check = self._model.ranker.check.figures()
        return {**self.counts, **self.lists.counts, **waiting, "live": self.live.figures(), "trend_check": check}

    def _now(self) -> int:
        """Wall time, or under clock = stream the greatest event time seen: here, or by the trainer anywhere.

        The model brings what other partitions, and this worker before it was started anew, have seen.
        """
        if self._settings.clock == "wall":
            return int(time.time() * 1000)
        return max(self._greatest_time, self._model.trends.newest)

    # ---------------------------------------------------------------- what the records say
    async def _told(self, batches: list[Batch], bad: dict[int, list[BadRecord]]) -> _Told:
        """By partition the users of its batch, in the order of their first record."""
        told: _Told = {batch.partition: {} for batch in batches}
        async for records in _parts([(batch.partition, record) for batch in batches for record in batch.records]):
            self._tell(records, told, bad)
        asked = (known.refreshing for users in told.values() for known in users.values())
        self.counts["refreshes_shed"] += sum(refreshing - 1 for refreshing in asked if refreshing > 1)
        async for records in _parts([(batch.partition, record) for batch in batches for record in batch.waiting]):
            self._leave(records, told)
        return told

    def _tell(self, records: list[tuple[int, Record]], told: _Told, bad: dict[int, list[BadRecord]]) -> None:
        """Take the next records of a round in, each with its partition. All states are decoded in one call: while
        little happens a batch brings one."""
        read: list[_Read] = []
        for partition, record in records:
            try:
                user = id_from_key(record.key, "user id")
                if record.value is None:
                    forgotten = read_forgotten(list(record.headers))
                    self._forget(user, told[partition].setdefault(user, _User()), forgotten)
                else:
                    read.append(_Read(partition, record, user, decode_state(record.value)))
            except WireError as error:
                bad[partition].append(BadRecord(record, error.stage, str(error), type(error).__name__))
        for one, offset in self._dated(read, bad):
            _merge(told[one.partition].setdefault(one.user, _User()), one.record, one.state, offset)

    def _leave(self, records: list[tuple[int, Record]], told: _Told) -> None:
        """Leave users to the states that wait for a later round, where these ask for a feed and are newer. What cannot
        be read there is told when its turn comes."""
        read: list[_Read] = []
        for partition, record in records:
            with contextlib.suppress(WireError):
                user = id_from_key(record.key, "user id")
                known = told[partition].get(user)
                if known is not None and known.cause is not None and record.value is not None:
                    read.append(_Read(partition, record, user, decode_state(record.value)))
        asking = [one for one in read if one.state.refresh and one.state.cause is not None]
        for one, offset in self._dated(asking, defaultdict(list)):
            known = told[one.partition][one.user]
            if offset >= known.offset:
                known.cause = None
                self.counts["refreshes_shed"] += 1

    def _dated(self, read: list[_Read], bad: dict[int, list[BadRecord]]) -> list[tuple[_Read, int]]:
        """With the offset of each state's last event; a state that is none goes to `bad`."""
        while True:
            try:
                states = decode([one.state.blob for one in read])
                break
            except BlobError as error:
                broken = read.pop(error.row)
                bad[broken.partition].append(BadRecord(broken.record, "decode", str(error), type(error).__name__))
        self._greatest_time = max(self._greatest_time, int(states.last_time.max(initial=0)))
        return list(zip(read, states.last_offset.tolist(), strict=True))

    def _forget(self, user: str, known: _User, forgotten: Forgotten) -> None:
        known.forgotten = max(known.forgotten, forgotten.offset)
        known.fresh = [event for event in known.fresh if event.offset > known.forgotten]
        if known.refreshed <= known.forgotten:
            known.cause = None
        self._greatest_time = max(self._greatest_time, forgotten.time_ms)
        self.live.forget(user)
        self.lists.forget(user)

    def _judge(self, partition: int, user: str, newest: _User) -> None:
        """Look the first positive event after the user's last feed up in that feed, and learn from the choice."""
        waits, since = self.lists.expects(user), self.live.expects(user)
        if max(waits, since) < 0:
            return
        for event in sorted(newest.fresh, key=lambda event: event.offset):
            data = self._read(event) if event.offset >= max(waits, since) else None
            if data is None:
                continue
            if data.items and data.feed_id:
                self.lists.saw(user, data.feed_id, self._known(data.items))
            item = self._chosen(data)
            if item is not None:
                places = self._example(partition, user, item) if waits >= 0 else None
                if since >= 0:
                    self.live.judge(user, item, self._now(), places)
                return

    def _example(self, partition: int, user: str, item: str) -> list[float]:
        """The user chose `item` while a list waited: an example, if it is in the list. Returns the item's places in the
        ranked list and in plain trending."""
        row = int(self._model.rows.find(np.array([hash_id(item)], np.uint64))[0])
        feed_id, choice = self.lists.choose(user, row)
        if choice is None:
            return [math.inf] * (1 + LADDER)
        if self._sampler.take(time.monotonic()):
            value = encode_example(feed_id, choice.sampled(DRAWS, hash_of(feed_id) >> 1), self._maker.layout)
            self._examples.setdefault(partition, []).append(Output(self._examples_topic, feed_id.encode(), value))
            self.counts["examples"] += 1
        return [float(place) for place in choice.places]

    def _known(self, items: Sequence[str]) -> list[int]:
        """Rows of items that the model knows."""
        found = self._model.rows.find(np.array([hash_id(item) for item in items], np.uint64))
        return [row for row in found.tolist() if row >= 0]

    @staticmethod
    def _read(event: Fresh) -> EventData | None:
        """The event's data; a figure is not worth a dead letter: the trainer counts what cannot be read."""
        try:
            return read_data(event.data)
        except WireError:
            return None

    def _chosen(self, data: EventData) -> str | None:
        """The item of a positive event."""
        positive = self._rules.meaning(data.action, data.value).effect & POSITIVE
        return data.item_id if positive else None

    # ---------------------------------------------------------------- what is answered
    def _answer(
        self, chunk: Sequence[Asked], told: dict[int, dict[str, _User]], bad: dict[int, list[BadRecord]]
    ) -> list[Made]:
        """The feeds of a chunk; should that fail, user by user, so that one failing user costs only their own."""
        try:
            made = self._maker.make(chunk, self._now())
        except Exception as error:  # pure code that fails would fail again: find whose fault it is
            if len(chunk) > 1:
                what = f"{type(error).__name__}: {expectation(error)}"
                log.warning("a chunk could not be answered at once", error=what)
                return [made for one in chunk for made in self._answer([one], told, bad)]
            (one,) = chunk
            record = told[one.partition][one.user].record
            if record is not None:
                bad[one.partition].append(BadRecord(record, "retrieve", str(error), type(error).__name__))
            return []
        self.counts["feeds"] += len(made)
        self.counts.update(f"skipped_{name}" for one in made for name in one.skipped)
        return made

    def _result(self, batch: Batch, users: dict[str, _User], bad: list[BadRecord]) -> Result:
        """Nulls come first: a user who is back after a forget has a feed again."""
        topic, group, now = (
            self._settings.topic("dead-letters"),
            self._settings.topic("retrieval"),
            int(time.time() * 1000),
        )
        nulls = [
            Output(self._feeds_topic, user.encode(), None, pair_headers(known.forgotten + 1, 0), batch.partition)
            for user, known in users.items()
            if known.forgotten >= 0
        ]
        self.counts["forgotten"] += len(nulls)
        self.counts["dead_letters"] += len(bad)
        made = self._served.get(batch.partition, [])
        return Result(
            batch,
            feeds=[self._output(one) for one in made],
            outputs=[
                *nulls,
                *self._examples.get(batch.partition, []),
                *(dead_letter(one, topic, group, now) for one in bad),
            ],
        )

    def _output(self, made: Made) -> FeedOutput:
        asked = made.asked
        output = Output(self._feeds_topic, asked.user.encode(), made.value, made.headers, asked.partition)
        return FeedOutput(asked.partition, asked.user, made.version, made.revision, made.value, output)


async def _parts(records: list[tuple[int, Record]]) -> AsyncIterator[list[tuple[int, Record]]]:
    """As many as may be read without a break; others share the loop."""
    for begin in range(0, len(records), _READ_AT_ONCE):
        if begin:
            await asyncio.sleep(0)
        yield records[begin : begin + _READ_AT_ONCE]


def _merge(known: _User, record: Record, state: StateRecord, offset: int) -> None:
    """Take one more record in: newest means greatest offset, not last record. What was forgotten is passed over."""
    if offset <= known.forgotten:
        return
    known.fresh += [event for event in state.fresh if event.offset > known.forgotten]
    if offset > known.offset:
        known.offset, known.blob, known.record = offset, state.blob, record
    if state.refresh and state.cause is not None:
        known.refreshing += 1
        if offset > known.refreshed:
            known.cause, known.refreshed = state.cause, offset


class DefaultFeed:
    """Writes the feed of users that nobody knows, every few seconds."""

    def __init__(
        self, settings: Settings, store: Store, handler: RetrievalHandler, caught_up: Callable[[], Awaitable[None]]
    ) -> None:
        self._settings, self._store, self._handler = settings, store, handler
        self._caught_up = caught_up
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Write until `stop`, once the items are in memory."""
        waiting = asyncio.ensure_future(self._caught_up())
        while not self._stop.is_set():
            if waiting.done():
                revision, feed = self._handler.default_feed()
                await self._store.put_default(self._settings.feed.recipe, revision, feed)
            try:
                every = self._settings.feed.default_every_s if waiting.done() else _SOON_S
                await asyncio.wait_for(self._stop.wait(), every)
            except TimeoutError:
                continue
        waiting.cancel()

    def stop(self) -> None:
        self._stop.set()
