"""The whole path on a real broker and store: all four roles in one process, events in, feeds out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.conftest import MakeSettings
from tests.pipelines import FAST, Pipeline, Run, piped
from tests.waiting import eventually
from workers import cli
from workers.outside.audit import audit
from workers.outside.drain import drained
from workers.settings import Settings
from workers.wire.feed import Feed, read_feed, read_pair
from workers.wire.output import Output

pytestmark = [pytest.mark.kafka, pytest.mark.redis]

CROWD = 12
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def running(make_module_settings: MakeSettings) -> Iterator[tuple[Pipeline, Run[Any]]]:
    """A pipeline whose catalogue has some items; users of a test are its own."""
    with piped(make_module_settings(**FAST)) as (pipe, run):
        run(stock(pipe))
        yield pipe, run


async def stock(pipe: Pipeline) -> None:
    """A catalogue, and a crowd who takes something old, then `hit`, then `next`; nobody takes `unseen`."""
    for number in range(6):
        await pipe.publish(f"old-{number}", title=f"Old {number}", published_at=f"2026-01-0{number + 1}T00:00:00Z")
    for item in ("hit", "next", "unseen"):
        await pipe.publish(item, title=item.title(), published_at="2026-01-07T00:00:00Z")
    for number in range(CROWD):
        for item in (f"old-{number % 6}", "hit", "next"):
            await pipe.act(f"crowd-{number}", item)
    await pipe.counted("trainer", "learned", 3 * CROWD)

    async def followed() -> bool:  # lists and counts are records of their own, which may come one after the other
        return most_trending(await pipe.feed("early")) == {"hit", "next"}

    await eventually(followed)


# ---------------------------------------------------------------- event to feed


def body_of(user: str) -> dict[str, Any]:
    return {"user_id": user, "item_id": "hit", "action": "click"}


def bare(user: str) -> tuple[bytes, dict[str, str]]:
    """As kcat writes it: no headers at all."""
    return json.dumps(body_of(user)).encode(), {}


def structured(user: str) -> tuple[bytes, dict[str, str]]:
    event = {"specversion": "1.0", "id": "s-1", "source": "/shop", "type": "click", "traceparent": TRACE}
    value = json.dumps({**event, "data": body_of(user)}).encode()
    return value, {"content-type": "application/cloudevents+json; charset=UTF-8"}


def binary(user: str) -> tuple[bytes, dict[str, str]]:
    names = {"ce_specversion": "1.0", "ce_id": "b-1", "ce_source": "/shop", "ce_type": "click"}
    trace = {"traceparent": TRACE, "tracestate": "a=1"}
    return json.dumps({**body_of(user), "event_id": "mine"}).encode(), {**names, **trace}


@pytest.mark.parametrize(
    ("form", "event_id", "trace"),
    [
        (bare, None, {}),
        (structured, "s-1", {"traceparent": TRACE}),
        (binary, "mine", {"traceparent": TRACE, "tracestate": "a=1"}),
    ],
)
def test_an_event_in_any_form_leads_to_a_feed(
    running: tuple[Pipeline, Run[Any]], form: Any, event_id: str | None, trace: dict[str, str]
) -> None:
    """The feed is a CloudEvent in binary mode that names its event, and the cached one equals it."""
    pipe, run = running
    user = f"form-{form.__name__}"

    async def body() -> tuple[Any, int, bytes | None]:
        version = await pipe.write(user, *form(user))
        record = await pipe.answer(user, version)
        return record, version, await pipe.store.read_feed(pipe.home(user), user)

    record, version, cached = run(body())
    assert record.partition == pipe.home(user)
    assert cached == record.value
    feed = read_feed(record.value)
    assert (feed.user_id, feed.version, feed.count, feed.recipe) == (user, version, 1, "home")
    place = f"{pipe.settings.topic('events')}/{pipe.home(user)}/{version - 1}"
    assert feed.cause is not None
    assert feed.cause.event_id == (event_id or place)
    assert feed.cause.at == f"events/{pipe.home(user)}/{version - 1}"
    headers = {name: value.decode() for name, value in record.headers}
    assert re.fullmatch("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", feed.feed_id)
    assert headers == {
        "ce_specversion": "1.0",
        "ce_id": feed.feed_id,
        "ce_source": "/headrace",
        "ce_type": "headrace.feed.v1",
        "ce_time": feed.generated_at,
        "ce_subject": user,
        "content-type": "application/json",
        "version": str(feed.version),
        "revision": str(feed.revision),
        **trace,
    }


def test_a_feed_says_why(running: tuple[Pipeline, Run[Any]]) -> None:
    """Each item has its sources, what its score is made of and the user's items behind it; the stages are counted."""
    pipe, run = running

    async def told() -> Feed | None:  # each part of what was learned is followed for itself
        feed = await pipe.feed("why", "hit", "click")
        first = feed.items[0]
        wanted = (first.item_id, first.because) == ("next", ["hit"]) and "covisitation" in first.sources
        return feed if wanted else None

    feed = run(eventually(told))
    assert feed is not None
    assert [item.rank for item in feed.items] == list(range(1, len(feed.items) + 1))
    for item in feed.items:
        assert item.sources
        assert min(item.sources.values()) >= 1
        assert item.propensity == 1
    first = feed.items[0]
    assert first.score == max(item.score for item in feed.items)  # behind it what nobody took yet may be moved
    assert (first.item_id, first.because) == ("next", ["hit"])
    assert {"covisitation", "trending"} <= first.sources.keys()
    assert first.parts["covisitation"] > 0
    assert feed.stages.dropped["consumed"] == 1
    assert feed.stages.gathered == feed.stages.ranked + sum(feed.stages.dropped.values())
    assert feed.model.epoch == 1
    assert feed.model.version > 0


