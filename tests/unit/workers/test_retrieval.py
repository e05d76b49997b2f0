"""States in, feeds out: the handler without a broker and without a store."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pipeline import state
from pipeline.catalog import Catalog
from pipeline.model import Model
from pipeline.model.rows import ItemRows
from pipeline.types import BLOCKS, CONSUMES, POSITIVE, PROFILE, hash_id
from tests.records import Consumed
from tests.retrieving import DAY, NOW, entry, vectors
from tests.retrieving import K as DIMENSION
from tests.streams import Ev, after, batch, nobody
from workers import retrieval
from workers.feeds import CHUNK
from workers.positions import Batch, Result
from workers.retrieval import RetrievalHandler
from workers.settings import Settings, load
from workers.wire.feed import Feed, read_feed, read_pair
from workers.wire.rules import Rules
from workers.wire.state import Cause, Fresh, StateRecord, encode_state, forgotten_headers

TOPIC = "headrace.states.v1"


@dataclass(frozen=True)
class Deed:
    """An event of one user."""

    offset: int
    item: str
    action: str = "click"
    effect: int = POSITIVE | CONSUMES


def record(
    user: str, *deeds: Deed, fresh: int = 1, refresh: bool = True, partition: int = 3, attributes: bytes = b""
) -> Consumed:
    """The record that announces a user after `deeds`, of which the last `fresh` are new."""
    events = [Ev(deed.offset, deed.effect, hash_id(deed.item), NOW + deed.offset) for deed in deeds]
    if attributes:
        events.insert(0, Ev(deeds[0].offset - 1, PROFILE, attributes=attributes, time=NOW))
    blob = after(state.advance(nobody(1), batch(events), DIMENSION)).blobs[0]
    new = [Fresh(d.offset, NOW + d.offset, 0, data(user, d)) for d in deeds[-fresh:]] if fresh else []
    last = deeds[-1].offset
    cause = Cause(f"event-{last}", NOW + last, "00-trace", None, last) if refresh else None
    value = encode_state(StateRecord(blob, b"", new, refresh, cause))
    return Consumed(user.encode(), value, [], TOPIC, partition, last)


def data(user: str, deed: Deed) -> bytes:
    return b'{"user_id":"%s","item_id":"%s","action":"%s"}' % (user.encode(), deed.item.encode(), deed.action.encode())


def forget(user: str, offset: int, partition: int = 3) -> Consumed:
    return Consumed(user.encode(), None, forgotten_headers(offset, NOW), TOPIC, partition, offset)


class Shop:
    """A handler over ten items, i0 the most popular."""

    def __init__(self, settings: Settings) -> None:
        rows = ItemRows(16)
        self.model = Model(rows, DIMENSION)
        self.catalog = Catalog(rows)
        self.model.epoch, self.model.version = 4, 17
        for at in range(10):
            self.model.put_vectors(vectors(f"i{at}", count=20.0 - at, bias=1.0 - at / 10))
        self.handler = RetrievalHandler(settings, Rules.of(settings), self.model, self.catalog)

    def results(self, *records: Consumed, waiting: Sequence[Consumed] = ()) -> list[Result]:
        """One batch a partition, as the lane gives them, and what waits behind them; then all are stored."""
        parts = sorted({one.partition for one in records})
        batches = [
            Batch(
                p,
                [one for one in records if one.partition == p],
                0,
                1,
                waiting=[one for one in waiting if one.partition == p],
            )
            for p in parts
        ]
        results = asyncio.run(self.handler.handle(batches))
        for result in results:
            self.handler.stored(result)
        return results

    def feeds(self, *records: Consumed, waiting: Sequence[Consumed] = ()) -> list[Feed]:
        results = self.results(*records, waiting=waiting)
        return [read_feed(feed.feed) for result in results for feed in result.feeds]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    file = tmp_path / "headrace.toml"
    file.write_text(f"[model]\ndimension = {DIMENSION}\n[feed]\nsize = 5\n")
    return load(file, environ={})


@pytest.fixture
def shop(settings: Settings) -> Shop:
    return Shop(settings)


def items(feed: Feed) -> list[str]:
    return [item.item_id for item in feed.items]


def test_a_feed_carries_its_version_its_cause_and_its_reasons(shop: Shop) -> None:
    (result,) = shop.results(record("ann", Deed(41, "i0"), Deed(44, "i3")))
    (made,) = result.feeds
    feed = read_feed(made.feed)
    assert (made.partition, made.user, made.version, made.revision) == (3, "ann", 45, feed.revision)
    assert (feed.user_id, feed.version, feed.count, feed.recipe) == ("ann", 45, 2, "home")
    assert feed.cause is not None
    assert (feed.cause.event_id, feed.cause.at) == ("event-44", "events/3/44")
    assert (feed.model.epoch, feed.model.version) == (4, 17)
    assert items(feed) == ["i1", "i2", "i4", "i5", "i6"]
    assert [item.rank for item in feed.items] == [1, 2, 3, 4, 5]
    assert feed.items[0].sources["sequence"] == 2
    assert feed.items[0].parts["popularity"] > 0
    assert feed.stages.dropped == {"consumed": 2}
    assert (feed.stages.gathered, feed.stages.ranked) == (10, 8)
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", feed.feed_id)
    output = made.output
    assert (output.topic, output.key, output.value, output.partition) == ("headrace.feeds.v1", b"ann", made.feed, 3)
    assert read_pair(output.headers) == (45, feed.revision)
    assert dict(output.headers)["traceparent"] == b"00-trace"


def test_the_newest_state_is_the_one_of_the_greatest_offset(shop: Shop) -> None:
    newer, older = record("ann", Deed(1, "i0"), Deed(9, "i1")), record("ann", Deed(1, "i0"))
    (feed,) = shop.feeds(newer, older)
    assert feed.version == 10
    assert feed.cause is not None
    assert feed.cause.event_id == "event-9"


def test_one_feed_is_made_of_many_states_and_answers_the_newest_that_refreshes(shop: Shop) -> None:
    first = record("ann", Deed(1, "i0"))
    second = record("ann", Deed(1, "i0"), Deed(2, "i1"))
    quiet = record("ann", Deed(1, "i0"), Deed(2, "i1"), Deed(3, "", "impression", 0), refresh=False)
    (feed,) = shop.feeds(first, second, quiet)
    assert feed.version == 4
    assert feed.cause is not None
    assert feed.cause.event_id == "event-2"


def test_refreshes_that_a_newer_state_replaces_are_counted(shop: Shop) -> None:
    states = [record("ann", Deed(offset, "i0")) for offset in range(5)] + [record("ben", Deed(9, "i1"))]
    assert [feed.version for feed in shop.feeds(*states)] == [5, 10]
    assert shop.handler.counts["refreshes_shed"] == 4
    assert shop.handler.counts["feeds"] == 2


@pytest.mark.parametrize("at_once", [1, 2, 512])
def test_what_is_read_in_pieces_is_one_batch(shop: Shop, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """Also a forget in a later piece than what it erases: no feed is caused by what the user did before."""
    monkeypatch.setattr(retrieval, "_READ_AT_ONCE", at_once)
    before, silent = record("ann", Deed(1, "i0")), record("ann", Deed(7, "i1"), refresh=False)
    assert shop.feeds(before, forget("ann", 4), silent) == []
    (feed,) = shop.feeds(before, record("ann", Deed(1, "i0"), Deed(2, "i1")), forget("ben", 3))
    assert (feed.user_id, feed.version) == ("ann", 3)


def test_nobody_who_does_not_refresh_gets_a_feed(shop: Shop) -> None:
    assert shop.feeds(record("ann", Deed(1, "", "impression", 0), refresh=False)) == []


def test_who_asks_again_in_what_waits_is_left_to_that(shop: Shop) -> None:
    """And counted; whoever else is in the batch is answered."""
    first, second = record("ann", Deed(4, "i0")), record("ann", Deed(4, "i0"), Deed(5, "i1"))
    assert [feed.user_id for feed in shop.feeds(first, record("bob", Deed(6, "i0")), waiting=[second])] == ["bob"]
    assert shop.handler.counts["refreshes_shed"] == 1
    assert [feed.version for feed in shop.feeds(second)] == [6]
    assert shop.handler.counts["refreshes_shed"] == 1


@pytest.mark.parametrize(
    "waiting",
    [
        record("ann", Deed(4, "i0"), Deed(5, "", "impression", 0), refresh=False),  # asks for nothing
        record("ann", Deed(3, "i0")),  # older: announced by a worker that was frozen
        forget("ann", 5),
        replace(record("ann", Deed(5, "i0")), value=b"x"),
        replace(record("ann", Deed(5, "i0")), value=encode_state(StateRecord(b"x", b"", [], True, Cause("e", NOW)))),
    ],
    ids=["no refresh", "older", "forget", "unreadable", "no state"],
)
def test_who_is_not_answered_by_what_waits_is_answered_now(shop: Shop, waiting: Consumed) -> None:
    assert [feed.version for feed in shop.feeds(record("ann", Deed(4, "i0")), waiting=[waiting])] == [5]
    assert shop.handler.counts["refreshes_shed"] == shop.handler.counts["dead_letters"] == 0


def test_a_choice_is_judged_though_its_feed_is_left_to_another(shop: Shop) -> None:
    shop.feeds(record("ann", Deed(4, "i0")))
    first, second = record("ann", Deed(4, "i0"), Deed(5, "i1")), record("ann", Deed(4, "i0"), Deed(6, "i1"))
    assert shop.feeds(first, waiting=[second]) == []
    assert shop.handler.live.figures()["events"] == 1


def test_partitions_are_answered_together_and_told_apart(shop: Shop) -> None:
    users = {f"u{at}": at % 3 for at in range(2 * CHUNK + 7)}
    records = [record(user, Deed(at + 5, "i0"), partition=p) for at, (user, p) in enumerate(users.items())]
    results = shop.results(*records)
    assert {feed.user: result.batch.partition for result in results for feed in result.feeds} == users
    assert len({read_feed(feed.feed).feed_id for result in results for feed in result.feeds}) == len(users)
    assert shop.handler.counts["feeds"] == len(users)


def test_attributes_are_heeded(shop: Shop) -> None:
    shop.catalog.put(entry("i1", categories=("horror",)))
    shop.catalog.put(entry("i2", unsafe=("nsfw",)))
    muted = record("ann", Deed(4, "i0"), attributes=b'{"audience":"adult","muted_categories":["horror"]}')
    plain = record("bob", Deed(4, "i0"))
    assert [items(feed)[:2] for feed in shop.feeds(muted, plain)] == [["i2", "i3"], ["i1", "i3"]]


def test_what_is_like_a_disliked_item_stays_away_for_a_while(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text(f'clock = "stream"\n[model]\ndimension = {DIMENSION}\n[feed]\nsize = 5\n')
    shop = Shop(load(file, environ={}))
    for item in ("i1", "i2"):
        shop.catalog.put(entry(item, creator_id="acme"))
    disliked = Deed(1, "i0"), Deed(2, "i1", "dislike", CONSUMES | BLOCKS)
    assert items(shop.feeds(record("ann", *disliked))[0]) == ["i3", "i4", "i5", "i6", "i7"]
    assert items(shop.feeds(record("bob", Deed(2, "i0")))[0]) == ["i1", "i3", "i4", "i2", "i5"]
    (feed,) = shop.feeds(record("ann", *disliked, Deed(8 * DAY, "i9")))
    assert items(feed) == ["i2", "i3", "i4", "i5", "i6"]


def test_a_forgotten_user_has_no_feed(shop: Shop) -> None:
    (result,) = shop.results(record("ann", Deed(4, "i0")), forget("ann", 5))
    (null,) = result.outputs
    assert (null.key, null.value, null.partition, read_pair(null.headers)) == (b"ann", None, 3, (6, 0))
    assert result.feeds == []


def test_a_user_who_comes_back_after_a_forget_has_a_feed_again(shop: Shop) -> None:
    (result,) = shop.results(record("ann", Deed(4, "i0")), forget("ann", 5), record("ann", Deed(8, "i1")))
    assert [read_pair(null.headers) for null in result.outputs] == [(6, 0)]
    assert [feed.version for feed in result.feeds] == [9]
    (again,) = shop.results(record("ann", Deed(9, "i1")), forget("ann", 9))  # a forget is not older than itself
    assert again.feeds == []


def test_bad_records_become_dead_letters_and_the_others_go_on(shop: Shop) -> None:
    good = record("ann", Deed(4, "i0"))
    assert good.value is not None
    bad = [
        Consumed(b"u1", b"\xc1", [], TOPIC, 3, 1),
        Consumed(b"not an id!", good.value, [], TOPIC, 3, 2),
        Consumed(b"u3", None, [], TOPIC, 3, 3),  # a null that does not say when
        Consumed(b"u4", encode_state(StateRecord(b"\x09" * 40, None, [], True, Cause("e", NOW))), [], TOPIC, 3, 4),
        Consumed(None, good.value, [], TOPIC, 3, 5),
    ]
    (result,) = shop.results(*bad, good)
    assert [feed.user for feed in result.feeds] == ["ann"]
    letters = {int(dict(letter.headers)["__dlq.errors.offset"] or b""): letter for letter in result.outputs}
    assert sorted(letters) == [1, 2, 3, 4, 5]
    for one in bad:
        assert (letters[one.offset].key, letters[one.offset].value) == (one.key, one.value)
        assert letters[one.offset].topic == "headrace.dead-letters.v1"
    assert shop.handler.counts["dead_letters"] == 5


def test_a_user_who_cannot_be_answered_costs_only_their_own_feed(shop: Shop) -> None:
    broken = record("bob", Deed(4, "i0"), attributes=b'{"audience":7}')  # no such thing passes the embedding worker
    (result,) = shop.results(record("ann", Deed(4, "i0")), broken, record("cid", Deed(4, "i0")))
    assert sorted(feed.user for feed in result.feeds) == ["ann", "cid"]
    (letter,) = result.outputs
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["__dlq.errors.stage"]) == (b"bob", broken.value, b"retrieve")


def test_the_feed_before_is_judged_by_what_is_chosen_next(shop: Shop) -> None:
    live = shop.handler.live
    (feed,) = shop.feeds(record("ann", Deed(1, "i0")))
    assert items(feed)[1] == "i2"
    assert live.figures()["events"] == 0
    blocked = Deed(2, "i1", "dislike", CONSUMES | BLOCKS)
    shop.results(record("ann", Deed(1, "i0"), blocked, Deed(3, "i2"), Deed(4, "i9"), fresh=3))
    figures = live.figures()
    assert (figures["events"], figures["recall@10"], figures["ndcg@10"]) == (1, 1, pytest.approx(1 / 1.5849625))
    sources = next(item.sources for item in feed.items if item.item_id == "i2")
    assert set(figures["by_source"]) == set(sources)
    shop.results(record("ann", Deed(1, "i0"), blocked, Deed(3, "i2"), Deed(4, "i9"), fresh=3))  # delivered again
    assert live.figures()["events"] == 1
    shop.results(record("ann", Deed(1, "i0"), Deed(7, "unheard-of"), fresh=1))
    assert live.figures()["events"] == 2
    assert live.figures()["recall@10"] == 0.5


def test_the_feed_before_is_the_one_that_was_stored(shop: Shop) -> None:
    asyncio.run(shop.handler.handle([Batch(3, [record("ann", Deed(1, "i0"))], 0, 1)]))
    shop.handler.drop(3)
    shop.results(record("ann", Deed(1, "i0"), Deed(2, "i1")))
    assert shop.handler.live.figures()["events"] == 0


def test_under_a_streams_clock_now_is_the_greatest_event_time(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text(f'clock = "stream"\n[model]\ndimension = {DIMENSION}\n')
    shop = Shop(load(file, environ={}))
    shop.catalog.put(entry("i1", expires_at=NOW + 10))
    before, after_ = Deed(9, "i0"), Deed(10, "i0")
    assert "i1" in items(shop.feeds(record("ann", before))[0])
    assert "i1" not in items(shop.feeds(record("ann", before, after_))[0])
    assert "i1" not in items(shop.feeds(record("bob", Deed(1, "i0")))[0])  # time does not go back


def test_a_streams_clock_outlives_a_restart(tmp_path: Path) -> None:
    """A worker that was just started, or has quiet partitions, knows the time from the model, and keeps it."""
    file = tmp_path / "headrace.toml"
    file.write_text(f'clock = "stream"\n[model]\ndimension = {DIMENSION}\n')
    shop = Shop(load(file, environ={}))
    shop.catalog.put(entry("i1", expires_at=NOW + 500))
    shop.model.put_vectors(vectors("i9", last_seen=NOW + 500))
    assert "i1" not in items(shop.feeds(record("ann", Deed(9, "i0")))[0])
    shop.model.drop(hash_id("i9"))
    assert "i1" not in items(shop.feeds(record("ann", Deed(9, "i0"), Deed(10, "i0")))[0])


def test_the_default_feed_is_for_whom_nobody_knows(shop: Shop) -> None:
    revision, value = shop.handler.default_feed()
    feed = read_feed(value)
    assert (feed.version, feed.revision, feed.count, feed.cause, feed.user_id) == (0, revision, 0, None, "")
    assert items(feed) == ["i0", "i1", "i2", "i3", "i4"]


def test_figures_of_a_worker(shop: Shop) -> None:
    shop.results(record("ann", Deed(1, "i0")))
    stats = shop.handler.stats()
    assert (stats["feeds"], stats["states"]) == (1, 1)
    assert (stats["live"]["events"], stats["live"]["ndcg@10"]) == (0, 0)
    assert stats["live"]["alarms"]["falling"] == {"on": False, "raised": 0}
