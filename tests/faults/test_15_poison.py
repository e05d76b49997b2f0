"""As many bad records as good ones, of every kind; and one user with thousands of large events.

Good events are all applied. Each bad record is a dead letter, once (twice only if its worker was given up by the group
and it was delivered again), with its bytes untouched (above 900 KiB the first 64 KiB and the hash). One of an event's
size costs little more than a good one, a larger one what its bytes cost, and none stops anybody.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import pytest
import redis
from aiokafka import AIOKafkaProducer

from tests import oracle
from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.configs import configured
from tests.faults.processes import Stopwatch, Worker
from tests.faults.run import FAST, Run
from tests.waiting import eventually
from workers.wire.dead_letter import KEPT, LARGEST

pytestmark = pytest.mark.slow

HUGE = 2 * 1024 * 1024
FEW_BATCHES = 32 * 2**20  # bytes more memory, about half of what the large events of the short form take
DEEP_EVERY = 50  # so many bad records; each takes as many bytes as hundreds of events
MANY_DIGITS_EVERY = 8  # each takes as many bytes as dozens
Given = tuple[bytes | None, bytes | None]  # key, value
Kinds = Callable[[str, int], Given]
Place = tuple[int, int]  # partition, offset


def of_an_events_size(user: str, at: int) -> Given:
    """The bad record number `at`, as a producer with that user's key would send it: no larger than a good one."""
    key, event = _good(user)
    kinds: list[Given] = [
        (key, event.replace(b"i-1", b"i-\xff\xc0")),  # no UTF-8
        (key, event[:-5]),  # truncated
        (key, b"[]"),
        (key, b'{"user_id":"%b","item_id":"i-1"}' % key),  # a field is missing
        (key, event[:-1] + b',"value":NaN}'),
        (key, event[:-1] + b',"value":1e999}'),
        (None, event),
    ]
    return kinds[at % len(kinds)]


def of_any_size(user: str, at: int) -> Given:
    """The same, of every kind but the hugest."""
    key, event = _good(user)
    if at % DEEP_EVERY == 0:
        within = event[:-1] + b',"context":' + b"[" * 20_000 + b"]" * 20_000 + b"}"  # the size of an event
        return key, within if at // DEEP_EVERY % 2 else b"[" * 100_000
    if at % MANY_DIGITS_EVERY == 0:
        return key, event[:-1] + b',"value":' + b"9" * 5_000 + b"}"
    return of_an_events_size(user, at)


def _good(user: str) -> tuple[bytes, bytes]:
    return user.encode(), json.dumps({"user_id": user, "action": "click", "item_id": "i-1"}).encode()


@dataclass
class Written:
    """What was written of bad records: where, and what."""

    bad: dict[Place, Given]


async def write(run: Run, good: int, bad: Kinds | None = None, huge: int = 0) -> Written:
    """Write good events, with `bad` a bad record of it after each; among those, `huge` of 2 MB."""
    rules = oracle.Rules(partitions=run.settings.kafka.partitions, partitioner=run.settings.partitioner)
    topic, rng = run.settings.topic("events"), np.random.default_rng(good)
    producer = AIOKafkaProducer(
        bootstrap_servers=run.settings.kafka.bootstrap,
        acks="all",
        compression_type="lz4",
        max_request_size=4 * HUGE,
        max_batch_size=1 << 18,
    )
    await producer.start()
    pending: list[tuple[asyncio.Future[Any], Given]] = []
    written: dict[Place, Given] = {}
    try:
        for at in range(good):
            key, event = run.driver.event()
            home = oracle.partition_of(key, rules)
            pending.append((await producer.send(topic, event, key=key, partition=home), (key, None)))
            if bad is not None:
                given = (key, rng.bytes(HUGE)) if at < huge else bad(key.decode(), at)
                pending.append((await producer.send(topic, given[1], key=given[0], partition=home), given))
            if len(pending) > 5_000:
                await _settle(pending, written)
        await _settle(pending, written)
    finally:
        await producer.stop()
    return Written(written)


async def _settle(pending: list[tuple[asyncio.Future[Any], Given]], written: dict[Place, Given]) -> None:
    for future, given in pending:
        metadata = await future
        if given[1] is not None:
            written[metadata.partition, metadata.offset] = given
    pending.clear()


def assert_intact(letters: list[Any], bad: dict[Place, Given], again: int) -> None:
    """Each bad record is there as it was, once but for `again` records that were delivered again; nothing else is."""
    places = set()
    for letter in letters:
        headers = dict(letter.headers)
        place = int(headers["__dlq.errors.partition"]), int(headers["__dlq.errors.offset"])
        key, value = bad[place]
        assert letter.key == key
        if value is not None and len(value) > LARGEST:
            assert letter.value == value[:KEPT]
            assert headers["__dlq.truncated"] == b"%d" % len(value)
            assert headers["__dlq.sha256"] == sha256(value).hexdigest().encode()
        else:
            assert letter.value == value
        places.add(place)
    assert places == set(bad)
    assert len(letters) <= len(bad) + again, f"{len(letters)} letters of {len(bad)} records, {again} delivered again"


