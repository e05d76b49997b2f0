"""Real worker processes, a driver of events, and the verdict of the oracle: what every fault test shares.

A fault counts only if it bit, so besides the verdict the harness tells what happened: who owned which partition with
how much lag when it was killed, what was announced again, what the workers logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import redis
from aiokafka import TopicPartition

from pipeline.state import durable, embedding
from pipeline.types import ItemVectors, hash_id
from tests import oracle
from tests.waiting import eventually
from workers import kafka
from workers.settings import Settings
from workers.store import Store
from workers.wire.model import encode_vectors
from workers.wire.state import decode_state

ITEMS = 200
ACTIONS = ("view", "click", "like", "purchase", "dislike", "impression", "profile", "tap")
SHARES = (0.46, 0.3, 0.1, 0.05, 0.03, 0.02, 0.02, 0.02)
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Worker:
    """A worker process and its log."""

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, as a crash does; returns when the process is gone."""
        self.signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; the exit status. Killed after 30 s."""
        if self.process.poll() is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9

    def counted(self, name: str) -> int:
        """A counter that it logged when it stopped."""
        lines = [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]
        return int(next(line[name] for line in reversed(lines) if name in line))

    def logged(self, text: str) -> int:
        """How often a line of its log has `text`."""
        return sum(text in line for line in self.log.read_text(errors="replace").splitlines())


@dataclass
class Verdict:
    """What the store holds compared with what the log says it must hold."""

    users: int
    wrong: list[str] = field(default_factory=list)  # users missing, too many, or with other durable bytes
    wrong_embeddings: list[str] = field(default_factory=list)
    positions_wrong: list[int] = field(default_factory=list)
    unannounced: list[str] = field(default_factory=list)  # users whose last version is not on `states`
    announced_again: int = 0  # records of `states` for events that the store had already when they were delivered
    events: int = 0
    duplicates: int = 0

    def assert_equal(self) -> None:
        """Same users, same positions, same bytes; everyone's last version announced."""
        assert self.users > 0
        assert not self.wrong, f"{len(self.wrong)} users differ: {self.wrong[:5]}"
        assert not self.positions_wrong, f"partitions that do not stand at their log's end: {self.positions_wrong}"
        assert not self.unannounced, f"{len(self.unannounced)} users unannounced: {self.unannounced[:5]}"
        assert not self.wrong_embeddings, f"{len(self.wrong_embeddings)} embeddings differ: {self.wrong_embeddings[:5]}"


