"""kill -9 each of three broker nodes in turn, then all three at once, under load (the short form: one, then all).

Every event that the driver's producer saw acknowledged is in the log exactly once, so is every announcement, and each
time every partition moves on within 60 s. Users equal byte for byte.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.backing import Backing
from tests.conftest import settings_maker
from tests.faults.account import Fault
from tests.faults.nodes import COUNT, Nodes, broker_nodes
from tests.faults.run import FAST, Run
from tests.waiting import eventually
from workers import kafka
from workers.wire.state import decode_state

pytestmark = pytest.mark.slow

BACK_WITHIN_S = 60.0


async def all_in_sync(run: Run, nodes: Nodes) -> None:
    """Wait until every partition has all its replicas in sync again."""
    async with kafka.admin(run.settings) as client:

        async def whole() -> bool:
            topics = await client.describe_topics()
            return all(len(p["isr"]) == COUNT for topic in topics for p in topic["partitions"])

        await eventually(whole, within_s=90)


async def written_twice(run: Run) -> list[bytes]:
    """Events that are in the log twice, and announcements (other than repeated ones, which say so) on `states`."""
    events = Counter(record.value for record in await run.read("events") if record.value.startswith(b"{"))
    states = [record for record in await run.read("states") if record.value is not None]
    fresh = Counter(record.value for record in states if decode_state(record.value).evicted is not None)
    return [value for value, times in (events + fresh).items() if times > 1]


def test_broker_bounced(fault: Fault, store_url: str) -> None:
    alone = fault.amount("nodes bounced alone", short=1, long=COUNT)
    events = fault.amount("events", short=2_000, long=100_000)

    async def proof(run: Run, nodes: Nodes) -> None:
        workers = [run.spawn() for _ in range(2)]
        async with run.load():
            await run.owning(*workers)
            for killed in [*([node] for node in nodes.numbers[:alone]), list(nodes.numbers)]:
                with fault.recovery():
                    for node in killed:
                        await asyncio.to_thread(nodes.kill, node)
                        fault.bit("killed", 1)
                    if len(killed) == COUNT:
                        await asyncio.to_thread(nodes.start_all)
                    await run.all_moving(BACK_WITHIN_S)
                await asyncio.to_thread(nodes.start_all)
                await all_in_sync(run, nodes)
        await run.drive_up_to(events)
        verdict = await fault.settled(run)
        assert verdict.events == run.driver.sent, "the log has other events than were acknowledged"
        assert not await written_twice(run)
        fault.saw("workers ended", sum(not worker.runs for worker in workers))

    with broker_nodes() as nodes:
        backing = Backing(nodes.bootstrap, "three nodes", real=True, flags={"kafka_bootstrap": nodes.bootstrap})
        with settings_maker(backing, store_url) as make:
            fault.prove(make(**FAST, kafka_replication=COUNT), lambda run: proof(run, nodes))