class Cost(NamedTuple):
    """What a backlog took."""

    records: int
    seconds: float
    cpu_s: float


async def drain(run: Run, worker: Worker) -> Cost:
    """Wait from the first batch of a backlog to its end; what lies between is measured: no start, no compiling."""
    ends = await run.log_ends()
    with redis.Redis.from_url(run.settings.store.url) as client:

        async def applied() -> int:
            keys = [f"{run.settings.prefix}:o:{{{p}}}" for p in ends]
            return sum(int(client.hget(key, "next") or 0) for key in keys)

        before = await applied()

        async def begun() -> int:
            now = await applied()
            return now if now > before else 0

        first = await eventually(begun, 90)
        watch, cpu = Stopwatch(), worker.cpu_s()

        async def done() -> bool:
            return await applied() == sum(ends.values())

        await eventually(done, 300)
        return Cost(sum(ends.values()) - first, watch.seconds(), worker.cpu_s() - cpu)


def compare(fault: Fault, what: str, clean: Cost, poisoned: Cost, least: float) -> None:
    """What a record costs, bad ones among good ones, beside what it costs alone."""
    time_share = (poisoned.records / poisoned.seconds) / (clean.records / clean.seconds)
    cpu_share = (poisoned.records / poisoned.cpu_s) / (clean.records / clean.cpu_s)
    fault.saw(f"us CPU a record, {what}", round(1e6 * poisoned.cpu_s / poisoned.records, 1))
    fault.saw(f"% of clean records/s, {what}", round(100 * time_share))
    fault.saw(f"% of clean records/CPU s, {what}", round(100 * cpu_share))
    assert cpu_share > least, f"{what}: bad records cost too much beside good ones"


def test_poison_one_to_one(fault: Fault, make_settings: MakeSettings) -> None:
    good = fault.amount("good events", short=3_000, long=200_000)
    huge = fault.amount("of 2 MB", short=2, long=40)
    again = 0

    async def proof(run: Run) -> None:
        bad: dict[Place, Given] = {}

        async def taken(good: int, kinds: Kinds | None = None, huge: int = 0) -> tuple[Cost, Worker]:
            """What a worker takes for so many good events, with as many bad ones."""
            written = await write(run, good, kinds, huge)
            bad.update(written.bad)
            worker = run.spawn()
            return await drain(run, worker), worker

        async def stopped(worker: Worker) -> None:
            nonlocal again
            await run.drained()
            assert worker.stop() == 0
            again += worker.counted("again")

        async with configured(run.settings, "events", max_message_bytes=str(2 * HUGE)):
            if fault.long:  # a short form is over before it can be measured
                clean, worker = await taken(2 * good)  # as many records as below: starting weighs the same
                await stopped(worker)
                fault.saw("us CPU a record, clean", round(1e6 * clean.cpu_s / clean.records, 1))
                small, worker = await taken(good, of_an_events_size)
                await stopped(worker)
            poisoned, worker = await taken(good, of_any_size, huge)
            verdict = await fault.settled(run, 300)
            await stopped(worker)
        letters = await run.read("dead-letters")
        assert_intact(letters, bad, again)
        assert verdict.bad == len(bad) == good * (2 if fault.long else 1)
        fault.bit("bad records", len(bad))
        fault.saw("letters", len(letters))
        if fault.long:
            compare(fault, "of an event's size", clean, small, least=0.65)
            compare(fault, "of any size", clean, poisoned, least=0.5)

    fault.prove(make_settings(**FAST), proof)


def test_one_user_with_large_events(fault: Fault, make_settings: MakeSettings) -> None:
    """They end batches early, and cost memory of a few batches, whatever lies there."""
    large = fault.amount("events of 60 KiB", short=1_024, long=4_096)

    async def proof(run: Run) -> None:
        rng = np.random.default_rng(fault.seed)
        home = oracle.partition_of(b"large", oracle.Rules(partitions=run.settings.kafka.partitions))
        worker = run.spawn()
        await run.drive(200)
        await run.drained()
        before, peak = worker.resident(), 0
        for _ in range(large // 64):
            notes = [rng.bytes(30 * 1024).hex() for _ in range(64)]  # what no compression makes small
            events = [
                json.dumps({"user_id": "large", "action": "view", "item_id": f"i-{i}", "note": note}).encode()
                for i, note in enumerate(notes)
            ]
            await run.driver.write("events", [(b"large", event, home) for event in events])
            peak = max(peak, worker.resident())
        await run.drive(200)
        await fault.settled(run, 300)
        peak = max(peak, worker.resident())
        assert worker.stop() == 0
        fault.bit("batches cut short", worker.counted("batches") - 1)
        assert worker.counted("batches") >= large // 4  # 256 KiB of a user a batch
        fault.saw("MB more memory", round((peak - before) / 1e6))
        assert peak - before < FEW_BATCHES, f"{peak - before} bytes more for {large} events of 60 KiB"

    fault.prove(make_settings(**FAST), proof)
