"""The only file that knows how to consume as a member of a group: assign, claim, seek, fill queues, fence.

A lane is a loop of rounds. Each round takes one batch of every claimed partition that has records, and settles all of
them together, so that a lonely event costs one wake-up and a backlog one store call a partition.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Collection, Sequence
from itertools import pairwise
from typing import Any, Protocol, TypeVar

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError

from workers import kafka
from workers.batching import Limits, Queue
from workers.positions import Batch, LaneRefused, Positions, Result
from workers.producer import LARGEST_RECORD, Producer, size_of
from workers.settings import Settings
from workers.watchdog import watch
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.output import Output

log = structlog.get_logger()
T = TypeVar("T")

_IDLE_AFTER_MS = 200  # a poll that brings nothing for so long is a moment to write positions down
_REVOKE_WITHIN_S = 10.0
_AHEAD_MS = 20
_FEWEST_USERS = 64  # of a partition a round: what one chunk of answers holds
_SAY_EVERY_S = 60.0
_MORE = 8  # while records wait, a poll of the other partitions brings at most this part of a whole one
_ENDS_WITHIN_S = 5.0


class _BrokenOff(Exception):
    """A round that waited for the store was needed to end."""


class Handler(Protocol):
    """What a role does with records. It returns effects; the lane carries them out."""

    async def handle(self, batches: list[Batch]) -> list[Result]: ...
    def stored(self, result: Result) -> None:
        """The result is in the store: what was cached may be replaced."""

    def drop(self, partition: int) -> None:
        """The partition is not ours any more, or what is cached of it is stale."""


class Lane:
    """Consumes `topic` as a member of `group`; every record leads to its effects at least once, in log order."""

    def __init__(
        self,
        settings: Settings,
        topic: str,
        group: str,
        positions: Positions,
        handler: Handler,
        producer: Producer,
        limits: Limits,
    ) -> None:
        self.topic = topic
        self.positions = positions
        names = ("records", "rounds", "batches", "again", "holes", "unclaimed", "read_ahead", "too_large")
        self.counts = dict.fromkeys(names, 0)
        self.claimed = asyncio.Event()  # all that the group assigned is claimed
        self._settings, self._group = settings, group
        self._handler, self._producer, self._limits = handler, producer, limits
        self._consumer: Any = None
        self._queues: dict[int, Queue] = {}
        self._unclaimed: dict[int, float] = {}  # partition -> claim only after a heartbeat later than this
        self._round = asyncio.Lock()
        self._limit: asyncio.Timeout | None = None  # of the wait for the store that is going on
        self._heartbeat_at = 0.0
        self._stopping = False
        self._fatal: BaseException | None = None
        self._said_behind = -math.inf
        self._ends: dict[int, int] = {}  # of the claimed partitions, as the broker tells them now and then

    async def run(self) -> None:
        """Consume until `stop`. Raises LaneRefused, ProduceError, StoreError: the process must end."""
        self._consumer = await kafka.start_consumer(self._settings, group=self._group)
        self._note_heartbeats()
        self._consumer.subscribe([self.topic], listener=_Listener(self))
        watching = watch(self, self._settings.kafka.session_timeout_s)
        tasks = [asyncio.create_task(self._turns()), asyncio.create_task(watching)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except KafkaError as error:  # what the client does not repeat by itself
            raise LaneRefused(
                f"{self.topic}: the broker refused the group or a fetch ({type(error).__name__}: {error}); "
                "start the worker again: it goes on where it stood"
            ) from error
        finally:
            for task in tasks:  # a turn that is cut off was not acknowledged
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close()

    def stop(self) -> None:
        """Finish the round in flight (10 s at most), write positions down, leave the group."""
        self._stopping = True
        asyncio.get_running_loop().call_later(_REVOKE_WITHIN_S, self._break_off)

    def lag(self) -> int:
        """High watermark - position, over the claimed partitions (0 where the broker has not told the watermark yet).

        Open transactions and the markers of closed ones do not count: they cannot be read.
        """
        return sum(self._lag_of(p, queue) for p, queue in self._queues.items())

    # ---------------------------------------------------------------- a turn of the loop
    async def _turns(self) -> None:
        while not self._stopping:
            if self._fatal is not None:
                raise self._fatal
            await self._turn()

    async def _turn(self) -> None:
        await self._fill()
        async with self._round:
            try:
                await self._next_round()
            except _BrokenOff:
                log.warning("round broken off: the store did not answer in time", topic=self.topic)
                for partition in list(self._queues):  # it may have happened, and may not: claim again and see
                    self._lose(partition, "GAP")

    async def _next_round(self) -> None:
        if self._unclaimed:
            await self._claim()
        users = max(_FEWEST_USERS, self._limits.round_users // max(1, len(self._queues)))
        batches = [batch for p, queue in self._queues.items() if (batch := queue.cut(p, self._limits, users))]
        if batches:
            await self._settle(batches)
        else:
            for partition in await self._from_store(self.positions.idle()):
                self._lose(partition, "FENCED")

    async def _from_store(self, work: Awaitable[T]) -> T:
        """Wait for what asks the store. It may ask for ever, so `_break_off` can end it: nothing was sent yet."""
        try:
            async with asyncio.timeout(None) as self._limit:
                return await work
        except TimeoutError:
            if self._limit is not None and self._limit.expired():
                raise _BrokenOff from None
            raise
        finally:
            self._limit = None

    def _break_off(self) -> bool:
        """End the wait for the store that is going on; False when there is none."""
        if self._limit is None:
            return False
        self._limit.reschedule(asyncio.get_running_loop().time())
        return True

    async def _fill(self) -> None:
        """Wait for records; while some wait already, only look what the other partitions have.

        So a partition with many small batches to come (one user's large events) holds nobody else up.
        """
        empty = [TopicPartition(self.topic, p) for p, queue in self._queues.items() if not queue.records]
        if len(empty) == len(self._queues):
            await self._poll([], 50 if self._unclaimed else _IDLE_AFTER_MS, self._limits.poll_records)
            await self._read_ahead()
        elif empty:
            await self._poll(empty, 0, max(1, self._limits.poll_records // _MORE))

    async def _read_ahead(self) -> None:
        """Of a backlog of more than a poll take as much as may wait in memory: the more of it a round sees, the fewer
        answers does it need."""
        limits = self._limits
        while limits.ahead_records and (behind := self._unread()) >= limits.poll_records and not self._stopping:
            waiting = [record for queue in self._queues.values() for record in queue.records]
            size = sum(len(record.value or b"") for record in waiting)
            if len(waiting) >= limits.ahead_records or size >= limits.ahead_bytes:
                return
            self._say_behind(behind)
            await self._poll([], _AHEAD_MS, limits.poll_records)
            more = sum(len(queue.records) for queue in self._queues.values()) - len(waiting)
            if more <= 0:
                return
            self.counts["read_ahead"] += more

    def _unread(self) -> int:
        """Records that are known to stand behind those that wait in memory."""
        return sum(max(0, self._readable_end(p) - queue.position) for p, queue in self._queues.items())

    def _say_behind(self, behind: int) -> None:
        if time.monotonic() - self._said_behind > _SAY_EVERY_S:
            self._said_behind = time.monotonic()
            log.warning("overload: only the newest state of a user is answered", topic=self.topic, behind=behind)

    async def _poll(self, of: Sequence[TopicPartition], timeout_ms: int, most: int) -> None:
        try:
            fetched = await self._consumer.getmany(*of, timeout_ms=timeout_ms, max_records=most)
        except NoOffsetForPartitionError:  # a new group's partition, before the claim has sought
            return
        except OffsetOutOfRangeError as error:
            for tp in error.args[0]:
                if tp.partition in self._queues:  # claim again: the start rules say what it means
                    self._lose(tp.partition, "GAP")
            return
        for tp, records in fetched.items():
            queue = self._queues.get(tp.partition)
            if queue is None:
                self.counts["unclaimed"] += len(records)
            elif records:
                self._enqueue(tp, queue, records)
        if not fetched and not of:
            for partition, queue in self._queues.items():
                queue.passed = await self._consumer.position(TopicPartition(self.topic, partition))

    def _enqueue(self, tp: TopicPartition, queue: Queue, records: list[Any]) -> None:
        if records[0].offset < queue.position:
            records = [r for r in records if r.offset >= queue.position]
            if not records:
                return
        if self.positions.contiguous and records[0].offset > queue.position:
            if queue.hole_at != queue.position:
                queue.hole_at = queue.position
                self._consumer.seek(tp, queue.position)
                return
            self.counts["holes"] += 1  # the log itself has it: transaction markers
        if self.positions.contiguous and records[-1].offset - records[0].offset >= len(records):
            self.counts["holes"] += sum(after.offset - one.offset > 1 for one, after in pairwise(records))
        queue.records.extend(records)
        queue.position = records[-1].offset + 1

    async def _settle(self, batches: list[Batch]) -> None:
        """The order of effects, written here and nowhere else:

        1. handle: decode, read what is missing, compute. Nothing has happened yet.
        2. apply: the store takes states and position together, or says FENCED or GAP; those batches end here.
        3. stored: only now may cached states be replaced.
        4. send every output, or the dead letter of what is too large for the broker; wait for every acknowledgement.
           A failure ends the process.
        5. advance: only now are the records behind us.
        A crash anywhere repeats from 1: applied records are announced again, the others are applied.
        """
        results = await self._from_store(self._handler.handle(batches))
        standing, lost = await self._from_store(self.positions.apply(results))
        now = time.monotonic()
        for result in standing:
            self._handler.stored(result)
            queue = self._queues[result.batch.partition]
            queue.stand.next = max(queue.stand.next, result.batch.next)
            queue.progressed = now
            self.counts["records"] += len(result.batch.records)
            self.counts["again"] += len(result.batch.records) if result.batch.again else 0
        outputs = (output for result in standing for output in result.outputs)
        await self._producer.send(outputs, lambda output: self._letter(standing, output))
        await self.positions.advance(standing)
        for partition, kind in lost.items():
            self._lose(partition, kind)
        self.counts["rounds"] += 1
        self.counts["batches"] += len(batches)

    def _letter(self, standing: list[Result], output: Output) -> Output:
        """The dead letter of the record that `output` answers: made again it would be too large again."""
        batch = next(result.batch for result in standing if any(output is one for one in result.outputs))
        record = next((one for one in reversed(batch.records) if one.key == output.key), batch.records[-1])
        reason = f"its output for {output.topic} takes {size_of(output)} bytes; at most {LARGEST_RECORD} are taken"
        self.counts["too_large"] += 1
        bad = BadRecord(record, "publish", reason, "OutputTooLarge")
        return dead_letter(bad, self._settings.topic("dead-letters"), self._group, int(time.time() * 1000))

    # ---------------------------------------------------------------- partitions come and go
    async def _claim(self) -> None:
        ready = [p for p in self._unclaimed if self._may_claim(p)]
        if not ready:
            return
        try:
            stands = await self._from_store(self.positions.claim(self._consumer, ready, self._may_claim))
        except KafkaError as error:
            if not error.retriable:
                raise
            log.info("not claimed yet: the broker does not tell offsets", topic=self.topic, error=repr(error))
            stands = {}
        if not stands:
            return
        for partition, stand in stands.items():
            if partition not in self._unclaimed:  # taken away while we asked
                continue
            del self._unclaimed[partition]
            if not stand.kept:
                self._handler.drop(partition)
            self._consumer.seek(TopicPartition(self.topic, partition), stand.start)
            self._queues[partition] = Queue(stand, stand.start, progressed=time.monotonic())
        log.info("claimed", topic=self.topic, partitions=sorted(stands))
        if not self._unclaimed:
            self.claimed.set()

    def _may_claim(self, partition: int) -> bool:
        """Only a member whose last heartbeat is fresh claims: a frozen one must not fence its successor."""
        fresh = time.monotonic() - self._heartbeat_at < self._settings.kafka.session_timeout_s / 2
        after = self._unclaimed.get(partition)  # None = taken away meanwhile
        return fresh and after is not None and self._heartbeat_at > after

    def _lose(self, partition: int, kind: str) -> None:
        """A claim or its records are void: drop all of it; claim again while the group still assigns it to us."""
        self._queues.pop(partition, None)
        self._handler.drop(partition)
        self.claimed.clear()
        self._unclaimed[partition] = time.monotonic() if kind == "FENCED" else 0.0

    async def revoked(self, partitions: Collection[int]) -> None:
        """The group takes partitions away: no new round, 10 s for the one in flight. One that waits for the store then
        is broken off and done again by whoever comes next; one that is sending cannot be: the process must end."""
        try:
            await asyncio.wait_for(self._round.acquire(), _REVOKE_WITHIN_S)
        except TimeoutError:
            if not self._break_off():
                self._fatal = LaneRefused(
                    f"{self.topic}: a round did not end within {_REVOKE_WITHIN_S:.0f} s of a rebalance"
                )
                return
            await self._round.acquire()
        try:
            await self.positions.release(partitions)
            for partition in partitions:
                self._queues.pop(partition, None)
                self._unclaimed.pop(partition, None)
        finally:
            self._round.release()

    def assigned(self, partitions: Collection[int], before: Collection[int]) -> None:
        """The group gives partitions; they are claimed in the loop, where an error counts."""
        self._heartbeat_at = time.monotonic()
        for partition in set(before) - set(partitions):
            self._handler.drop(partition)
        self._unclaimed = dict.fromkeys(partitions, 0.0)
        self._ends = {}
        self.claimed.clear()
        if not partitions:
            self.claimed.set()

    async def _close(self) -> None:
        async with self._round:
            await self.positions.release(list(self._queues))
        try:
            await asyncio.wait_for(self._consumer.stop(), 5)
        except TimeoutError:
            log.warning("consumer did not close: the broker does not answer", topic=self.topic)

    # ---------------------------------------------------------------- watching
    def _note_heartbeats(self) -> None:
        """Keep the time of the last heartbeat that the group took; the client does not tell."""
        coordinator = self._consumer._coordinator
        beat = coordinator._do_heartbeat

        async def noted() -> bool:
            taken: bool = await beat()
            if taken:
                self._heartbeat_at = time.monotonic()
            return taken

        coordinator._do_heartbeat = noted

    def awaited(self, patience_s: float) -> dict[str, object]:
        """What must move, as the words that end the lane if it does not; the signs tell whether it did."""
        for_s = f"for {patience_s:.0f} s"
        awaited: dict[str, object] = {f": group {self._group} took no heartbeat {for_s}": self._heartbeat_at}
        for partition in self._unclaimed:
            awaited[f"[{partition}]: assigned, but not claimed {for_s}"] = ""
        for partition, queue in self._queues.items():
            if self._lag_of(partition, queue) > 0:
                awaited[f"[{partition}]: no progress {for_s} although there is lag"] = queue.progressed
        return awaited

    def waits(self) -> bool:
        """Whether a call to the store is being repeated."""
        return self.positions.waits()

    async def servers_answer(self) -> bool:
        """Whether broker and store are there."""
        return await self.positions.reachable() and await kafka.answers(self._settings)

    async def ask_ends(self) -> None:
        """A consumer that fetches nothing any more does not hear of what is written: ask where the log ends."""
        tps = [TopicPartition(self.topic, partition) for partition in self._queues]
        try:
            async with asyncio.timeout(_ENDS_WITHIN_S):
                ends = await self._consumer.end_offsets(tps) if tps else {}
        except (KafkaError, TimeoutError):
            return
        self._ends = {tp.partition: end for tp, end in ends.items()}

    def _readable_end(self, partition: int) -> int:
        """Behind the last record that may be read, as far as the last fetch told."""
        tp = TopicPartition(self.topic, partition)
        if tp not in self._consumer.assignment():  # it is being taken away
            return 0
        high, stable = self._consumer.highwater(tp) or 0, self._consumer.last_stable_offset(tp)
        return int(high if stable is None or stable < 0 else min(high, stable))

    def _lag_of(self, partition: int, queue: Queue) -> int:
        end = max(self._readable_end(partition), self._ends.get(partition, 0))
        return max(0, end - max(queue.stand.next, queue.passed))


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Rebalances are eager: everything is revoked, then what remains ours is assigned anew."""

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._had: set[int] = set()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self._had = {tp.partition for tp in revoked} or self._had
        await self._lane.revoked([tp.partition for tp in revoked])

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self._lane.assigned([tp.partition for tp in assigned], before=self._had)
