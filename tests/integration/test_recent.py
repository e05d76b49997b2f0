"""Neighbours on a real broker: what one user took is told to another, also after a restart, until the one forgets."""

from __future__ import annotations

import pytest

from tests.conftest import MakeSettings
from tests.pipelines import FAST, Pipeline, pipeline
from tests.waiting import run

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

BY_NEIGHBOURS = {"vs_knn", "user_knn"}


async def sources(pipe: Pipeline, user: str) -> dict[str, set[str]]:
    """Which sources proposed what is shown to somebody who takes the first item."""
    feed = await pipe.feed(user, "first", action="click")
    return {item.item_id: set(item.sources) for item in feed.items}


def test_neighbours_live_and_after_a_restart(make_settings: MakeSettings) -> None:
    settings = make_settings(**FAST)

    async def before() -> None:
        async with pipeline(settings) as pipe:
            for user, item in (("giver", "first"), ("giver", "second"), ("other", "third")):
                await pipe.act(user, item)
            assert await pipe.counted("recent", "recent_events", 3) == 3
            await pipe.until_shown("watcher", "second", "third")  # a profile alone is no neighbour
            shown = await sources(pipe, "asker")
            assert shown["second"] >= BY_NEIGHBOURS
            assert not shown["third"] & BY_NEIGHBOURS

    async def after() -> None:
        async with pipeline(settings) as pipe:
            assert pipe.process.stats()["recent"]["recent_events"] == 4  # before it is ready
            assert (await sources(pipe, "newcomer"))["second"] >= BY_NEIGHBOURS
            await pipe.act("giver", action="forget")
            await pipe.counted("recent", "recent_forgets")
            assert not (await sources(pipe, "late"))["second"] & BY_NEIGHBOURS

    run(before(), 150)  # kernels may have to be compiled
    run(after())
