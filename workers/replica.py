"""Follow topics into memory, without a group: whole compacted topics, or a log from known offsets; or read a part of a
log once.

Caught up means: every partition's position has reached the high watermark that was seen first. A lane joins its group
only then, so that nobody is served from half a model.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError

from workers import kafka
from workers.settings import Settings

log = structlog.get_logger()

GATHER_MS = 100  # for what nobody waits for

_SLICE_S = 0.002  # of a shared loop: following a backlog must not hold feeds up
_POLL_MS = 500
_LOOK_MS = 50
_POLL_RECORDS = 4000
_GATHERED = 256 * 1024  # bytes that are worth a fetch of their own
_MOST_AT_ONCE = 1000
_SILENT_AFTER_S = 60.0
_ASK_WITHIN_S = 5.0
_GONE_AFTER_S = 10.0  # a broker that starts does not know its topics for a moment

OnRecords = Callable[[Sequence[Any]], None]


class Follower:
    """Hands every record of `topic` from `start` on to `on_records`, in log order within a partition.

    A call gets as many as take about 2 ms, but not less than `fewest` if there are as many. `on_records` must not raise
    for bad input: it counts and goes on. What it raises ends the follower, and the process.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        on_records: OnRecords,
        start: Mapping[int, int] | None = None,
        *,
        at_end: bool = False,  # begin behind what is there
        fewest: int = 8,  # records that are worth a call of their own
        gather_ms: int = 0,  # records may wait so long at the broker, to come together: a fetch costs half a ms
    ) -> None:
        self.topic = topic
        self.caught_up = asyncio.Event()
        self.records = 0
        self.begins: dict[int, int] = {}  # the first offset that each partition held when it was asked last
        self.skipped = 0  # offsets before the log's start: retention or compaction took them
        self._settings = settings
        self._on_records = on_records
        self._fetch = {"fetch_max_wait_ms": gather_ms, "fetch_min_bytes": _GATHERED} if gather_ms else {}
        self._fewest = fewest
        self._run = fewest  # records a call
        self._start = dict(start or {})
        self._at_end = at_end
        self._consumer: Any = None
        self._positions: dict[int, int] = {}
        self._first_high: dict[int, int] = {}
        self._gone_since: float | None = None
        self._stopping = False

    async def run(self) -> None:
        """Follow until `stop`. Raises TopicMissing when the topic is not there, or is deleted meanwhile."""
        self._consumer = await kafka.start_consumer(self._settings, group=None, **self._fetch)
        try:
            await self._begin()
            while not self._stopping:
                await self._poll()
        finally:
            try:
                await asyncio.wait_for(self._consumer.stop(), 5)
            except TimeoutError:
                log.warning("follower did not close: the broker does not answer", topic=self.topic)

    def stop(self) -> None:
        self._stopping = True

    def positions(self) -> dict[int, int]:
        """The next offset to read, a partition."""
        return dict(self._positions)

    def lag(self) -> int:
        """High watermark - position, summed over partitions."""
        return sum(max(0, self._high(p) - position) for p, position in self._positions.items())

    async def was_cut(self) -> bool:
        """Whether records that were there have gone from the log's beginning since this was asked, or it began.

        A follower at the log's end does not notice by itself. A broker that does not answer has cut nothing yet.
        """
        tps = [TopicPartition(self.topic, partition) for partition in self.begins]
        try:
            async with asyncio.timeout(_ASK_WITHIN_S):
                begins = await self._consumer.beginning_offsets(tps)
        except (KafkaError, TimeoutError):
            return False
        before, self.begins = self.begins, {tp.partition: begin for tp, begin in begins.items()}
        return any(begin > before[partition] for partition, begin in self.begins.items())

    async def _begin(self) -> None:
        partitions = await kafka.partitions_of(self._consumer, self.topic)
        tps = [TopicPartition(self.topic, p) for p in partitions]
        self._consumer.assign(tps)
        begins = await self._consumer.beginning_offsets(tps)
        self.begins = {tp.partition: begin for tp, begin in begins.items()}
        if self._at_end:
            self._start = {tp.partition: end for tp, end in (await self._consumer.end_offsets(tps)).items()}
        for tp in tps:
            wanted = self._start.get(tp.partition, 0)
            self.skipped += max(0, begins[tp] - wanted) if wanted else 0
            self._seek(tp, max(begins[tp], wanted))

    def _seek(self, tp: TopicPartition, offset: int) -> None:
        self._consumer.seek(tp, offset)
        self._positions[tp.partition] = offset

    async def _poll(self) -> None:
        try:
            fetched = await self._consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
        except OffsetOutOfRangeError as error:
            await self._restart(list(error.args[0]))
            return
        await self._hand_over([record for records in fetched.values() for record in records])
        for tp, records in fetched.items():
            self._positions[tp.partition] = records[-1].offset + 1
            self.records += len(records)
        if not fetched:  # behind the last record may be transactions' markers, or what compaction took
            await self._look_whether_gone()
            for partition in self._positions:
                self._positions[partition] = await self._consumer.position(TopicPartition(self.topic, partition))
        if not self.caught_up.is_set():
            self._look_whether_caught_up()

    async def _hand_over(self, records: Sequence[Any]) -> None:
        at = 0
        while at < len(records):
            begun = time.perf_counter()
            self._on_records(records[at : at + self._run])
            at += self._run
            fitting = int(self._run * _SLICE_S / max(time.perf_counter() - begun, 1e-6))
            self._run = min(max(fitting, self._fewest), 2 * self._run, _MOST_AT_ONCE)
            await asyncio.sleep(0)

    async def _restart(self, tps: list[TopicPartition]) -> None:
        """The log was cut behind us: go on at its start, and say so."""
        begins = await self._consumer.beginning_offsets(tps)
        for tp in tps:
            self.skipped += max(0, begins[tp] - self._positions[tp.partition])
            log.error(
                "records are gone before they were followed", topic=tp.topic, partition=tp.partition, begins=begins[tp]
            )
            self._seek(tp, begins[tp])

    async def _look_whether_gone(self) -> None:
        """Of a deleted topic the client asks for ever, a thousand times a second."""
        if self._consumer.partitions_for_topic(self.topic):
            self._gone_since = None
            return
        self._gone_since = self._gone_since or time.monotonic()
        if time.monotonic() - self._gone_since > _GONE_AFTER_S:
            raise kafka.TopicMissing(
                f"kafka: topic {self.topic} was deleted while it was followed; make it anew, restart"
            )
        await asyncio.sleep(_POLL_MS / 1000)

    def _high(self, partition: int) -> int:
        high: int | None = self._consumer.highwater(TopicPartition(self.topic, partition))
        return 0 if high is None else high

    def _look_whether_caught_up(self) -> None:
        for partition in self._positions:
            if partition not in self._first_high:
                high = self._consumer.highwater(TopicPartition(self.topic, partition))
                if high is None:
                    return
                self._first_high[partition] = high
        if all(self._positions[p] >= high for p, high in self._first_high.items()):
            self.caught_up.set()
            log.info("caught up", topic=self.topic, records=self.records)