def test_a_new_user_is_fed_at_the_first_event(running: tuple[Pipeline, Run[Any]]) -> None:
    """With what is trending and what is new, although nothing is known of the user."""
    pipe, run = running
    feed = run(pipe.feed("newcomer", "an-item-nobody-knows", "click"))
    assert feed.count == 1
    assert most_trending(feed) == {"hit", "next"}
    assert {item.item_id: item.sources.keys() for item in feed.items}["unseen"] == {"fresh"}


def most_trending(feed: Feed) -> set[str]:
    """What the crowd took, by its rank as trending: in a shop this small the feed's own order is the learner's luck."""
    return {item.item_id for item in feed.items if item.sources.get("trending", CROWD) <= 2}


@pytest.mark.usefixtures("quiet_again")
def test_a_user_nobody_knows_is_shown_the_default_feed(
    running: tuple[Pipeline, Run[Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """It is written every few seconds, holds what is trending, and `headrace feed` shows it."""
    pipe, run = running

    async def kept() -> Feed | None:
        raw = await pipe.store.read_default("home")
        feed = read_feed(raw) if raw else None
        return feed if feed is not None and most_trending(feed) == {"hit", "next"} else None

    feed = run(eventually(kept))
    assert (feed.user_id, feed.version, feed.count, feed.cause) == ("", 0, 0, None)
    settings = pipe.settings
    where = ["--prefix", settings.prefix, "--broker", settings.kafka.bootstrap, "--store", settings.store.url]
    assert cli.run(["feed", "nobody", *where, "--set", "kafka_partitions=4", "--json"]) == 0
    (shown,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert {item["item_id"] for item in shown["items"]} == {item.item_id for item in feed.items}  # written anew since
    assert cli.run(["feed", "nobody", *where, "--set", "kafka_partitions=4"]) == 0
    said = capsys.readouterr().out
    assert "strangers" in said
    assert "Hit" in said


# ---------------------------------------------------------------- forgetting


def keys_of(settings: Settings, user: str) -> list[str]:
    """The kinds of keys that the store has of a user; the marker does not name them, so all users' markers count."""
    with redis.Redis.from_url(settings.store.url) as client:
        keys = [key.decode() for key in client.scan_iter(f"{settings.prefix}:*:{{*}}:*")]
    return sorted({key.split(":")[1] for key in keys if key.endswith(f":{user}") or ":x:" in key})


def test_forget_leaves_a_marker_and_two_tombstones(running: tuple[Pipeline, Run[Any]]) -> None:
    """States and feeds get a null, no older event brings the user back, a newer one begins anew."""
    pipe, run = running

    async def forgotten() -> tuple[Any, Any, int]:
        await pipe.answer("gone", await pipe.act("gone", "hit"))
        assert keys_of(pipe.settings, "gone") == ["f", "u"]
        version = await pipe.act("gone", action="forget")

        async def nulls() -> tuple[Any, Any] | None:
            states, feeds = pipe.of("states", "gone"), pipe.of("feeds", "gone")
            both = [*states[-1:], *feeds[-1:]]
            return (both[0], both[1]) if [record.value for record in both] == [None, None] else None

        return (*(await eventually(nulls) or ()), version)

    state, feed, version = run(forgotten())
    assert dict(state.headers)["offset"] == b"%d" % (version - 1)
    assert int(dict(state.headers)["time"]) > 0
    assert read_pair(feed.headers) == (version, 0)
    assert keys_of(pipe.settings, "gone") == ["x"]

    async def back() -> Feed:
        ignored = pipe.process.stats()["embedding"].get("forgotten", 0)
        await pipe.act("gone", "next", time=int(dict(state.headers)["time"]) - 3_600_000)
        await pipe.counted("embedding", "forgotten", ignored + 1)
        assert len(pipe.of("states", "gone")) == 2
        judged = pipe.process.stats()["retrieval"]["live"]["events"]
        feed = await pipe.feed("gone", "old-1", "click")
        assert pipe.process.stats()["retrieval"]["live"]["events"] == judged, "no feed from before is judged"
        return feed

    again = run(back())
    assert again.count == 1
    assert "hit" in {item.item_id for item in again.items}, "what was consumed before is not remembered"
    assert [record.value is None for record in pipe.of("feeds", "gone")] == [False, True, False]
    assert keys_of(pipe.settings, "gone") == ["f", "u", "x"]


# ---------------------------------------------------------------- order


def test_the_newest_state_wins(running: tuple[Pipeline, Run[Any]]) -> None:
    """A state that comes late, as a frozen owner may write it, leads to no feed; one in the same batch neither."""
    pipe, run = running

    async def late() -> None:
        first = await pipe.act("late", "old-1")
        await pipe.answer("late", first)
        second = await pipe.act("late", "old-2")
        newest = await pipe.answer("late", second)

        async def both() -> list[Any]:  # topics are followed each for itself: feeds may come before their states
            found = pipe.of("states", "late")
            return found if len(found) == 2 else []

        older, newer = await eventually(both)
        stale = pipe.process.stats()["retrieval"]["feeds_stale"]
        topic, key = pipe.settings.topic("states"), b"late"
        await pipe.producer.send([Output(topic, key, older.value, [], older.partition)])
        await pipe.counted("retrieval", "feeds_stale", stale + 1)
        assert await pipe.store.read_feed(pipe.home("late"), "late") == newest.value
        await pipe.producer.send([Output(topic, key, record.value, [], older.partition) for record in (newer, older)])

        async def again() -> bool:
            return len(pipe.of("feeds", "late")) == 3

        await eventually(again)
        assert [read_pair(record.headers).version for record in pipe.of("feeds", "late")] == [first, second, second]

    run(late())


def test_nothing_is_lost_or_refused_on_the_way(running: tuple[Pipeline, Run[Any]]) -> None:
    """What all tests before wrote is announced and answered, by what the topics say; no user's feeds ever go back."""
    pipe, run = running

    async def whole() -> None:
        assert (await drained(pipe.settings, pipe.store, pipe.process.lag)).total == 0
        found = await audit(pipe.settings)
        assert found.events > 20
        assert (found.stale, found.unannounced, found.dead_letters) == ([], [], 0)
        for user in found.fed:
            pairs = [read_pair(record.headers) for record in pipe.of("feeds", user)]
            assert pairs == sorted(set(pairs)), user

    run(whole())
