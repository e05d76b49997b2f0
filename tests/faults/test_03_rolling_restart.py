"""SIGTERM the workers one after the other under load, each replaced by a new one.

Each leaves with exit status 0 within 30 s while it owns partitions that lag, and writes down what it has announced:
nothing is delivered again, unless a worker is starved until the group gives it up; users equal byte for byte.
"""

from __future__ import annotations

import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.run import FAST, SLOW, Run

pytestmark = pytest.mark.slow


def test_rolling_restart(fault: Fault, make_settings: MakeSettings) -> None:
    restarts = fault.amount("restarts", short=3, long=10)
    count = fault.amount("workers", short=2, long=3)

    async def proof(run: Run) -> None:
        workers, in_flight = [run.spawn(**SLOW) for _ in range(count)], []
        await run.owning(*workers)  # no backlog of the time that starting takes
        async with run.load():
            for _ in range(restarts):
                oldest = workers.pop(0)
                await run.owning_with_lag(oldest)
                in_flight.append(sum(stands.next - stands.sent for stands in (await run.positions()).values()))
                assert await oldest.stopped() == 0
                fault.bit("stopped with lag", 1)
                workers.append(run.spawn(**SLOW))
                fault.recovered(await run.all_moving())
            await run.owning(*workers)
        await fault.settled(run)
        assert [await worker.stopped() for worker in workers] == [0] * count
        again = sum(worker.counted("again") for worker in run.workers)
        fault.saw("delivered again", again)
        fault.saw("in flight at most", max(in_flight))
        # If nobody wrote it down it would be what was in flight at every restart: one is left to a starved worker.
        assert again <= max(in_flight), f"{again} delivered again, {in_flight} were in flight at the restarts"

    fault.prove(make_settings(**FAST), proof)
