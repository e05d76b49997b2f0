"""The ranker learns on a real broker: what users choose of their lists becomes examples, and comes back as weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.model.ranker import WARM
from pipeline.recipe import RANKER
from pipeline.types import F32, hash_id
from tests.conftest import MakeSettings
from tests.pipelines import FAST, Pipeline, pipeline, read
from tests.records import Consumed
from tests.waiting import eventually, run
from workers.settings import Settings
from workers.trainer import TrainerCore
from workers.wire.example import Seeing, read_example
from workers.wire.model import ParametersRecord, VectorsRecord, read_model
from workers.wire.output import Output
from workers.wire.rules import Rules

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

SHOPPERS = 6


async def shop(pipe: Pipeline, first: int) -> int:
    """Shoppers who click something, then the second of what they are shown; returns how many there were."""
    for number in range(SHOPPERS):
        user = f"shopper-{first + number}"
        feed = await pipe.feed(user, f"i{number}", action="click")
        await pipe.feed(user, feed.items[1].item_id, action="click")
    return SHOPPERS


async def published_ranker(settings: Settings) -> Any:
    """The parameters of the ranker as they were published last, by name; None before."""
    records = [record for record in await read(settings, "model") if record.key == b"#ranker"]
    told = [read_model(record.key, record.value) for record in records]
    arrays = [one.parameters("ranker").arrays for one in told if isinstance(one, ParametersRecord)]
    return max(arrays, key=lambda one: int(one["counts"][0]), default=None)


async def until_taken(pipe: Pipeline, taken: dict[str, float]) -> None:
    """Wait until the workers know how much has been taken of some items: trained, published and followed."""

    async def published() -> int:
        model = [record for record in await read(pipe.settings, "model") if record.value is not None]
        told = {record.key: read_model(record.key, record.value) for record in model}
        items = {one.vectors().item_id: one.vectors().count for one in told.values() if isinstance(one, VectorsRecord)}
        return len(model) if items.items() >= taken.items() else 0

    await pipe.counted("items", "model_records", await eventually(published))


def taught(settings: Settings, values: Sequence[bytes]) -> F32:
    """The weights that a trainer of its own makes of these records of `examples`."""
    core = TrainerCore(settings, Rules.of(settings))
    core.on_examples([Consumed(b"f", value, [], "examples", 0, at) for at, value in enumerate(values)])
    weights: F32 = core.model.ranker.export_parameters()["linear"]
    return weights


def blind(value: bytes) -> bytes:
    """The same example where nobody said what the user saw."""
    return msgspec.msgpack.encode(msgspec.structs.replace(read_example(value), seen=b""))


def passed_over(example: Seeing) -> set[int]:
    """How often each item that the user saw and left had been taken, from the features of serving time."""
    choice = example.choice(len(RANKER.layout.columns), len(RANKER.layout.contexts))
    column = RANKER.layout.columns.tolist().index(hash_id("popularity"))  # log(.5 + n)
    return {round(float(np.exp(taken)) - 0.5) for taken in choice.features[column, choice.seen]}


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
        found = await published_ranker(settings)
        return int(found["counts"][0]) if found else 0

    async def after() -> None:
        async with pipeline(settings) as pipe:
            await shop(pipe, 100)
            assert await pipe.counted("trainer", "examples", SHOPPERS) == SHOPPERS  # none is learned from again

            async def went_on() -> bool:
                return await learned() == 2 * SHOPPERS

            await eventually(went_on)

    run(before(), 150)  # kernels may have to be compiled
    run(after())


def test_what_was_seen_and_left_weighs_in_what_the_trainer_learns(make_settings: MakeSettings) -> None:
    """Impressions on `events` come to the trainer with the examples; a ranker that is not told of them is another."""
    settings = make_settings(**FAST)

    async def proof() -> None:
        async with pipeline(settings) as pipe:
            for number in range(8):
                await pipe.publish(f"i{number}", published_at="2026-01-07T00:00:00Z")
                for fan in range(number):  # i1 was taken once, i7 seven times
                    await pipe.act(f"fan-{fan}-of-{number}", f"i{number}", "like")
            await until_taken(pipe, {"i6": 2 * 6, "i7": 2 * 7})  # a like weighs two
            await pipe.until_shown("watcher", "i5", "i6", "i7")
            before = len(await read(settings, "examples"))
            feed = await pipe.feed("ann", "i0", action="click")
            shown = [item.item_id for item in feed.items]
            await pipe.act("ann", action="view_item_list", feed_id="another-feed", items=shown)
            await pipe.act("ann", action="view_item_list", feed_id=feed.feed_id, items=["i7", "i5", "i6", "unheard-of"])
            await pipe.feed("ann", "i5", action="click")
            assert await pipe.counted("retrieval", "impressions") == 1

            async def example() -> list[bytes]:  # of one round, but of another topic than the feed
                return [record.value for record in await read(settings, "examples")][before:]

            (value,) = await eventually(example)
            assert passed_over(read_example(value)) == {2 * 6, 2 * 7}

            # Of the first WARM examples only the units are taken; the others move the weights.
            await pipe.producer.send([Output(settings.topic("examples"), b"f", value, [])] * (WARM + 5))
            assert await pipe.counted("trainer", "examples", before + 1 + WARM + 5)

            async def published() -> Any:
                found = await published_ranker(settings)
                return found if found and found["counts"][0] == before + 1 + WARM + 5 else None

            weights = (await eventually(published))["linear"]
            values = [record.value for record in await read(settings, "examples")]
            assert len(values) == before + 1 + WARM + 5
            assert weights.any()
            assert (weights == taught(settings, values)).all()
            assert not np.allclose(weights, taught(settings, [blind(value) for value in values]))

    run(proof(), 150)  # kernels may have to be compiled
