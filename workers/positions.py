"""Where a lane stands in its log: in the store, atomically with the states (events), or in the group's commits
(states).

A lane asks its positions five things, in this order: `claim` partitions, `apply` what was computed, `advance` past
what was sent, `idle` now and then, `release` what the group took away.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from workers.failpoints import fail_point
from workers.store import Apply, Store, Write
from workers.wire.output import Output

log = structlog.get_logger()

_COMMIT_EVERY_S = 1.0
_CLAIMS_IN_60_S = 3
_RELEASE_WITHIN_S = 2.0


class LaneRefused(RuntimeError):
    """The lane must not go on: the message says what was found, where, and what to do."""


@dataclass(frozen=True, slots=True)
class FeedOutput:
    """An output that is sent only if the store takes the feed as newer."""

    partition: int
    user: str
    version: int
    revision: int
    feed: bytes
    output: Output


@dataclass(frozen=True, slots=True)
class Batch:
    """Records of one partition, in log order: those of [first record, next)."""

    partition: int
    records: Sequence[Any]
    expected: int  # the first offset not applied before this batch
    next: int
    again: bool = False  # all of it is applied already: only announce
    waiting: Sequence[Any] = ()  # where the newest wins: the last record behind the batch of each user in it, if read


@dataclass(frozen=True, slots=True)
class Result:
    """What a handler makes of a batch: what to store, and what to send when that is done."""

    batch: Batch
    writes: list[Write] = field(default_factory=list)
    feeds: list[FeedOutput] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)


@dataclass(slots=True)
class Stand:
    """Where a claimed partition stands."""

    start: int  # where to read from
    next: int  # first offset not applied; below it records are announced again, not applied
    kept: bool = False  # cached states are still good: the claim found us as its previous owner


MayClaim = Callable[[int], bool]  # whether this process may (still) claim a partition


class Positions(Protocol):
    """Where a lane stands; see the module's docstring."""

    contiguous: bool  # offsets follow one another: a hole is looked at
    counts: dict[str, int]

    async def claim(self, consumer: Any, partitions: Collection[int], may: MayClaim) -> dict[int, Stand]: ...
    async def apply(self, results: list[Result]) -> tuple[list[Result], dict[int, str]]: ...
    async def advance(self, results: list[Result]) -> None: ...
    async def idle(self) -> set[int]: ...
    async def release(self, partitions: Collection[int]) -> None: ...
    async def reachable(self) -> bool: ...
    def waits(self) -> bool:
        """Whether calls to the store are being repeated at this moment: then nothing can progress."""


