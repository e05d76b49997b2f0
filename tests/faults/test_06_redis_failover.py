"""Fail over to a replica that has not seen the last two seconds.

The primary acknowledges what its replica never gets, and dies. States and positions go back together: workers find a
GAP, claim again, replay what was lost and announce it again; they do not restart. Users equal byte for byte.
"""

from __future__ import annotations

import asyncio

import pytest

from tests import backing
from tests.conftest import MakeSettings
from tests.faults import looking
from tests.faults.account import Fault
from tests.faults.processes import Stopwatch
from tests.faults.redis_pair import RedisPair, redis_pair
from tests.faults.run import FAST, SLOW, Run
from tests.waiting import eventually
from workers import embedded

pytestmark = pytest.mark.slow


def rolled_back(run: Run, pair: RedisPair) -> int:
    """Events that the primary has applied and its replica has not seen."""
    ahead, behind = [sum(looking.standing(run.settings, server).values()) for server in (pair.primary, pair.replica)]
    return ahead - behind


async def lose_replication(run: Run, pair: RedisPair, seconds: float) -> int:
    """Hold the way of replication for so long under load; how many events' effects the replica then lacks."""
    pair.link.hold()
    held = Stopwatch()

    async def enough() -> int:
        return held.seconds() >= seconds and await asyncio.to_thread(rolled_back, run, pair)

    return await eventually(enough, within_s=seconds + 60)


def test_redis_failover(fault: Fault, make_settings: MakeSettings) -> None:
    failovers = fault.amount("failovers", short=1, long=4)
    seconds = fault.amount("s of replication lost", short=2.0, long=2.0)
    events = fault.amount("events", short=2_000, long=100_000)

    async def proof(run: Run, pair: RedisPair) -> None:
        workers = [run.spawn(**SLOW) for _ in range(2)]
        for n in range(failovers):
            if n:
                await asyncio.to_thread(pair.rejoin)
            await eventually(lambda: asyncio.to_thread(pair.in_step), within_s=60)
            async with run.load():
                await run.owning_with_lag(*workers)
                fault.bit("events rolled back", await lose_replication(run, pair, seconds))
                await asyncio.to_thread(pair.fail_over)
                fault.recovered(await run.all_moving())
        await run.drive_up_to(events)
        await fault.settled(run)
        fault.bit("gaps", run.logged("gap:"))
        fault.bit("outages met", run.logged("store not ready"))
        assert all(worker.runs for worker in workers)

    with redis_pair(backing.redis_binary() or embedded.valkey_binary()) as pair:
        fault.prove(make_settings(**FAST, store_url=pair.url), lambda run: proof(run, pair))
