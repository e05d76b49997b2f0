"""Commands on the session's broker and store: what they write is there, what they show is what is there."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.state import Users, advance, stamp
from pipeline.types import CONSUMES, POSITIVE, hash_id
from tests.records import NOW, Consumed
from tests.streams import Ev, batch
from tests.waiting import run
from workers import cli, kafka, replica
from workers.commands.feed import _reader
from workers.outside.audit import read_back
from workers.producer import Producer
from workers.settings import Settings
from workers.store import Apply, FeedWrite, Store, Write
from workers.wire.catalog import CatalogItem, Gravestone, catalog_of, encode_catalog, gravestone_of
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.feed import Feed, FeedCause, FeedItem, FeedModel, FeedStages, encode_feed, pair_headers
from workers.wire.item import ItemData
from workers.wire.output import Output
from workers.wire.partition import partition_of
from workers.wire.times import parse_time

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.usefixtures("quiet_again")]


def answers(capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """Answers in JSON; a broker without producer ids is warned of beside them."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line[:1] in "{["]


async def records(settings: Settings, dataset: str) -> list[Any]:
    found: list[Any] = []
    await read_back(settings, dataset, found.extend)
    return found


async def send(settings: Settings, outputs: Sequence[Output]) -> None:
    producer = await Producer(settings).start()
    try:
        await producer.send(outputs)
    finally:
        await producer.stop()


def catalog_record(settings: Settings, entry: CatalogItem | Gravestone) -> Output:
    return Output(settings.topic("catalog"), entry.item_id.encode(), encode_catalog(entry))


def test_topics_and_store_are_as_declared(headrace: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["topics", "show", "--json"]) == 0
    assert answers(capsys)[0][0]["topic"] == headrace.topic("events")
    assert cli.run(["topics", "show", "--prefix", f"{headrace.prefix}-other"]) == 1
    assert "missing" in capsys.readouterr().out
    assert cli.run(["store", "show", "--json"]) == 0
    assert answers(capsys)[-1]["refused"] is None
    assert cli.run(["store", "show", "--json", "--set", "model_dimension=32"]) == 1
    assert "dimension" in answers(capsys)[0]["refused"]
    assert cli.run(["store", "apply", "--set", "model_dimension=32"]) == 1
    assert capsys.readouterr().err.startswith("headrace: store: expected dimension = 32, found 64")


def test_jsonl_is_imported_with_its_times_under_clock_stream(
    headrace: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    events = [
        {"user_id": f"u{n % 5}", "item_id": "i1", "action": "view", "time": f"2001-01-01T00:00:{n:02}Z"}
        for n in range(60)
    ]
    (tmp_path / "e.jsonl").write_text("\n".join(map(json.dumps, events)))
    (tmp_path / "i.jsonl").write_text('{"item_id":"i1","title":"One"}')
    arguments = ["import", "jsonl", "e.jsonl", "--items", "i.jsonl", "--clock", "stream", "--json", "--limit", "50"]
    assert cli.run(arguments) == 0
    (answer,) = answers(capsys)
    assert (answer["items"], answer["events"], answer["shifted"]) == (1, 50, None)
    found = run(records(headrace, "events"))
    assert len(found) == 50
    for record in found:
        data = json.loads(record.value)
        assert record.key.decode() == data["user_id"]
        assert record.partition == partition_of(record.key, 4, "murmur2")
        assert data["time"].startswith("2001-01-01")
    assert len({json.loads(record.value)["event_id"] for record in found}) == 50
    (item,) = run(records(headrace, "items"))
    assert (item.key, json.loads(item.value)["title"]) == (b"i1", "One")


def test_old_ratings_come_into_the_last_days_under_clock_wall(
    headrace: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "u.genre").write_text("unknown|0\nDrama|1\n")
    (tmp_path / "u.item").write_text("1|One (1990)|01-Jan-1990|||0|1\n")
    (tmp_path / "u.data").write_text("7\t1\t5\t900000000\n8\t1\t4\t880000000\n9\t1\t1\t890000000\n")
    assert cli.run(["import", "movielens", ".", "--rate", "1000"]) == 0
    said = capsys.readouterr()
    assert "2 events" in said.out
    assert "left out: 1 of 3 ratings below 4" in said.err
    assert "1997-11-20 to 1998-07-09 is written as" in said.err
    found = run(records(headrace, "events"))
    times = {record.key: parse_time(json.loads(record.value)["time"]) for record in found}
    assert times.keys() == {b"7", b"8"}
    days = (times[b"7"] - times[b"8"]) / 86_400_000
    assert days == pytest.approx(29.0)
    assert abs(times[b"7"] - found[0].timestamp) < 60_000


def test_nothing_is_written_of_a_file_with_a_mistake(headrace: Settings, tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text(
        '{"user_id":"u","action":"like","item_id":"i"}\n{"user_id":"u","action":"like"}\n'
    )
    assert cli.run(["import", "jsonl", "e.jsonl"]) == 2
    assert run(records(headrace, "events")) == []


@pytest.mark.real_broker("tells wrong end offsets")
def test_dead_letters_are_listed_with_place_and_reason(headrace: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [
        BadRecord(Consumed(b"u\x1b[31m", b"\xff{" + b"x" * n, offset=n), "decode", f"nonsense {n}", "UnreadableError")
        for n in range(5)
    ]
    run(send(headrace, [dead_letter(letter, headrace.topic("dead-letters"), "g", NOW) for letter in bad]))
    assert cli.run(["dead-letters", "list", "--json", "--limit", "2"]) == 0
    said = capsys.readouterr()
    letters = [json.loads(line) for line in said.out.splitlines()]
    assert [(letter["partition"], letter["stage"], letter["value"][:5]) for letter in letters] == [
        ("3", "decode", "\\\\xff"),
        ("3", "decode", "\\\\xff"),
    ]
    assert "nonsense 4" in letters[1]["message"]
    assert "2 of 5" in said.err
    assert cli.run(["dead-letters", "list"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def state_of(user: str, settings: Settings) -> tuple[int, bytes]:
    """A state of three events, and its partition."""
    events = [
        Ev(3, POSITIVE | CONSUMES, hash_id("i1"), NOW, action=4),
        Ev(5, 0, hash_id("i9"), NOW, action=1),
        Ev(8, POSITIVE, hash_id("i2"), NOW, action=2),
    ]
    nobody = Users([b""], np.full(1, -1, np.int64), np.zeros(1, np.int64))
    advanced = advance(nobody, batch(events), settings.model.dimension)
    (blob,) = stamp(advanced, np.ones((1, settings.model.dimension), np.float32), 2, 7)
    return partition_of(user.encode(), settings.kafka.partitions, settings.partitioner), blob


def feed_of(user: str, version: int, *items: str) -> bytes:
    listed = [
        FeedItem(item, rank, 1.0, {"trending": rank}, ["i1"], {"trend": 1.0}, 1.0) for rank, item in enumerate(items, 1)
    ]
    cause = FeedCause("e", "2026-11-22T05:10:11.123Z", "events/0/8") if version else None
    made = Feed(
        "f", user, version, NOW, 3, "2026-11-22T05:10:11.132Z", "2026-11-23T05:10:11.132Z", cause, FeedModel(2, 7),
        "home", listed, FeedStages(20, {"consumed": 2}, 18, 99),
    )  # fmt: skip
    return encode_feed(made)


async def keep(settings: Settings, user: str) -> None:
    """A state and a feed in the store, and a feed for strangers; i2 is titled, i3 hidden, i4 deleted."""
    partition, blob = state_of(user, settings)
    store = await Store.connect(settings)
    try:
        (claim,) = (await store.claim([partition], "test", fresh={partition})).values()
        write = Write(store.state_key(partition, user), 100, blob)
        (applied,) = await store.apply([Apply(partition, claim.epoch, 0, 9, 9, [write])])
        assert applied.kind == "OK"
        feed = feed_of(user, 9, "i2", "i3", "i4", "i5")
        assert await store.put_feeds([FeedWrite(partition, user, 9, NOW, feed)]) == [True]
        assert await store.put_default("home", NOW, feed_of("", 0, "i2", "i3"))
    finally:
        await store.close()
    entries: list[CatalogItem | Gravestone] = [
        catalog_of(ItemData("i1", title="One"), 1),
        catalog_of(ItemData("i2", title="Two"), 2),
        catalog_of(ItemData("i3", title="Three", available=False), 3),
        catalog_of(ItemData("i4", title="Four"), 4),
        gravestone_of("i4", 5, NOW),
    ]
    await send(settings, [catalog_record(settings, entry) for entry in entries])


def test_a_feed_is_shown_without_what_was_hidden_since(headrace: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run(keep(headrace, "u-1"))
    assert cli.run(["feed", "u-1", "--json"]) == 0
    (feed,) = answers(capsys)
    assert [item["item_id"] for item in feed["items"]] == ["i2", "i5"]
    assert cli.run(["feed", "u-1"]) == 0
    said = capsys.readouterr().out
    assert "their feed, version 9" in said
    assert "Two" in said
    assert "Three" not in said


def test_a_feed_is_explained_beside_the_history(headrace: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    run(keep(headrace, "u-1"))
    assert cli.run(["feed", "u-1", "--explain", "--json"]) == 0
    (answer,) = answers(capsys)
    assert [(deed["action"], deed["title"]) for deed in answer["history"]] == [("view", "Two"), ("like", "One")]
    assert answer["feed"]["stages"]["dropped"] == {"consumed": 2}
    assert cli.run(["feed", "u-1", "--explain"]) == 0
    said = capsys.readouterr().out
    for part in ("like", "because of One", "trending#1", "gathered 20, dropped 2 consumed, ranked 18"):
        assert part in said


def test_new_feeds_are_followed(headrace: Settings, root: Path) -> None:
    def feed(version: int, user: str) -> Output:
        value = feed_of(user, version, "i2")
        return Output(headrace.topic("feeds"), user.encode(), value, pair_headers(version, NOW))

    async def follow() -> list[int]:
        following = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "workers.cli", "feed", "u-1", "--follow", "--json",
            env={**os.environ, "PYTHONPATH": str(root)}, stdout=subprocess.PIPE,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's `&` has it ignored
        )  # fmt: skip
        assert following.stdout is not None
        producer = await Producer(headrace).start()
        seen = asyncio.create_task(following.stdout.readline())
        try:
            version = 100
            while not seen.done():  # it follows from some moment on that it does not tell
                version += 1
                await producer.send([feed(version, "u-1"), feed(version, "u-2")])
                await asyncio.wait([seen], timeout=0.2)
            await producer.send([feed(1, "u-1"), feed(version + 50, "u-1")])  # the first is no news
            lines = [await seen]
            while json.loads(lines[-1])["version"] < version + 50:
                lines.append(await following.stdout.readline())
        finally:
            following.send_signal(signal.SIGINT)
            await producer.stop()
        assert await following.wait() == 130
        found = [json.loads(line) for line in lines]
        assert {feed["user_id"] for feed in found} == {"u-1"}
        return [feed["version"] for feed in found]

    versions = run(follow())
    assert versions == sorted(set(versions))
    assert versions[0] > 100


@pytest.mark.real_broker("makes a topic anew when it is asked for")
def test_following_ends_with_its_topic(headrace: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, instead of asking for it for ever."""
    monkeypatch.setattr(replica, "_GONE_AFTER_S", 1.0)

    async def follow() -> None:
        async with _reader(headrace, "u-1") as reader:
            new = reader.new(None)
            seen, version = asyncio.ensure_future(anext(new)), 100
            while not seen.done():  # it follows from some moment on that it does not tell
                version += 1
                value = feed_of("u-1", version, "i2")
                await send(headrace, [Output(headrace.topic("feeds"), b"u-1", value, pair_headers(version, NOW))])
                await asyncio.wait([seen], timeout=0.2)
            async with kafka.admin(headrace) as client:
                await client.delete_topics([headrace.topic("feeds")])
            with pytest.raises(kafka.TopicMissing, match=r"feeds\.v1 was deleted while it was followed"):
                [feed async for feed in new]

    run(follow())


def test_a_stranger_is_shown_the_default_feed(headrace: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["feed", "nobody"]) == 1
    assert "no feed of nobody yet" in capsys.readouterr().err
    run(keep(headrace, "u-1"))
    assert cli.run(["feed", "nobody"]) == 0
    assert "the feed of strangers" in capsys.readouterr().out
    assert cli.run(["feed", "nobody", "--explain"]) == 0


@pytest.mark.parametrize("command", [["feed", "u-1"], ["users", "show", "u-1"]])
def test_a_user_is_not_looked_for_under_another_contract(
    command: list[str], headrace: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """With other partitions they would be looked for elsewhere, and the feed of strangers be shown as theirs."""
    run(keep(headrace, "u-1"))
    assert cli.run([*command, "--set", "kafka_partitions=7"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("headrace: store: expected partitions = 7, found 4 in ")


def test_a_state_is_shown_readably(headrace: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["users", "show", "u-1"]) == 1
    assert "no state of u-1" in capsys.readouterr().out
    run(keep(headrace, "u-1"))
    assert cli.run(["users", "show", "u-1", "--json"]) == 0
    (state,) = answers(capsys)
    assert (state["count"], state["positives"], state["version"], state["consumed"]) == (3, 2, 9, 1)
    assert [(deed["item_id"], deed["title"]) for deed in state["history"]] == [("i2", "Two"), ("i1", "One")]
    assert state["embedding"] == "64 numbers, norm 8.000, model 2.7"
    assert cli.run(["users", "show", "u-1"]) == 0
    assert "like" in capsys.readouterr().out