class StoredPositions:
    """Positions in the store, moved by the same call that writes the states; fenced by epoch."""

    contiguous = True

    def __init__(
        self, store: Store, topic: str, owner: str, *, accept_loss: bool = False, ends_told: bool = True
    ) -> None:
        """`ends_told`: where the broker says that a log ends, it ends (`Broker.tells_ends`)."""
        self._store = store
        self._topic = topic
        self._owner = owner
        self._accept_loss = accept_loss
        self._ends_told = ends_told
        self._epochs: dict[int, int] = {}
        self._own_next: dict[int, int] = {}  # outlives a claim: tells whether another one moved on
        self._sent: dict[int, int] = {}
        self._sent_stored: dict[int, int] = {}
        self._fenced_at: dict[int, list[float]] = {}
        self.counts = {"fenced": 0, "gaps": 0, "dups": 0, "claims": 0, "announcements_lost": 0}

    async def claim(self, consumer: Any, partitions: Collection[int], may: MayClaim) -> dict[int, Stand]:
        """Fence every earlier writer of `partitions` and learn where they stand.

        Those that `may` does not allow any more at the last moment are left out: asking the broker takes time, and a
        process may be frozen meanwhile. Raises LaneRefused where the log no longer holds what the store has not
        applied, or ends before it.
        """
        tps = {p: TopicPartition(self._topic, p) for p in partitions}
        starts = await consumer.beginning_offsets(list(tps.values()))
        fresh = [p for p, tp in tps.items() if starts[tp] == 0]
        await fail_point("before_claim")
        allowed = [p for p in partitions if may(p)]
        claims = await self._store.claim(allowed, self._owner, fresh) if allowed else {}
        await fail_point("after_claim")
        # Asked after the claim: while we were frozen before it, others may have gone on beyond an end asked earlier.
        ends = await consumer.end_offsets(list(tps.values()))
        stands = {}
        for p, claim in claims.items():
            start = self._checked_start(p, claim.next, claim.sent, starts[tps[p]])
            self._check_end(p, claim.next, ends[tps[p]])
            kept = claim.previous_owner == self._owner and self._own_next.get(p) == claim.next
            self._epochs[p], self._own_next[p] = claim.epoch, claim.next
            self._sent_stored[p] = claim.sent
            self._sent[p] = max(claim.sent, min(start, claim.next))  # what is lost is told once: `idle` writes it down
            stands[p] = Stand(start, claim.next, kept)
            self.counts["claims"] += 1
        return stands

    def _checked_start(self, partition: int, next_: int, sent: int, log_start: int) -> int:
        where = f"{self._topic}[{partition}]"
        if next_ < log_start and not self._accept_loss:
            raise LaneRefused(
                f"{where}: the store stands at {next_}, the log begins at {log_start}: {log_start - next_} events "
                "are gone before they were applied; go on without them with --accept-loss"
            )
        if sent < log_start:
            lost = log_start - max(sent, 0)
            self.counts["announcements_lost"] += lost
            log.error(
                "announcements lost: the log begins after them", where=where, sent=sent, begins=log_start, lost=lost
            )
        return max(min(sent, next_), log_start)

    def _check_end(self, partition: int, next_: int, log_end: int) -> None:
        if next_ > log_end and self._ends_told:
            raise LaneRefused(
                f"{self._topic}[{partition}]: the store stands at {next_}, the log ends at {log_end}: this is not "
                "the log that the states were made from; point the worker at the right broker, or use another prefix"
            )

    async def apply(self, results: list[Result]) -> tuple[list[Result], dict[int, str]]:
        """Store what was computed; the results that stand, and the partitions to claim again: FENCED or GAP."""
        calls = [
            Apply(
                partition=r.batch.partition,
                epoch=self._epochs[r.batch.partition],
                expected=r.batch.expected,
                next=r.batch.next,
                sent=self._sent[r.batch.partition],
                writes=r.writes,
            )
            for r in results
            if not r.batch.again
        ]
        await fail_point("before_apply")
        answers = {c.partition: a for c, a in zip(calls, await self._store.apply(calls), strict=True)} if calls else {}
        await fail_point("after_apply")
        stand: list[Result] = []
        lost: dict[int, str] = {}
        for result in results:
            p = result.batch.partition
            answer = answers.get(p)
            if answer is None or answer.kind in ("OK", "DUP"):
                self._took(p, result, answer)
                stand.append(result)
            else:
                self._refused(p, result, answer)
                lost[p] = answer.kind
        return stand, lost

    def _took(self, partition: int, result: Result, answer: Any) -> None:
        if answer is None:
            return
        self.counts["dups"] += answer.kind == "DUP"
        self._own_next[partition] = result.batch.next
        self._sent_stored[partition] = max(self._sent_stored[partition], self._sent[partition])

    def _refused(self, partition: int, result: Result, answer: Any) -> None:
        where = f"{self._topic}[{partition}]@{result.batch.expected}"
        if answer.kind == "LOST":
            raise LaneRefused(f"{where}: the store has lost its position; restart: the start rules decide")
        self._own_next.pop(partition, None)
        self._epochs.pop(partition, None)
        if answer.kind == "FENCED":
            self._fenced(partition, where)
        else:
            self.counts["gaps"] += 1
            log.warning("gap: the store stands elsewhere", where=where, found=answer.next)

    def _fenced(self, partition: int, where: str) -> None:
        self.counts["fenced"] += 1
        now = time.monotonic()
        recent = [t for t in self._fenced_at.get(partition, []) if now - t < 60] + [now]
        self._fenced_at[partition] = recent
        log.warning("fenced: another worker claimed the partition", where=where)
        if len(recent) >= _CLAIMS_IN_60_S:
            raise LaneRefused(f"{where}: fenced {len(recent)} times in 60 s: another worker believes to own it")

    async def advance(self, results: list[Result]) -> None:
        """The outputs of `results` are acknowledged; `sent` rides on the next apply."""
        for result in results:
            p = result.batch.partition
            self._sent[p] = max(self._sent[p], result.batch.next)

    async def idle(self) -> set[int]:
        """Write the `sent` that no apply carried; the partitions found fenced."""
        fenced = set()
        for p, sent in self._sent.items():
            if p in self._epochs and sent > self._sent_stored[p]:
                if await self._store.sent(p, self._epochs[p], sent) == "OK":
                    self._sent_stored[p] = sent
                else:
                    fenced.add(p)
        for p in fenced:
            del self._epochs[p]
            self._fenced(p, f"{self._topic}[{p}]@{self._sent[p]}")
        return fenced

    async def release(self, partitions: Collection[int]) -> None:
        """Forget the claims; what was sent is written down, so that a successor announces nothing twice."""
        epochs = {p: epoch for p in partitions if (epoch := self._epochs.pop(p, None)) is not None}
        try:
            async with asyncio.timeout(_RELEASE_WITHIN_S):
                for p, epoch in epochs.items():
                    if self._sent[p] > self._sent_stored[p]:
                        await self._store.sent(p, epoch, self._sent[p])
        except TimeoutError:
            log.warning("the store does not answer: the next owner will announce again", partitions=sorted(epochs))

    async def reachable(self) -> bool:
        """Whether the store answers now: while it does not, no progress is expected."""
        return await self._store.reachable()

    def waits(self) -> bool:
        """Whether calls to the store are being repeated at this moment."""
        return self._store.repeating


