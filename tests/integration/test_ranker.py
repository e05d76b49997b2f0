"""The ranker learns on a real broker: what users choose of their lists becomes examples, and comes back as weights."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from pipeline.recipe import RANKER
from tests.conftest import MakeSettings
from tests.pipelines import FAST, Pipeline, pipeline, read
from tests.waiting import eventually, run
from workers.wire.example import read_example
from workers.wire.model import ParametersRecord, read_model

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SHOPPERS = 6


async def shop(pipe: Pipeline, first: int) -> int:
    """Shoppers who click something, then the second of what they are shown; returns how many there were."""
    for number in range(SHOPPERS):
        user = f"shopper-{first + number}"
        feed = await pipe.feed(user, f"i{number}", action="click")
        await pipe.feed(user, feed.items[1].item_id, action="click")
    return SHOPPERS


def test_examples_are_learned_from_once_and_come_back_as_weights(make_settings: MakeSettings) -> None:
    settings = make_settings(**FAST)

    async def before() -> None:
        async with pipeline(settings) as pipe:
            for number in range(2 * SHOPPERS):
                await pipe.publish(f"i{number}", published_at="2026-01-07T00:00:00Z")
            await pipe.until_shown("watcher", *(f"i{number}" for number in range(3)))
            await shop(pipe, 0)
            assert await pipe.counted("retrieval", "examples", SHOPPERS) == SHOPPERS
            assert await pipe.counted("trainer", "examples", SHOPPERS) == SHOPPERS
            trend_check = pipe.process.stats()["retrieval"]["trend_check"]
            assert len(trend_check["share"]) == 6
            examples = [read_example(record.value) for record in await read(settings, "examples")]
            assert {example.layout for example in examples} == {RANKER.layout.key}
            assert b"shopper" not in b"".join(map(msgspec.msgpack.encode, examples))

            async def published() -> bool:
                return await learned() == SHOPPERS

            await eventually(published)

    async def learned() -> int:
        """Examples that the newest published ranker has learned from."""
        records = [record for record in await read(settings, "model") if record.key == b"#ranker"]
        told = [read_model(record.key, record.value) for record in records]
        counts = [one.parameters("ranker").arrays["counts"] for one in told if isinstance(one, ParametersRecord)]
        return int(np.max([one[0] for one in counts], initial=0))

    async def after() -> None:
        async with pipeline(settings) as pipe:
            await shop(pipe, 100)
            assert await pipe.counted("trainer", "examples", SHOPPERS) == SHOPPERS  # none is learned from again

            async def went_on() -> bool:
                return await learned() == 2 * SHOPPERS

            await eventually(went_on)

    run(before(), 150)  # kernels may have to be compiled
    run(after())
