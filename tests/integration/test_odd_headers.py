"""Header names that are not UTF-8, where Faust consumes. (The lanes: test_lane.py; followers: test_replica.py.)"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.faults.looking import read
from tests.rawlog import ESCAPED, NAME, raw_batch, write_raw
from tests.waiting import eventually, run
from workers.roles import hosted
from workers.settings import Settings

pytestmark = [pytest.mark.kafka, pytest.mark.redis]


def test_an_item_with_one_costs_itself_alone(settings: Settings) -> None:
    """It becomes a dead letter; the items around it, of the same batch, are in the catalogue."""
    good, odd = (b'{"item_id":"%s"}' % item for item in (b"i-1", b"i-2"))

    async def seen(dataset: str, records: int) -> list[Any]:
        async def enough() -> list[Any]:
            found = await read(settings, dataset)
            return found if len(found) >= records else []

        return await eventually(enough, 45)

    async def body() -> None:
        raw = raw_batch([(b"i-1", good, []), (b"i-2", odd, [(NAME, b"\x00")]), (b"i-1", good, [])])
        await write_raw(settings, settings.topic("items"), 0, raw)
        async with hosted(settings, ["catalog"]) as process:
            assert [r.key for r in await seen("catalog", 2)] == [b"i-1", b"i-1"]
            (letter,) = await seen("dead-letters", 1)
            assert not process.failed.done()
        assert (letter.key, letter.value, letter.headers[0]) == (b"i-2", odd, (ESCAPED, b"\x00"))
        assert dict(letter.headers)["__dlq.errors.offset"] == b"1"

    run(asyncio.wait_for(body(), 60), 70)