class GroupPositions:
    """Positions in the consumer group's commits; every effect is idempotent, so a commit may lag."""

    contiguous = False  # the topic is compacted

    def __init__(self, store: Store, topic: str, *, ends_told: bool = True) -> None:
        """`ends_told` as of StoredPositions."""
        self._store = store
        self._topic = topic
        self._ends_told = ends_told
        self._consumer: Any = None
        self._done: dict[int, int] = {}
        self._committed_at = 0.0
        self.counts = {"feeds_stale": 0, "commits": 0}

    async def claim(self, consumer: Any, partitions: Collection[int], may: MayClaim) -> dict[int, Stand]:
        """Begin at the group's commits, which fence nobody.

        A new group begins at the earliest record, and so does one whose commit is behind the log's end: it was made in
        another log, and would be waited at for ever.
        """
        self._consumer = consumer
        tps = [TopicPartition(self._topic, p) for p in partitions]
        starts = await consumer.beginning_offsets(tps)
        commits = {tp: await consumer.committed(tp) or 0 for tp in tps}
        ends = await consumer.end_offsets(tps)  # after the commits: others may go on while we wait
        stands = {}
        for tp in tps:
            committed = commits[tp]
            if committed > ends[tp] and self._ends_told:
                log.error("commit of another log: from its beginning", topic=tp.topic, partition=tp.partition,
                          committed=committed, ends=ends[tp])  # fmt: skip
                committed = 0
            start = max(starts[tp], committed)
            stands[tp.partition] = Stand(start, start)
        return {p: stand for p, stand in stands.items() if may(p)}

    async def apply(self, results: list[Result]) -> tuple[list[Result], dict[int, str]]:
        """Offer the feeds to the store; only those that it takes as newer are sent."""
        offered = [feed for r in results for feed in r.feeds]
        if not offered:
            return results, {}
        taken = iter(await self._store.put_feeds(offered))
        await fail_point("after_apply")
        accepted = []
        for r in results:
            mine = [feed.output for feed in r.feeds if next(taken)]
            self.counts["feeds_stale"] += len(r.feeds) - len(mine)
            accepted.append(Result(r.batch, outputs=r.outputs + mine))  # a tombstone before a new beginning
        return accepted, {}

    async def advance(self, results: list[Result]) -> None:
        """The outputs of `results` are acknowledged: commit, at most once a second."""
        self._done.update((r.batch.partition, r.batch.next) for r in results)
        if time.monotonic() - self._committed_at >= _COMMIT_EVERY_S:
            await self.idle()

    async def idle(self) -> set[int]:
        """Commit what is done; a commit that is not taken is tried again later, and costs a redelivery at worst."""
        if self._done:
            done, self._done = self._done, {}
            self._committed_at = time.monotonic()
            try:
                await self._consumer.commit({TopicPartition(self._topic, p): offset for p, offset in done.items()})
                self.counts["commits"] += 1
            except KafkaError as error:
                log.info("commit not taken", error=f"{type(error).__name__}: {error}")
                self._done = {**done, **self._done}
        return set()

    async def release(self, partitions: Collection[int]) -> None:
        """Commit before the partitions go."""
        try:
            async with asyncio.timeout(_RELEASE_WITHIN_S):
                await self.idle()
        except TimeoutError:
            log.warning("the broker takes no commit: the next owner does it again", partitions=sorted(partitions))
        for p in partitions:
            self._done.pop(p, None)

    async def reachable(self) -> bool:
        """Whether the store answers now: while it does not, no progress is expected."""
        return await self._store.reachable()

    def waits(self) -> bool:
        """Whether calls to the store are being repeated at this moment."""
        return self._store.repeating
