"""Items on a real broker: from `items` through `catalog` to what users are shown, and what they are never shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.conftest import MakeSettings
from tests.pipelines import FAST, WHOLE, Pipeline, Run, piped
from tests.waiting import eventually
from workers.wire.catalog import CatalogItem, Gravestone, read_catalog
from workers.wire.times import rfc3339

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

BORN = "2026-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def running(make_module_settings: MakeSettings) -> Iterator[tuple[Pipeline, Run[Any]]]:
    """A pipeline whose feeds hold everything that may be shown. Items and users of a test are its own."""
    with piped(make_module_settings(**FAST, feed_size=WHOLE)) as (pipe, run):
        run(pipe.publish("always", published_at=BORN))
        yield pipe, run


def entry(pipe: Pipeline, item: str) -> CatalogItem | Gravestone:
    """The last catalogue record of an item."""
    return read_catalog(pipe.of("catalog", item)[-1].value)


def test_an_item_is_checked_and_encoded(running: tuple[Pipeline, Run[Any]]) -> None:
    pipe, run = running
    run(pipe.publish("shoe", title="Shoe", creator_id="acme", unsafe=["nsfw"], published_at=BORN, price=89))
    found = entry(pipe, "shoe")
    assert isinstance(found, CatalogItem)
    assert (found.title, found.creator_id, found.unsafe, found.price, found.available) == (
        "Shoe", "acme", ["nsfw"], 89.0, True,
    )  # fmt: skip


def test_a_bad_item_is_a_dead_letter_and_the_next_one_is_taken(running: tuple[Pipeline, Run[Any]]) -> None:
    """Bytes, key and headers stay as they were; the reason and the place stand beside them."""
    pipe, run = running
    bad = [b'{"item_id":"bad"', b'{"item_id":"other"}', b'{"item_id":"bad","price":-1}', b"\xff\x00"]

    async def body() -> list[Any]:
        for value in bad:
            await pipe.send("items", "bad", value, {"shop": "7"})
        await pipe.publish("bad", title="good now", published_at=BORN)

        async def letters() -> list[Any]:
            found = pipe.of("dead-letters", "bad")
            return found if len(found) == len(bad) else []

        return await eventually(letters)

    letters = run(body())
    assert [letter.value for letter in letters] == bad
    for letter in letters:
        headers = dict(letter.headers)
        assert headers["shop"] == b"7"
        assert headers["__dlq.errors.topic"].decode() == pipe.settings.topic("items")
        assert headers["__dlq.errors.stage"] in {b"decode", b"validate"}
        assert headers["__dlq.errors.message"]
    offsets = [int(dict(letter.headers)["__dlq.errors.offset"]) for letter in letters]
    assert offsets == sorted(set(offsets))
    assert [read_catalog(record.value).item_id for record in pipe.of("catalog", "bad")] == ["bad"]


def test_deleted_and_unavailable_items_vanish(running: tuple[Pipeline, Run[Any]]) -> None:
    """`available: false` hides until it is said otherwise, a null lays a gravestone until the item is published."""
    pipe, run = running

    async def body() -> None:
        await pipe.publish("deleted", published_at=BORN)
        await pipe.publish("hidden", published_at=BORN)
        await pipe.until_shown("visitor", "deleted", "hidden")
        begun = int(time.time() * 1000)
        await pipe.delete("deleted")
        await pipe.publish("hidden", published_at=BORN, available=False)
        assert "always" in await pipe.until_hidden("visitor", "deleted", "hidden")
        stone = entry(pipe, "deleted")
        assert isinstance(stone, Gravestone)
        assert begun <= stone.deleted_at <= int(time.time() * 1000)

        async def deleted_not_even_proposed() -> bool:  # the list of what is fresh may be a moment old
            return (await pipe.feed("visitor")).stages.dropped["unavailable"] == 1

        await eventually(deleted_not_even_proposed)
        await pipe.publish("deleted", published_at=BORN)
        await pipe.publish("hidden", published_at=BORN)
        await pipe.until_shown("visitor", "deleted", "hidden")

    run(body())


def test_what_has_been_learned_does_not_bring_a_deleted_item_back(running: tuple[Pipeline, Run[Any]]) -> None:
    """Events of it go on coming after its deletion: nobody is shown it, and its model records are gone."""
    pipe, run = running

    async def body() -> None:
        await pipe.publish("ghost", published_at=BORN)
        for number in range(3):
            await pipe.act(f"fan-{number}", "ghost")
        await pipe.until_shown("hunter", "ghost")
        await pipe.delete("ghost")
        await pipe.until_hidden("hunter", "ghost")

        def refused() -> int:  # nothing is counted before the trainer's first lesson
            return int(pipe.process.stats()["trainer"].get("of_deleted_items", 0))

        before = refused()

        async def not_learned() -> bool:  # the trainer follows the catalogue for itself, and may hear of it later
            await pipe.act("fan-3", "ghost")
            return refused() > before

        await eventually(not_learned)
        assert "ghost" not in await pipe.shown("hunter")

    run(body())


def test_an_item_expires(running: tuple[Pipeline, Run[Any]]) -> None:
    """Under clock = wall by the wall clock, without any record that says so."""
    pipe, run = running

    async def body() -> None:
        now = int(time.time() * 1000)
        ends = {f"brief-{ms}": now + ms for ms in (1500, 6000, 15_000)}  # on a slow machine the first may go unseen
        for item, end in ends.items():
            await pipe.publish(item, published_at=BORN, expires_at=end)
        await pipe.publish("over", published_at=BORN, expires_at=now - 3500)
        await pipe.publish("long", published_at=BORN, expires_at=rfc3339(now + 3_600_000))
        shown = await pipe.until_shown("reader", "long")  # the last of them: all are known
        assert "over" not in shown
        brief = next(item for item in ends if item in shown)
        assert "long" in await pipe.until_hidden("reader", brief)
        assert int(time.time() * 1000) >= ends[brief]

    run(body())


def test_unsafe_items_are_for_the_audience_that_may_see_them(running: tuple[Pipeline, Run[Any]]) -> None:
    pipe, run = running

    async def body() -> None:
        await pipe.publish("naked", published_at=BORN, unsafe=["nsfw"])
        await pipe.publish("decent", published_at=BORN)
        await pipe.until_shown("someone", "decent")
        assert "naked" not in await pipe.shown("someone")
        assert "naked" in await pipe.shown("someone", audience="adult")
        assert "naked" not in await pipe.shown("someone", audience="child")

    run(body())


def test_items_of_a_market_are_for_its_users(running: tuple[Pipeline, Run[Any]]) -> None:
    pipe, run = running

    async def body() -> None:
        await pipe.publish("schnitzel", published_at=BORN, markets=["de", "at"])
        await pipe.publish("anything", published_at=BORN)
        await pipe.until_shown("tourist", "anything")
        assert "schnitzel" not in await pipe.shown("tourist")
        assert "schnitzel" in await pipe.shown("tourist", market="at")
        assert "schnitzel" not in await pipe.shown("tourist", market="fr")

    run(body())


def test_creators_are_spread(running: tuple[Pipeline, Run[Any]]) -> None:
    """Four items of one creator are the newest of all; they do not stand side by side."""
    pipe, run = running

    async def body() -> None:
        acme = [f"acme-{number}" for number in range(4)]
        for item in acme:
            await pipe.publish(item, published_at=rfc3339(int(time.time() * 1000)), creator_id="acme-studio")
        for number in range(8):
            await pipe.publish(f"plain-{number}", published_at=BORN)
        shown = await pipe.until_shown("viewer", *acme, *(f"plain-{number}" for number in range(8)))
        feed = await pipe.feed("viewer")
        ranks = {item.item_id: item.sources["fresh"] for item in feed.items}
        assert sorted(ranks[item] for item in acme) == [1, 2, 3, 4]
        places = sorted(shown.index(item) for item in acme)
        assert all(after - before >= 3 for before, after in pairwise(places)), places

    run(body())


def test_consumed_and_disliked_items_do_not_come_back(running: tuple[Pipeline, Run[Any]]) -> None:
    """Nor to a user whose dislike came before anything else; others go on seeing them."""
    pipe, run = running

    async def body() -> None:
        for item in ("bought", "hated", "seen"):
            await pipe.publish(item, published_at=BORN)
        await pipe.until_shown("shopper", "bought", "hated", "seen")
        await pipe.act("shopper", "bought", "purchase")
        await pipe.act("shopper", "hated", "dislike")
        await pipe.act("shopper", "seen", "impression")
        feed = await pipe.feed("shopper")
        shown = {item.item_id for item in feed.items}
        assert not {"bought", "hated"} & shown
        assert "seen" in shown
        assert (feed.stages.dropped["consumed"], feed.stages.dropped["blocked"]) == (1, 1)
        assert "hated" not in {item.item_id for item in (await pipe.feed("hater", "hated", "hide")).items}
        assert {"bought", "hated"} <= set(await pipe.shown("neighbour"))

    run(body())


def test_muted_creators_and_categories(running: tuple[Pipeline, Run[Any]]) -> None:
    """The last profile counts, as a whole."""
    pipe, run = running

    async def body() -> None:
        await pipe.publish("loud", published_at=BORN, creator_id="shouter")
        await pipe.publish("sport", published_at=BORN, categories=["news", "sport"])
        await pipe.publish("quiet", published_at=BORN, creator_id="whisperer", categories=["news"])
        await pipe.until_shown("listener", "loud", "sport", "quiet")
        muted = set(await pipe.shown("listener", muted_creators=["shouter"], muted_categories=["sport"]))
        assert "quiet" in muted
        assert not {"loud", "sport"} & muted
        assert {"loud", "sport"} <= set(await pipe.shown("listener", muted_creators=["whisperer"]))

    run(body())
