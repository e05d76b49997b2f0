"""Producers send events twice, with the same id.

Where at most 16 of the user's events lie between, the second is counted and changes nothing.
"""

from __future__ import annotations

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.run import FAST, Run


def test_resent_events(fault: Fault, make_settings: MakeSettings) -> None:
    events = fault.amount("events", short=3_000, long=100_000)

    async def proof(run: Run) -> None:
        worker = run.spawn()
        await run.drive(events, resend=0.05, forget=0.0)
        verdict = await fault.settled(run)
        assert worker.stop() == 0
        fault.bit("resent", run.driver.resent)
        assert worker.counted("duplicate") == verdict.duplicates == run.driver.resent

    fault.prove(make_settings(**FAST), proof)