class LogCut(RuntimeError):
    """Records that were to be read are not there, or do not come."""


class Span(NamedTuple):
    """The offsets of a partition that can be read: begin, and behind the last (open transactions are not in it)."""

    begin: int
    end: int


class LogReader:
    """Reads parts of logs once, a partition at a time; for commands, which want an end."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    async def spans(self, topic: str) -> dict[int, Span]:
        """What there is of each partition of `topic`. Raises TopicMissing."""
        tps = [TopicPartition(topic, p) for p in await kafka.partitions_of(self._consumer, topic)]
        begins = await self._consumer.beginning_offsets(tps)
        ends = await self._consumer.end_offsets(tps)
        unsure = [tp for tp in tps if not ends[tp]]  # the embedded broker tells ends only with records
        if unsure:
            self._consumer.assign(unsure)
            for tp in unsure:
                self._consumer.seek(tp, begins[tp])
                ends[tp] = await self._high(tp)
        return {tp.partition: Span(begins[tp], ends[tp]) for tp in tps}

    async def written_since(self, topic: str, partitions: Sequence[int], time_ms: int) -> dict[int, int]:
        """The first offset of each partition that was written at `time_ms` or later; those without one are left out."""
        asked = {TopicPartition(topic, p): time_ms for p in partitions}
        found = await self._consumer.offsets_for_times(asked) if asked else {}
        return {tp.partition: found[tp].offset for tp in asked if found.get(tp) is not None}

    async def read(self, topic: str, partition: int, begin: int, end: int) -> AsyncIterator[Sequence[Any]]:
        """The records of offsets [begin, end), in order, some at a time. Raises LogCut when they are not there."""
        if begin >= end:
            return
        tp = TopicPartition(topic, partition)
        self._consumer.assign([tp])
        self._consumer.seek(tp, begin)
        position, moved = begin, time.monotonic()
        while position < end:
            records = await self._next(tp)
            if records and records[0].offset < end:
                yield [record for record in records if record.offset < end]
            before, position = position, await self._consumer.position(tp)
            moved = time.monotonic() if position > before else moved
            if time.monotonic() - moved > _SILENT_AFTER_S:
                raise LogCut(f"{topic}[{partition}]@{position}: nothing came for {_SILENT_AFTER_S:g} s")

    async def _next(self, tp: TopicPartition) -> Sequence[Any]:
        try:
            fetched = await self._consumer.getmany(tp, timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
        except OffsetOutOfRangeError as error:
            where = ", ".join(f"{tp.topic}[{tp.partition}]@{offset}" for tp, offset in error.args[0].items())
            raise LogCut(f"{where}: no such record: retention took it, or the log ends before; run it again") from None
        records: Sequence[Any] = fetched.get(tp, ())
        return records

    async def _high(self, tp: TopicPartition) -> int:
        for _ in range(round(1000 * _SILENT_AFTER_S / _LOOK_MS)):
            await self._consumer.getmany(tp, timeout_ms=_LOOK_MS, max_records=1)
            high: int | None = self._consumer.highwater(tp)
            if high is not None:
                return high
        raise LogCut(f"{tp.topic}[{tp.partition}]: the broker did not tell where it ends for {_SILENT_AFTER_S:g} s")


@asynccontextmanager
async def log_reader(settings: Settings) -> AsyncIterator[LogReader]:
    """A reader, closed at the end. Waits for the broker as every client does."""
    consumer = await kafka.start_consumer(settings, group=None)
    try:
        yield LogReader(consumer)
    finally:
        await asyncio.sleep(0)  # a task of the client's that never ran would raise when it is stopped
        await consumer.stop()
