"""Each user's events carry sequence numbers, and workers come and go.

What is announced of a user keeps their order through all rebalances: no number is missing, none comes before its
predecessor, and a re-announcement repeats a stretch in the same order.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.conftest import MakeSettings
from tests.faults.account import Fault
from tests.faults.driving import again_and_again
from tests.faults.run import FAST, Run
from tests.faults.watching import watching
from workers.wire.state import decode_state

pytestmark = pytest.mark.slow

USERS, BATCH = 100, 200


class Sequences:
    """Events of users by turns, the n-th of a user about the item `s-n`."""

    def __init__(self) -> None:
        self.written: Counter[str] = Counter()
        self._drawn = 0

    def draw(self) -> list[tuple[bytes, bytes]]:
        """The next events, as key and JSON."""
        records = []
        for _ in range(BATCH):
            self._drawn += 1
            user = f"u-{self._drawn * 7 % USERS}"
            self.written[user] += 1
            event = {"user_id": user, "action": "click", "item_id": f"s-{self.written[user]}"}
            records.append((user.encode(), json.dumps(event).encode()))
        return records


def numbers(record: Any) -> tuple[list[int], bool]:
    """The sequence numbers that a record of `states` announces, and whether they are announced again."""
    state = decode_state(record.value)
    return [int(json.loads(fresh.data)["item_id"][2:]) for fresh in state.fresh], state.evicted is None


def inversions(announced: list[Any]) -> tuple[list[str], Counter[str]]:
    """What stands out of order in `states`, and each user's last number."""
    wrong: list[str] = []
    last: Counter[str] = Counter()
    for record in announced:
        user = record.key.decode()
        found, again = numbers(record)
        begins = min(found[0], last[user] + 1) if again else last[user] + 1
        if found != list(range(begins, begins + len(found))):
            wrong.append(f"{user}: {found} after {last[user]}")
        last[user] = max(last[user], found[-1])
    return wrong, last


def test_order(fault: Fault, make_settings: MakeSettings) -> None:
    rebalances = fault.amount("rebalances", short=4, long=10)

    async def proof(run: Run) -> None:
        sequences = Sequences()
        workers = [run.spawn()]
        async with again_and_again(lambda: run.driver.write_events(sequences.draw())):
            await run.owns_all(workers[0])
            async with watching(run) as seen:
                for change in range(rebalances):
                    if change % 2:
                        assert await workers.pop(0).stopped() == 0
                    else:
                        workers.append(run.spawn())
                        await run.owning(*workers)
                    fault.recovered(await run.all_moving())
        fault.bit("moves", seen.moves)
        await fault.settled(run)
        wrong, last = inversions(await run.read("states"))
        assert not wrong, wrong[:5]
        assert last == sequences.written
        fault.bit("events in order", last.total())

    fault.prove(make_settings(**FAST), proof)
