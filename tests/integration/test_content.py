"""Content on a real broker: an item that nobody has taken finds those whose taste it fits, at once, and only so far."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pipeline.recipe import ENCODING
from tests.conftest import MakeSettings
from tests.pipelines import FAST, Pipeline, Run, piped
from tests.waiting import eventually
from workers.wire.catalog import CatalogItem, read_catalog

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

BORN = "2026-01-01T00:00:00Z"
SHELVES = {"jazz": ("music", "piano", "trumpet"), "running": ("shop", "trail", "light")}
ITEMS, FANS = 15, 6


async def publish(pipe: Pipeline, shelf: str, item: str) -> None:
    """An item of a shelf; it is no newer than any other."""
    department, *tags = SHELVES[shelf]
    creator = f"{shelf}-maker-{len(item) % 3}"
    await pipe.publish(item, categories=[department, shelf], tags=tags, creator_id=creator, published_at=BORN)


async def stock(pipe: Pipeline) -> None:
    """Two shelves; a crowd takes of every item so much that none is young; and two users with a taste."""
    for shelf in SHELVES:
        for number in range(ITEMS):
            await publish(pipe, shelf, f"{shelf}-{number}")
        for fan in range(FANS):
            for number in range(ITEMS):
                await pipe.act(f"{shelf}-fan-{fan}", f"{shelf}-{number}")
        for number in range(3):
            await pipe.act(f"{shelf}-lover", f"{shelf}-{number}")
    await pipe.counted("trainer", "learned", len(SHELVES) * (ITEMS * FANS + 3))


@pytest.fixture(scope="module")
def running(make_module_settings: MakeSettings) -> Iterator[tuple[Pipeline, Run[Any]]]:
    """A stocked pipeline; items of a test are its own."""
    with piped(make_module_settings(**FAST)) as (pipe, run):
        run(stock(pipe))
        yield pipe, run


def test_the_catalog_worker_says_what_an_item_is_like(running: tuple[Pipeline, Run[Any]]) -> None:
    pipe, _ = running

    def vector(item: str) -> Any:
        found = read_catalog(pipe.of("catalog", item)[-1].value)
        assert isinstance(found, CatalogItem)
        return found.entry(ENCODING.code).content

    jazz, more_jazz, shoe = vector("jazz-1"), vector("jazz-4"), vector("running-1")
    assert jazz.shape == (ENCODING.dimension,)
    assert np.isclose(np.linalg.norm(jazz), 1, atol=1e-5)
    assert jazz @ more_jazz > jazz @ shoe + 0.3


def test_an_item_nobody_has_taken_is_shown_at_once_to_whom_it_fits(running: tuple[Pipeline, Run[Any]]) -> None:
    """It has a place in the feed of its kind's lover, by its content; not in that of somebody else's."""
    pipe, run = running

    async def body() -> None:
        await publish(pipe, "jazz", "jazz-unheard")

        async def placed() -> bool:  # catalogue and model are followed a moment behind, each for itself
            feed = await pipe.feed("jazz-lover")
            assert len(feed.items) == 10
            found = [item for item in feed.items if item.item_id == "jazz-unheard"]
            return bool(found) and "content" in found[0].sources and found[0].rank <= 8

        await eventually(placed)
        assert "jazz-unheard" not in await pipe.shown("running-lover")

    run(body())


def test_of_many_new_items_a_feed_holds_few(running: tuple[Pipeline, Run[Any]]) -> None:
    pipe, run = running

    async def body() -> None:
        new = [f"running-new-{number}" for number in range(12)]
        for item in new:
            await publish(pipe, "running", item)
        written = len(pipe.seen["catalog"])
        await pipe.counted("items", "catalog_records", written)  # the retrieval worker follows a moment behind
        assert 1 <= len(set(await pipe.shown("running-lover")) & set(new)) <= 2
        for stranger in ("jazz-lover", "nobody-yet"):
            assert len(set(await pipe.shown(stranger)) & set(new)) <= 2, stranger

    run(body())
