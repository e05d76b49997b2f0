"""Whether everyone has the feed that is due: at least as new as their last state that asks for one."""

from __future__ import annotations

from tests.faults.looking import each
from tests.faults.run import Run
from tests.waiting import eventually
from workers.wire.feed import read_pair
from workers.wire.state import decode_state


async def answered(run: Run, within_s: float = 60.0) -> int:
    """Wait until every user's feed on `feeds` is as new as what `states` asks for now; how many users that are."""
    due: dict[bytes, int] = {}
    async for record in each(run.settings, "states"):
        if record.value is None:  # forgotten: nothing is due but what comes later
            due.pop(record.key, None)
            continue
        state = decode_state(record.value)
        if state.refresh and state.cause is not None:
            due[record.key] = max(due.get(record.key, 0), state.cause.offset + 1)

    async def all_of_them() -> bool:
        found: dict[bytes, int] = {}
        async for record in each(run.settings, "feeds"):
            found[record.key] = max(found.get(record.key, 0), read_pair(record.headers).version)
        return all(found.get(user, 0) >= version for user, version in due.items())

    await eventually(all_of_them, within_s)
    return len(due)
