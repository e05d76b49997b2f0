"""A standby that has had nothing to do takes over from a worker that is killed.

Two partitions, three workers: one has none. However long it was idle, it is still a member: within 30 s after kill -9
of another it owns that one's partition, and both move on.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.processes import Worker
from tests.faults.run import FAST, Run
from tests.waiting import eventually

pytestmark = pytest.mark.slow

PARTITIONS = 2
TAKES_OVER_S = 30.0


async def idle_one(run: Run) -> Worker:
    """Three workers in one group; the one without a partition."""
    workers = [run.spawn(), run.spawn()]
    await run.owning(*workers)
    before = {p: position.epoch for p, position in (await run.positions()).items()}
    workers.append(run.spawn())

    async def claimed_anew() -> bool:
        return all(position.epoch > before[p] for p, position in (await run.positions()).items())

    await eventually(claimed_anew, within_s=60)  # the third has come: a group that changes claims everything anew
    (idle,) = [worker for worker in workers if not await run.owned_by(worker)]
    return idle


def test_idle_standby(fault: Fault, make_settings: MakeSettings) -> None:
    idle_s = fault.amount("s idle", short=10.0, long=330.0)  # longer than a member may leave out polls by default

    async def proof(run: Run) -> None:
        async with run.load(batch=20):
            standby = await idle_one(run)
            await asyncio.sleep(idle_s)  # how long it is idle is the amount
            assert not await run.owned_by(standby)
            victim = next(worker for worker in run.workers if worker is not standby)
            lost = await run.owned_by(victim)
            victim.kill()
            fault.bit("killed", len(lost))
            fault.recovered(await run.all_moving(within_s=TAKES_OVER_S))
            fault.bit("taken over", len(await run.owned_by(standby)))
        await fault.settled(run)

    fault.prove(make_settings(**FAST, kafka_partitions=PARTITIONS), proof)
