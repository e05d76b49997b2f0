"""Producers send 5 % of their events again up to 30 s later, with the same id.

Where the id is among the user's last 16, the second is counted and changes nothing. Beyond that window it is applied
again, as documented. The driver keeps its own book of which is which; worker, oracle and book agree to the event.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterable

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.run import FAST, Run

WINDOW = 16
BATCH = 1_000  # events that stand for a second


class Book:
    """Which of the records sent are known by their id when they arrive."""

    def __init__(self) -> None:
        self.known = 0
        self._ids: dict[bytes, deque[str]] = defaultdict(lambda: deque(maxlen=WINDOW))

    def enter(self, records: Iterable[tuple[bytes, bytes]]) -> None:
        for key, value in records:
            event_id = json.loads(value)["event_id"]
            if event_id in self._ids[key]:
                self.known += 1
            else:
                self._ids[key].append(event_id)


def test_resent_events(fault: Fault, make_settings: MakeSettings) -> None:
    seconds = fault.amount("s of 1,000 events", short=15, long=200)
    within_s = fault.amount("s later at most", short=10, long=30)
    book = Book()

    async def proof(run: Run) -> None:
        worker = run.spawn()
        for _ in range(seconds):
            records = run.driver.draw(BATCH, resend=0.05, resend_within=within_s * BATCH, bad=0.0, forget=0.0)
            book.enter(records)
            await run.driver.write_events(records)
        verdict = await fault.settled(run)
        assert worker.stop() == 0
        fault.bit("known again", book.known)
        fault.bit("beyond the window", run.driver.resent - book.known)
        assert worker.counted("duplicate") == verdict.duplicates == book.known

    fault.prove(make_settings(**FAST), proof)
