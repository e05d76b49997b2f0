"""SIGTERM the workers one after the other under load, each replaced by a new one.

Each leaves with exit status 0 within 30 s while it owns partitions that lag; at most a batch is delivered again for
each; users equal byte for byte.
"""

from __future__ import annotations

import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.run import FAST, SLOW, Run
from workers.batching import Limits

pytestmark = pytest.mark.slow


def test_rolling_restart(fault: Fault, make_settings: MakeSettings) -> None:
    restarts = fault.amount("restarts", short=3, long=10)
    count = fault.amount("workers", short=2, long=3)

    async def proof(run: Run) -> None:
        workers = [run.spawn(**SLOW) for _ in range(count)]
        async with run.load():
            for _ in range(restarts):
                oldest = workers.pop(0)
                await run.owning_with_lag(oldest)
                assert await oldest.stopped() == 0
                fault.bit("stopped with lag", 1)
                workers.append(run.spawn(**SLOW))
                fault.recovered(await run.all_moving())
            await run.owning(*workers)
        await fault.settled(run)
        assert [await worker.stopped() for worker in workers] == [0] * count
        again = sum(worker.counted("again") for worker in run.workers)
        fault.saw("delivered again", again)
        assert again <= restarts * Limits().records

    fault.prove(make_settings(**FAST), proof)
