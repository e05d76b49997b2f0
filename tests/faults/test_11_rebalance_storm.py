"""A storm of rebalances: workers join and leave every five seconds, while two stay.

Partitions move away, take in events elsewhere, and come back to workers that still have old states in memory. Each
partition makes progress in every window of 15 s; users equal byte for byte.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.run import FAST, Run
from tests.faults.watching import watching

pytestmark = pytest.mark.slow

WINDOW_S = 15.0


def test_rebalance_storm(fault: Fault, make_settings: MakeSettings) -> None:
    changes = fault.amount("joins and leaves", short=6, long=20)
    apart_s = fault.amount("s apart", short=4.0, long=5.0)

    async def proof(run: Run) -> None:
        staying, guests = [run.spawn(), run.spawn()], [run.spawn()]
        async with run.load():
            await run.all_moving()
            async with watching(run) as seen:
                for change in range(changes):
                    if change % 2:
                        leaving = guests.pop(0)
                        await run.running(leaving)
                        assert await leaving.stopped() == 0
                    else:
                        guests.append(run.spawn())
                    await asyncio.sleep(apart_s)  # how fast they come and go is the fault
        fault.bit("moves", seen.moves)
        fault.bit("returns", seen.returns)
        fault.saw("s standstill at most", round(seen.standstill_s, 1))
        assert seen.standstill_s < WINDOW_S
        fault.recovered(await run.drained())
        await fault.settled(run)
        assert all(worker.runs for worker in staying)

    fault.prove(make_settings(**FAST), proof)
