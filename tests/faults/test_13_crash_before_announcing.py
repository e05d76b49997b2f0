"""Crash between apply and announce, again and again: the state is in the store, nobody has heard of it.

The position's `sent` mark stayed behind, so whoever comes next announces it: each user's last version is on `states`.
"""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.run import FAST, Run
from workers.failpoints import EXIT_CODE

pytestmark = pytest.mark.slow


def test_crash_before_announcing(fault: Fault, make_settings: MakeSettings) -> None:
    crashes = fault.amount("crashes", short=4, long=50)
    side_by_side = fault.amount("workers", short=2, long=4)
    rng = np.random.default_rng(fault.seed)
    crashed: list[int] = []

    async def crash_again(run: Run) -> None:
        """A worker that dies at one of its first batches, and its successors."""
        while len(crashed) < crashes:
            worker = run.spawn(HEADRACE_FAILPOINT_AFTER_APPLY=f"exit:{rng.integers(1, 4)}")

            assert await asyncio.to_thread(worker.process.wait, 90) == EXIT_CODE
            crashed.append(worker.pid)
            positions = await run.positions()
            unannounced = [p for p in positions.values() if f":{worker.pid}:" in p.owner and p.next > p.sent]
            fault.bit("left unannounced", len(unannounced))

    async def proof(run: Run) -> None:
        async with run.load():
            await asyncio.gather(*(crash_again(run) for _ in range(side_by_side)))
        fault.bit("crashed", len(crashed))
        for _ in range(2):
            run.spawn()
        fault.recovered(await run.drained())
        verdict = await fault.settled(run)
        fault.bit("announced again", verdict.announced_again)

    fault.prove(make_settings(**FAST), proof)