class Run:
    """One prefix: its topics, its store, a model that does not move, workers, a driver."""

    def __init__(self, settings: Settings, folder: Path = Path(), seed: int = 1) -> None:
        self.settings, self.folder = settings, folder
        self.workers: list[Worker] = []
        self.sent = 0
        self.resent = 0
        self._rng = np.random.default_rng(seed)
        self._recent: list[tuple[bytes, bytes]] = []
        self.vectors: dict[int, list[float]] = {}

    # ---------------------------------------------------------------- set-up
    async def prepare(self) -> None:
        """A frozen model: fixed records, no trainer. Topics and store are there."""
        k = self.settings.model.dimension
        records = []
        for i in range(ITEMS):
            e_in = self._rng.normal(size=k).astype(np.float32)
            self.vectors[hash_id(f"i-{i}")] = e_in.tolist()
            zeros = np.zeros(k, np.float32)
            vectors = ItemVectors(
                f"i-{i}", hash_id(f"i-{i}"), e_in, zeros, 0.0, zeros[:3], zeros[:4], 0, 1.0, zeros[:3], 1, 1
            )
            records.append((f"v:i-{i}".encode(), encode_vectors(vectors, epoch=1, version=1)))
        await self._produce("model", records, partitions=1)

    def spawn(self, role: str = "embedding", **environ: str) -> Worker:
        """A worker process of this prefix. `environ` adds variables, fail points among them."""
        log = self.folder / f"{role}-{len(self.workers)}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "workers.cli", "worker", role],
                cwd=ROOT,
                env={**os.environ, **self.environ(), **environ},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        worker = Worker(process, log)
        self.workers.append(worker)
        return worker

    def environ(self) -> dict[str, str]:
        """The settings as a worker process reads them."""
        s = self.settings
        return {
            "HEADRACE_PREFIX": s.prefix,
            "HEADRACE_KAFKA_BOOTSTRAP": s.kafka.bootstrap,
            "HEADRACE_KAFKA_PARTITIONS": str(s.kafka.partitions),
            "HEADRACE_KAFKA_SESSION_TIMEOUT_S": str(s.kafka.session_timeout_s),
            "HEADRACE_KAFKA_HEARTBEAT_S": str(s.kafka.heartbeat_s),
            "HEADRACE_STORE_URL": s.store.url,
            "HEADRACE_MODEL_DIMENSION": str(s.model.dimension),
            "HEADRACE_CLOCK": s.clock,
        }

    async def stop(self) -> None:
        """End every process that is left."""
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.signal(signal.SIGCONT)
                worker.kill()

    # ---------------------------------------------------------------- driving
    async def drive(self, events: int, resend: float = 0.0, bad: float = 0.01, forget: float = 0.01) -> None:
        """Write events of 300 users: shares of them again with the same id a little later, unreadable, forgetting."""
        records: list[tuple[bytes, bytes]] = []
        for _ in range(events):
            key, event = self._event(forget)
            records.append((key, event))
            self._recent = [*self._recent[-20:], (key, event)]
            if self._rng.random() < resend:
                records.append(self._recent[self._rng.integers(len(self._recent))])
                self.resent += 1
            if self._rng.random() < bad:
                records.append((key, b"\xff not an event"))
        await self._produce("events", records, self.settings.kafka.partitions)
        self.sent += len(records)

    @contextlib.asynccontextmanager
    async def load(self, batch: int = 200, **shares: float) -> AsyncIterator[None]:
        """Write events without a break for as long as the block runs: load for a fault to happen under. `shares` are
        those of `drive`."""
        ended = asyncio.Event()

        async def write() -> None:
            while not ended.is_set():
                await self.drive(batch, **shares)
                await asyncio.sleep(0.05)

        writing = asyncio.create_task(write())
        try:
            yield
        finally:
            ended.set()
            await writing

    def _event(self, forget: float) -> tuple[bytes, bytes]:
        rng = self._rng
        user, item = f"u-{rng.integers(300)}", f"i-{rng.integers(ITEMS)}"
        action = "forget" if rng.random() < forget else str(rng.choice(ACTIONS, p=SHARES))
        event: dict[str, Any] = {"user_id": user, "action": action, "event_id": f"e-{rng.integers(2**62)}"}
        if action == "profile":
            event["attributes"] = {"market": "de", "muted_creators": [item]}
        elif action == "impression":
            event["items"] = [item]
        elif action != "forget":
            event["item_id"] = item
        return user.encode(), json.dumps(event).encode()

    async def _produce(self, dataset: str, records: Sequence[tuple[bytes, bytes]], partitions: int) -> None:
        rules = oracle.Rules(partitions=partitions, partitioner=self.settings.partitioner)
        producer = await kafka.start_producer(self.settings)
        try:
            topic = self.settings.topic(dataset)
            pending = [
                await producer.send(topic, value, key=key, partition=oracle.partition_of(key, rules))
                for key, value in records
            ]
            await asyncio.gather(*pending)
        finally:
            await producer.stop()

    # ---------------------------------------------------------------- looking
    async def read(self, dataset: str) -> list[Any]:
        """Every record of a topic, read from its beginning."""
        consumer = await kafka.start_consumer(self.settings, group=None)
        try:
            topic = self.settings.topic(dataset)
            tps = [TopicPartition(topic, p) for p in await kafka.partitions_of(consumer, topic)]
            consumer.assign(tps)
            ends = await consumer.end_offsets(tps)
            await consumer.seek_to_beginning(*tps)
            found: list[Any] = []
            missing = {tp for tp in tps if ends[tp] > 0}
            while missing:
                for tp, records in (await consumer.getmany(timeout_ms=500)).items():
                    found += records
                    if records[-1].offset >= ends[tp] - 1:
                        missing.discard(tp)
            return found
        finally:
            await consumer.stop()

    async def positions(self) -> dict[int, Any]:
        """Where each partition of `events` stands in the store."""
        store = await Store.connect(self.settings)
        try:
            return await store.positions(range(self.settings.kafka.partitions))
        finally:
            await store.close()

    async def log_ends(self) -> dict[int, int]:
        """Where each partition of `events` ends."""
        consumer = await kafka.start_consumer(self.settings, group=None)
        try:
            topic = self.settings.topic("events")
            tps = [TopicPartition(topic, p) for p in range(self.settings.kafka.partitions)]
            return {tp.partition: end for tp, end in (await consumer.end_offsets(tps)).items()}
        finally:
            await consumer.stop()

    async def lag_of(self, worker: Worker) -> int:
        """Events not yet applied in the partitions that `worker` owns now."""
        ends, positions = await self.log_ends(), await self.positions()
        return sum(ends[p] - position.next for p, position in positions.items() if f":{worker.pid}:" in position.owner)

    async def drained(self, within_s: float = 90.0) -> None:
        """Wait until everything is applied, and everything applied is announced."""
        ends = await self.log_ends()

        async def at_end() -> bool:
            positions = await self.positions()
            return all(
                p in positions and positions[p].next == end == positions[p].sent for p, end in ends.items() if end
            )

        await eventually(at_end, within_s)

    async def verdict(self) -> Verdict:
        """Replay the log in the oracle and compare."""
        log, announced = await self.read("events"), await self.read("states")
        log.sort(key=lambda r: (r.partition, r.offset))
        records = [oracle.Record(r.key, r.value, r.headers, r.timestamp, r.partition, r.offset) for r in log]
        rules = oracle.Rules(
            now=int(time.time() * 1000), clock=self.settings.clock, partitions=self.settings.kafka.partitions
        )
        expected = oracle.replay(records, rules)
        verdict = Verdict(len(expected.users), events=len(records), duplicates=expected.duplicates)
        self._compare_users(expected, verdict)
        ends = await self.log_ends()
        positions = await self.positions()
        verdict.positions_wrong = [p for p, end in ends.items() if end and positions[p].next != end]
        self._compare_announced(expected, announced, verdict)
        return verdict

    def _compare_users(self, expected: oracle.Replay, verdict: Verdict) -> None:
        k = self.settings.model.dimension
        with redis.Redis.from_url(self.settings.store.url) as client:
            pattern = f"{self.settings.prefix}:u:*"
            found = {key.decode().split("}:", 1)[1]: client.get(key) for key in client.scan_iter(pattern, 1000)}
        for user in sorted(set(found) | set(expected.users)):
            blob = found.get(user)
            if blob is None or durable(blob) != expected.durable(user, k):
                verdict.wrong.append(user)
            elif not np.array_equal(embedding(blob), oracle.embedding(expected.users[user], self.vectors, k)):
                verdict.wrong_embeddings.append(user)

    def _compare_announced(self, expected: oracle.Replay, announced: list[Any], verdict: Verdict) -> None:
        versions: dict[str, int] = {}
        for record in announced:
            user = record.key.decode()
            if record.value is None:
                last = int(dict(record.headers)["offset"])
            else:
                state = decode_state(record.value)
                last = max(fresh.offset for fresh in state.fresh)
                verdict.announced_again += state.evicted is None
            versions[user] = max(versions.get(user, 0), last + 1)
        verdict.unannounced = [u for u, version in expected.announced().items() if versions.get(u, 0) < version]
