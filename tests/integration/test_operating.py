"""What an operator asks and orders: offsets, dead letters, verify, rebuild, forget. On a real broker and store."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import redis
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.blob import decode
from tests.pipelines import read
from tests.records import NOW, Consumed
from tests.waiting import eventually, run
from workers import cli, kafka
from workers.producer import Producer
from workers.replica import log_reader
from workers.roles import Process, hosted
from workers.settings import Settings
from workers.store import Apply, Store
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.output import Output
from workers.wire.partition import partition_of

pytestmark = [pytest.mark.kafka, pytest.mark.redis, pytest.mark.usefixtures("quiet_again")]

Capture = pytest.CaptureFixture[str]


async def send(settings: Settings, *outputs: Output) -> None:
    producer = await Producer(settings).start()
    try:
        await producer.send(outputs)
    finally:
        await producer.stop()


async def command(*arguments: str) -> int:
    """A command while the loop of this test runs on."""
    return await asyncio.to_thread(cli.run, list(arguments))


def said(capsys: Capture) -> tuple[list[Any], list[str]]:
    """Answers in JSON, and what was said beside them; a worker in this process says more."""
    out, err = capsys.readouterr()
    return [json.loads(line) for line in out.splitlines() if line[:1] in "{["], err.splitlines()


def home(settings: Settings, user: str) -> int:
    return partition_of(user.encode(), settings.kafka.partitions, settings.partitioner)


def click(user: str, item: str = "i-1", **more: Any) -> bytes:
    return json.dumps({"user_id": user, "item_id": item, "action": "click", **more}).encode()


def beside_a_worker(settings: Settings, body: Callable[[Process, Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = await Store.connect(settings)
        try:
            async with hosted(settings, ["embedding"]) as process:
                await asyncio.wait_for(process.ready(), 60)
                await body(process, store)
        finally:
            await store.close()

    run(main(), 90)


async def count_of(store: Store, settings: Settings, user: str) -> int:
    blob = await store.read_state(home(settings, user), user)
    return int(decode([blob or b""]).count[0])


# ---------------------------------------------------------------- offsets


async def stand(settings: Settings, next_: int | None, sent: int, begin: int) -> None:
    """Ten events in partition 0, of which `begin` are gone; the store stands somewhere, or nowhere."""
    topic = settings.topic("events")
    await send(settings, *[Output(topic, b"u", b"{}", [], 0)] * 10)
    if next_ is not None:
        store = await Store.connect(settings)
        claim = (await store.claim([0], "someone", [0]))[0]
        await store.apply([Apply(0, claim.epoch, 0, next_, sent, [])])
        await store.close()
    if begin:
        async with kafka.admin(settings) as client:
            await client.delete_records({TopicPartition(topic, 0): RecordsToDelete(begin)})


@pytest.mark.real_broker("tells wrong end offsets")
def test_offsets_tell_how_far_each_lane_is(headrace: Settings, capsys: Capture) -> None:
    states = headrace.topic("states")

    async def prepare() -> None:
        await stand(headrace, next_=7, sent=4, begin=0)
        await send(headrace, *[Output(states, b"u", b"", [], 1)] * 6)
        consumer = await kafka.start_consumer(headrace, headrace.topic("retrieval"))
        consumer.assign([TopicPartition(states, 1)])
        await consumer.commit({TopicPartition(states, 1): 5})
        await consumer.stop()

    run(prepare())
    assert cli.run(["offsets", "show", "--json"]) == 0
    (rows,), _ = said(capsys)
    at = {(row["topic"], row["partition"]): row for row in rows}
    assert len(at) == 4 + 4 + 4
    assert at[headrace.topic("events"), 0] == {
        "topic": headrace.topic("events"), "partition": 0, "begin": 0, "end": 10, "next": 7, "sent": 4,
        "owner": "someone", "problem": "", "lag": 3, "unsent": 3,
    }  # fmt: skip
    assert {at[headrace.topic("events"), 1][name] for name in ("next", "sent")} == {None}
    assert [at[states, 1][name] for name in ("begin", "end", "next", "lag", "unsent")] == [0, 6, 5, 1, 0]
    assert cli.run(["offsets", "show"]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if "someone" in line)
    assert line.split() == [headrace.topic("events"), "0", "0..10", "7", "3", "3", "someone"]


@pytest.mark.real_broker("has no transactions")
def test_markers_of_transactions_are_no_lag(headrace: Settings, capsys: Capture) -> None:
    """The log ends behind the marker, where no consumer ever stands until more comes."""
    topic = headrace.topic("events")

    async def prepare() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=headrace.kafka.bootstrap, transactional_id=headrace.prefix)
        await producer.start()
        for _ in range(2):  # 0, its marker 1; 2, its marker 3
            async with producer.transaction():
                await producer.send_and_wait(topic, b"{}", key=b"u", partition=0)
        await producer.stop()
        async with log_reader(headrace) as reader:

            async def marked() -> bool:  # a commit is answered before its marker is written
                return (await reader.spans(topic))[0].end == 4

            await eventually(marked)
        store = await Store.connect(headrace)
        claim = (await store.claim([0], "someone", [0]))[0]
        await store.apply([Apply(0, claim.epoch, 0, 3, 3, [])])
        await store.close()

    run(prepare())
    assert cli.run(["offsets", "show", "--json"]) == 0
    (rows,), _ = said(capsys)
    at = {(row["topic"], row["partition"]): row for row in rows}
    assert [at[topic, 0][name] for name in ("end", "next", "lag")] == [4, 3, 0]


@pytest.mark.real_broker("deletes no records, and tells wrong end offsets")
@pytest.mark.parametrize(
    ("next_", "sent", "begin", "problem"),
    [
        (None, 0, 4, "no position while the log begins at 4: `headrace users rebuild`"),
        (3, 3, 7, "4 events are gone before they were applied: `headrace worker --accept-loss`"),
        (12, 12, 0, "the log ends 2 before the store's position: it is not the log of these states"),
        (9, 2, 7, "5 events are gone before they were announced: `headrace verify`"),
    ],
)
def test_offsets_tell_what_a_worker_would(
    headrace: Settings, capsys: Capture, next_: int | None, sent: int, begin: int, problem: str
) -> None:
    run(stand(headrace, next_, sent, begin))
    for name in ("offsets show", "verify"):
        assert cli.run(name.split()) == 1, name
        assert problem in "".join(capsys.readouterr()), name


# ---------------------------------------------------------------- dead letters


def letter(settings: Settings, record: Consumed, reason: str = "no good") -> Output:
    return dead_letter(BadRecord(record, "validate", reason, "InvalidError"), settings.topic("dead-letters"), "g", NOW)


def test_a_dead_letter_is_shown_with_its_bytes(headrace: Settings, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    value, key = bytes(range(256)), b"u\xff[/red]"
    record = Consumed(key, value, [("plain", b"[bold]"), ("none", None)])
    run(send(headrace, letter(headrace, record, "found '[/red]'")))
    capfdbinary.readouterr()  # a broker without producer ids is warned of
    assert cli.run(["dead-letters", "show", "0", "--json"]) == 0
    shown = json.loads(capfdbinary.readouterr().out)
    assert (b64decode(shown["value_base64"]), b64decode(shown["key_base64"])) == (value, key)
    assert [(name, given and b64decode(given)) for name, given in shown["headers"]] == record.headers
    assert (shown["stage"], shown["whole"], shown["bytes"]) == ("validate", True, 256)
    assert cli.run(["dead-letters", "show", "0", "--raw"]) == 0
    assert capfdbinary.readouterr().out == value
    for name in (["show", "0"], ["list"]):
        assert cli.run(["dead-letters", *name]) == 0
        assert b"found '[/red]'" in capfdbinary.readouterr().out
    assert cli.run(["dead-letters", "show", "1"]) == 1


@pytest.mark.real_broker("tells wrong end offsets")
def test_letters_are_redriven_once_they_are_valid(headrace: Settings, capsys: Capture) -> None:
    """As if an older version had refused them: applied once, however often they are redriven; the others stay."""
    topic = headrace.topic("events")
    good = [Consumed(b"u", click("u", f"i-{n}"), [], topic, home(headrace, "u"), 90 + n) for n in range(3)]
    bad = Consumed(b"u", click("u", "{x}"), [], topic, home(headrace, "u"), 99)

    async def body(process: Process, store: Store) -> None:
        await send(headrace, *[letter(headrace, record) for record in (good[0], bad, good[1], good[1], good[2])])
        assert await command("dead-letters", "redrive", "--all", "--dry-run", "--json") == 1
        verdicts, notes = said(capsys)
        assert [(one["offset"], one["valid"]) for one in verdicts] == [
            (0, True), (1, False), (2, True), (3, False), (4, True),
        ]  # fmt: skip
        assert "item_id: expected" in verdicts[1]["reason"]
        assert "same record" in verdicts[3]["reason"]
        assert "3 would be written, 2 refused" in notes
        assert await read(headrace, "events") == []
        assert await command("dead-letters", "redrive", "0", "4", "2-2") == 0
        assert "3 written, 0 refused" in capsys.readouterr().err

        async def applied() -> bool:
            return await count_of(store, headrace, "u") == 3

        await eventually(applied)
        assert await command("dead-letters", "redrive", "--all") == 1
        assert "refused: " in capsys.readouterr().out

        async def known() -> bool:
            return bool(process.stats()["embedding"].get("duplicate") == 3)

        await eventually(known)
        assert await count_of(store, headrace, "u") == 3
        assert await command("dead-letters", "redrive", "0", "77") == 1
        assert "1 written, 0 refused, 1 not there" in capsys.readouterr().err
        assert len(await read(headrace, "dead-letters")) == 5

    beside_a_worker(headrace, body)


def test_an_item_that_was_published_since_is_not_redriven(headrace: Settings, capsys: Capture) -> None:
    async def body() -> None:
        async with hosted(headrace, ["catalog"]):
            items = headrace.topic("items")
            value = json.dumps({"item_id": "i-1", "title": "New"}).encode()
            await send(headrace, *[Output(items, b"i-1", value)] * 2)

            async def published() -> bool:
                return len(await read(headrace, "catalog")) == 2

            await eventually(published)
        old = Consumed(b"i-1", b'{"item_id":"i-1","title":"Old"}', [], items, 0, 0)
        await send(headrace, letter(headrace, old))
        assert await command("dead-letters", "redrive", "0", "--json") == 1
        ((verdict,), _) = said(capsys)
        assert verdict["reason"] == "the item was published again since, at offset 1"
        assert len(await read(headrace, "items")) == 2

    run(body())


# ---------------------------------------------------------------- verify, rebuild


@pytest.mark.real_broker("tells wrong end offsets")
def test_a_store_is_verified_lost_and_rebuilt(headrace: Settings, capsys: Capture) -> None:
    users = [f"u-{n}" for n in range(9)]

    async def body(process: Process, store: Store) -> None:
        events = [Output(headrace.topic("events"), user.encode(), click(user)) for user in users]
        await send(headrace, *events)

        async def settled() -> bool:
            positions = (await store.positions(range(4))).values()
            return sum(at.sent for at in positions) == len(users)

        await eventually(settled)
        assert await command("verify", "--json") == 0
        ((answer,), _) = said(capsys)
        assert answer["equal"] is True
        assert sum(one["users"] for one in answer["partitions"]) == len(users)
        assert await command("users", "rebuild") == 1
        assert "headrace: rebuild: 1 embedding workers run" in capsys.readouterr().err

    beside_a_worker(headrace, body)
    with redis.Redis.from_url(headrace.store.url) as client:
        client.delete(f"{headrace.prefix}:u:{{{home(headrace, 'u-3')}}}:u-3")
        assert cli.run(["verify"]) == 1
        assert f"partition {home(headrace, 'u-3')}: u-3: not in the store" in capsys.readouterr().out
        client.delete(*client.scan_iter(f"{headrace.prefix}:*"))
    assert cli.run(["users", "rebuild"]) == 1
    assert "run `headrace store apply`" in capsys.readouterr().err
    assert cli.run(["store", "apply"]) == 0
    capsys.readouterr()
    assert cli.run(["users", "rebuild", "--json"]) == 0
    done, notes = said(capsys)
    assert [one["partition"] for one in done] == [0, 1, 2, 3]
    assert notes == ["9 states written; start the workers: they read the log that is there"]
    assert cli.run(["users", "show", "u-3"]) == 0
    assert cli.run(["verify"]) == 0
    assert "0 users compared" not in capsys.readouterr().out


# ---------------------------------------------------------------- forget


def test_a_forget_is_waited_for_and_tells_what_is_missing(headrace: Settings, capsys: Capture) -> None:
    """Without a retrieval worker there is no null on `feeds`; without any worker there is nothing but the event."""
    assert cli.run(["forget", "u", "--wait", "--within", "3", "--json"]) == 1
    ((answer,), _) = said(capsys)
    assert answer["forgotten"] is False
    assert len(answer["missing"]) == 3

    async def body(process: Process, store: Store) -> None:
        await send(headrace, Output(headrace.topic("events"), b"u", click("u")))

        async def known() -> bool:
            return await count_of(store, headrace, "u") == 1

        await eventually(known)
        assert await command("forget", "u", "--wait", "--within", "5") == 1
        out = capsys.readouterr().out
        assert "not done in 5 s: the null on `feeds`: does a retrieval worker run?" in out
        assert await count_of(store, headrace, "u") == 0

    beside_a_worker(headrace, body)


def test_a_forget_is_written_without_waiting(headrace: Settings, capsys: Capture) -> None:
    """Under clock = stream it happens when the user did something last, for now is not known there."""
    assert cli.run(["forget", "u", "--json"]) == 0
    assert said(capsys)[0][0]["written"] is True
    assert cli.run(["forget", "u", "--clock", "stream"]) == 2
    assert "give --time" in capsys.readouterr().err
    assert cli.run(["forget", "u", "--clock", "stream", "--time", "1998-02-03T04:05:06Z"]) == 0
    found: Sequence[Any] = run(read(headrace, "events"))
    data = [json.loads(record.value) for record in found]
    assert [(one["user_id"], one["action"]) for one in data] == [("u", "forget")] * 2
    assert [one.get("time") for one in data] == [None, 886_478_706_000]
    assert {record.partition for record in found} == {home(headrace, "u")}
    assert len({one["event_id"] for one in data}) == 2
