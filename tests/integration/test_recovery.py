"""`verify` finds what is wrong and nothing else; `users rebuild` brings a lost store back. On a real broker and store.

Each log is driven by the faults' driver (forgets, repeats and bad records among its events) through a worker in this
process, and what must come out is said by the oracle or by the store as it was before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import redis
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete

from pipeline.blob import durable
from tests import oracle
from tests.conftest import MakeSettings
from tests.faults.run import Run
from tests.waiting import eventually, run
from workers import kafka, topics
from workers.outside import verify as verifying
from workers.outside.rebuild import RebuildRefused, Rebuilt, rebuild
from workers.outside.verify import Checked, verify
from workers.producer import Producer
from workers.roles import hosted
from workers.settings import Settings
from workers.store import Applied, Apply, BeingRebuilt, Lost, Store, Write
from workers.wire.marker import Marker, write_marker
from workers.wire.output import Output

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.redis,
    pytest.mark.real_broker("deletes no records, and tells wrong end offsets"),
]

SMALL: dict[str, Any] = {"model_dimension": 8, "kafka_partitions": 2, "kafka_session_timeout_s": 6.0}
Body = Callable[[Run], Awaitable[None]]


@asynccontextmanager
async def driven(settings: Settings, events: int = 700, forget: float = 0.02) -> AsyncIterator[Run]:
    """A worker beside a log that it has come to the end of."""
    async with Run(settings) as lab, working(lab, events, forget):
        yield lab


@asynccontextmanager
async def working(lab: Run, events: int = 700, forget: float = 0.02) -> AsyncIterator[None]:
    """The same on a lab that outlives the worker."""
    async with hosted(lab.settings, ["embedding"]) as process:
        await asyncio.wait_for(process.ready(), 60)
        for _ in range(2):  # so that most users come in more than one batch
            await lab.drive(events // 2, resend=0.05, forget=forget)
            await lab.drained()
        yield


def with_driven(settings: Settings, body: Body, *, running: bool = False) -> None:
    """Run `body` after, or while, a worker has come to the end of a log."""

    async def main() -> None:
        async with Run(settings) as lab:
            async with working(lab):
                if running:
                    await body(lab)
            if not running:
                await body(lab)

    run(main(), 120)


async def checked(settings: Settings) -> dict[int, Checked]:
    return {one.partition: one async for one in verify(settings)}


async def rebuilt(settings: Settings, source: str | None = None, **how: Any) -> list[Rebuilt]:
    return [one async for one in rebuild(settings, source, **how)]


async def one_partition(settings: Settings) -> Rebuilt:
    """Rebuild, and break it off after the first."""
    async for done in rebuild(settings, None):
        return done
    raise AssertionError("nothing was rebuilt")


def wrong(found: dict[int, Checked]) -> set[tuple[str, str]]:
    """Users and what is the matter with them; no problem besides."""
    assert [problem for one in found.values() for problem in one.problems] == []
    assert all(one.equal == (one.differences == []) for one in found.values())
    return {(user, what) for one in found.values() for user, what in one.differences}


def server(settings: Settings) -> redis.Redis:
    return redis.Redis.from_url(settings.store.url)


def kept(settings: Settings, kind: str = "u") -> dict[bytes, bytes]:
    """Keys of a kind and what they hold, of states only the durable part."""
    with server(settings) as client:
        keys = sorted(client.scan_iter(f"{settings.prefix}:{kind}:*", 1000))
        values = {key: client.get(key) for key in keys}
    return {key: durable(value) if kind == "u" else value for key, value in values.items() if value is not None}


def lose(settings: Settings) -> None:
    """All keys of the prefix but its contract."""
    with server(settings) as client:
        for kind in "ouxf":
            for key in client.scan_iter(f"{settings.prefix}:{kind}:*", 1000):
                client.delete(key)


async def cut(settings: Settings, dataset: str, before: dict[int, int]) -> None:
    """Retention, at once: records before these offsets are gone."""
    topic = settings.topic(dataset)
    async with kafka.admin(settings) as client:
        await client.delete_records({TopicPartition(topic, p): RecordsToDelete(at) for p, at in before.items()})


def users_of(settings: Settings, partition: int) -> list[str]:
    begin = f"{settings.prefix}:u:{{{partition}}}:"
    return [key.decode().removeprefix(begin) for key in kept(settings) if key.decode().startswith(begin)]


# ---------------------------------------------------------------- verify


def test_a_store_that_agrees_is_found_equal_while_it_moves(make_settings: MakeSettings) -> None:
    """Forgets, repeats and dead letters are in the log; the oracle says the same."""
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        async with lab.load(batch=100, resend=0.05):
            for _ in range(3):
                found = await checked(settings)
                assert wrong(found) == set()
                assert all(one.expected == one.found for one in found.values())
        await lab.drained()
        (await lab.verdict()).assert_equal()
        found = await checked(settings)
        assert sum(one.users for one in found.values()) == len(kept(settings)) > 50
        assert sum(one.events for one in found.values()) > 700
        assert len(kept(settings, "x")) > 3

    with_driven(settings, body, running=True)


def test_every_kind_of_difference_is_found_and_no_other(make_settings: MakeSettings) -> None:
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        missing, other, damaged, grown, *_ = users_of(settings, 0)
        store = await Store.connect(settings)
        with server(settings) as client:
            client.delete(store.state_key(0, missing))
            blob = client.get(store.state_key(0, grown)) or b""
            client.set(store.state_key(0, "nobody"), blob)
            tail = client.get(store.state_key(0, other)) or b""
            client.set(store.state_key(0, other), tail[:64] + bytes([tail[64] ^ 1]) + tail[65:])  # in its counters
            client.set(store.state_key(0, damaged), b"no state")
            derived = blob[:20] + bytes([blob[20] ^ 1]) + blob[21:]
            client.set(store.state_key(0, grown), derived)  # an embedding is no durable part
            marker = next(iter(kept(settings, "x")))
            client.delete(marker)
        forgotten = await forgotten_user(lab, marker)
        await store.close()
        found = await checked(settings)
        assert wrong(found) == {
            (missing, "not in the store"),
            ("nobody", "in the store, but not in the log"),
            ("nobody", "not announced"),
            (other, "another state than the log makes"),
            (other, "announced otherwise"),
            (damaged, "another state than the log makes"),
            (forgotten, "forgotten, but the marker does not say so"),
        }
        assert found[0].expected != found[0].found

    with_driven(settings, body)


async def forgotten_user(lab: Run, marker: bytes) -> str:
    """Whose marker it is: it does not say."""
    users: set[str] = {record.key.decode() for record in await lab.read("events")}
    (user,) = (user for user in users if marker.endswith(b"%016x" % oracle.hash_id(user)))
    return user


def test_a_log_that_was_cut_is_replayed_from_what_was_announced(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its new beginning, or from a later cut, where states that came in one batch across it count too."""
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        at = round(time.time() * 1000)
        await lab.drive(500, resend=0.05, forget=0.02)
        await lab.drained()
        ends = await lab.log_ends()
        await cut(settings, "events", {p: end // 3 for p, end in ends.items()})
        from_beginning = await checked(settings)
        assert wrong(from_beginning) == set()
        assert {p: one.replayed_from for p, one in from_beginning.items()} == {p: end // 3 for p, end in ends.items()}
        monkeypatch.setattr(verifying, "_CUT_MS", round(time.time() * 1000) - at)
        later = await checked(settings)
        assert wrong(later) == set()
        assert all(later[p].replayed_from > from_beginning[p].replayed_from for p in ends)
        with server(settings) as client:
            user = users_of(settings, 1)[0]
            client.delete(f"{settings.prefix}:u:{{1}}:{user}")
        assert wrong(await checked(settings)) == {(user, "not in the store")}

    with_driven(settings, body, running=True)


def test_what_was_never_announced_is_found(make_settings: MakeSettings) -> None:
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        last = [r for r in await lab.read("states") if r.partition == 0]
        await cut(settings, "states", {0: last[-1].offset})
        unannounced = set(users_of(settings, 0)) - {last[-1].key.decode()}
        assert wrong(await checked(settings)) == {(user, "not announced") for user in unannounced}

    with_driven(settings, body)


def test_events_that_were_passed_over_are_found(make_settings: MakeSettings) -> None:
    """The store stands where the log ends, and yet it is not what the log makes: nobody else would ever notice."""
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        before, begin = kept(settings), await lab.log_ends()
        await lab.drive(60, forget=0.0, bad=0.0)
        ends = await lab.log_ends()
        with server(settings) as client:
            for p, end in ends.items():
                client.hset(f"{settings.prefix}:o:{{{p}}}", mapping={"next": end, "sent": end})
        assert kept(settings) == before
        written = {r.key.decode() for r in await lab.read("events") if r.offset >= begin[r.partition]}
        found = wrong(await checked(settings))
        assert {user for user, _ in found} == written
        assert {what for _, what in found} <= {"another state than the log makes", "not in the store", "not announced"}

    with_driven(settings, body)


# ---------------------------------------------------------------- rebuild


@pytest.mark.parametrize("whole", [True, False], ids=["the whole log", "a log that was cut"])
def test_a_lost_store_comes_back(make_settings: MakeSettings, whole: bool) -> None:
    """States, markers and positions, also where an older record was appended later; what nobody has any more goes."""
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        states, markers, ends = kept(settings), kept(settings, "x"), await lab.log_ends()
        if not whole:
            await cut(settings, "events", {p: end // 2 for p, end in ends.items()})
        await append_older(lab)
        lose(settings)
        with server(settings) as client:
            client.set(f"{settings.prefix}:u:{{1}}:stale", next(iter(states.values())))
            client.hset(f"{settings.prefix}:f:{{0}}:stale", mapping={"v": b"\0" * 16, "feed": b"{}"})
        done = await rebuilt(settings)
        assert sum(one.states for one in done) == len(states)
        assert sum(one.surplus for one in done) == 2
        assert kept(settings) == states
        assert kept(settings, "x").items() <= markers.items()
        assert {one.partition: one.next for one in done} == {p: 0 if whole else end // 2 for p, end in ends.items()}
        assert {p: at[:2] for p, at in (await lab.positions()).items()} == {p.partition: (p.next, p.next) for p in done}
        assert not kept(settings, "f")
        async with hosted(settings, ["embedding"]) as process:
            await asyncio.wait_for(process.ready(), 60)
            await lab.drive(200)
            await lab.drained()
            if whole:
                (await lab.verdict()).assert_equal()
            assert wrong(await checked(settings)) == set()
        assert kept(settings, "x").keys() >= markers.keys() or not whole
        ttl = server(settings).ttl(next(iter(kept(settings))).decode())
        assert 0 < ttl <= settings.users.ttl_days * 86_400

    with_driven(settings, body)


async def append_older(lab: Run) -> None:
    """Older records of users after their newest, as a frozen owner writes them when it wakes."""
    by_user: dict[bytes, list[Any]] = {}
    for record in await lab.read("states"):
        by_user.setdefault(record.key, []).append(record)
    older = [records[0] for records in by_user.values() if len(records) > 1 and records[0].value is not None]
    assert older
    producer = await Producer(lab.settings).start()
    topic = lab.settings.topic("states")
    await producer.send([Output(topic, r.key, r.value, list(r.headers), r.partition) for r in older])
    await producer.stop()


def test_a_rebuilding_that_is_broken_off_is_begun_again(make_settings: MakeSettings) -> None:
    """Meanwhile nobody can claim what is not done; a worker that runs stops it before anything is touched."""
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        states, before = kept(settings), await lab.positions()
        async with hosted(settings, ["embedding"]) as process:
            await asyncio.wait_for(process.ready(), 60)
            with pytest.raises(RebuildRefused, match=r"1 embedding workers run .*stop them first"):
                await rebuilt(settings)
        assert {p: at[:2] for p, at in (await lab.positions()).items()} == {p: at[:2] for p, at in before.items()}
        assert (await one_partition(settings)).partition == 0
        store = await Store.connect(settings)
        await store.rebuilding("broken off").begin([1])
        with pytest.raises(BeingRebuilt, match=r"partition 1 are being rebuilt.*run `headrace users rebuild` again"):
            await store.claim([0, 1], "worker", [0, 1])
        assert set(await store.positions([0, 1])) == {0}
        await rebuilt(settings)
        assert set(await store.claim([0, 1], "worker", [0, 1])) == {0, 1}
        assert kept(settings) == states
        await store.close()

    with_driven(settings, body)


def test_the_forget_of_a_stranger_that_was_not_announced_is_told(make_settings: MakeSettings) -> None:
    """`states` has never heard of them: only the log says whose marker it is."""
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        user = next(u for u in map("stranger-{}".format, range(100)) if b"{0}" in key_of(settings, u))
        await forget_unannounced(lab, user)
        await rebuilt(settings)
        async with hosted(settings, ["embedding"]) as process:
            await asyncio.wait_for(process.ready(), 60)
            await lab.drained()
        (await lab.verdict()).assert_equal()
        assert marker_key(settings, user) in kept(settings, "x")
        assert wrong(await checked(settings)) == set()

    with_driven(settings, body)


@pytest.mark.parametrize("retained", [True, False], ids=["in the log", "cut from it"])
def test_a_forget_that_was_not_announced_is_not_undone(make_settings: MakeSettings, retained: bool) -> None:
    """A worker died between storing and announcing it: `states` still has the state from before."""
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        known, ends = kept(settings, "x"), await lab.log_ends()
        user = next(u for u in users_of(settings, 0) if marker_key(settings, u) not in known)
        await forget_unannounced(lab, user)
        if not retained:
            await cut(settings, "events", {p: at.next for p, at in (await lab.positions()).items()})
        markers = kept(settings, "x")
        await rebuilt(settings)
        async with hosted(settings, ["embedding"]) as process:
            await asyncio.wait_for(process.ready(), 60)
            await lab.drained()
        assert user not in users_of(settings, 0)
        assert kept(settings, "x") == markers
        assert wrong(await checked(settings)) == set()
        said = [r.value for r in await lab.read("states") if r.key == user.encode()]
        assert (said[-1] is None) == retained
        if retained:
            (await lab.verdict()).assert_equal()
        else:
            assert {p: at.next for p, at in (await lab.positions()).items()} == ends | {0: ends[0] + 1}

    with_driven(settings, body)


def marker_key(settings: Settings, user: str) -> bytes:
    """Where a user of partition 0 who was forgotten has a marker."""
    return f"{settings.prefix}:x:{{0}}:{oracle.hash_id(user):016x}".encode()


async def forget_unannounced(lab: Run, user: str) -> None:
    """Write a forget of a user of partition 0, and store what it does."""
    await lab.driver.write_events([(user.encode(), b'{"action": "forget", "user_id": "%b"}' % user.encode())])
    forget = max((r for r in await lab.read("events") if r.partition == 0), key=lambda r: r.offset)
    marker = write_marker(Marker(forget.offset + 1, forget.timestamp))
    store = await Store.connect(lab.settings)
    try:
        claim = (await store.claim([0], "who dies", []))[0]
        writes = [
            Write(store.state_key(0, user), 1, b""),
            Write(store.marker_key(0, user), store.marker_ttl_s, marker),
        ]
        call = Apply(0, claim.epoch, forget.offset, forget.offset + 1, claim.sent, writes)
        assert await store.apply([call]) == [Applied("OK")]
    finally:
        await store.close()


def test_states_of_another_log_are_refused(make_settings: MakeSettings) -> None:
    """A log that was begun anew would be passed over up to the old offsets: nothing is touched."""
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        states = kept(settings)
        async with kafka.admin(settings) as client:
            await client.delete_topics([settings.topic("events")])
        await recreated(settings)
        with pytest.raises(RebuildRefused, match=r"knows of event \d+, the log ends at 0: .*begin another prefix"):
            await rebuilt(settings)
        assert kept(settings) == states

    with_driven(settings, body)


async def recreated(settings: Settings) -> None:
    """`events`, which is being deleted, anew."""

    async def gone() -> bool:
        async with kafka.admin(settings) as client:
            return settings.topic("events") not in await client.list_topics()

    async def made() -> bool:
        try:
            await topics.ensure(settings)
        except topics.TopicsRefused:  # it is not gone everywhere
            return False
        return True

    await eventually(gone)
    await eventually(made)


def test_users_are_carried_over_to_another_prefix(make_settings: MakeSettings) -> None:
    """Other partitions, another dimension; what they do there counts on top, by the oracle; and the new prefix can be
    verified, lost and rebuilt as any other."""
    old = make_settings(**SMALL)
    new = make_settings(**{**SMALL, "kafka_partitions": 3, "model_dimension": 16})

    async def body(lab: Run) -> None:
        expected = oracle.replay([record(r) for r in await log_of(lab)], rules(old))
        (forgotten,) = set(list(expected.markers)[:1])
        done = await rebuilt(new, old.prefix)
        assert sum(one.states for one in done) == len(expected.users) == len(kept(new))
        assert wrong(await checked(new)) == set()
        for state in expected.users.values():
            state.last_offset = -1
        expected.markers = {user: oracle.Marker(1, marker.time) for user, marker in expected.markers.items()}
        assert kept(new) == {key_of(new, user): expected.durable(user, 16) for user in expected.users}
        async with driven(new, 300) as after:
            producer = await Producer(new).start()
            late = b'{"user_id":"%b","action":"tap","time":%d}'
            value = late % (forgotten.encode(), expected.markers[forgotten].time)
            await producer.send([Output(new.topic("events"), forgotten.encode(), value)])
            await producer.stop()
            await after.drained()
            oracle.replay([record(r) for r in await log_of(after)], rules(new), expected)
            assert kept(new) == {key_of(new, user): expected.durable(user, 16) for user in expected.users}
            assert wrong(await checked(new)) == set()
        with pytest.raises(RebuildRefused, match="has states of its own"):
            await rebuilt(new, old.prefix)
        lose(new)
        with pytest.raises(RebuildRefused, match="has states of its own"):
            await rebuilt(new, old.prefix)
        await rebuilt(new)
        assert kept(new) == {key_of(new, user): expected.durable(user, 16) for user in expected.users}

    with_driven(old, body)


def test_a_prefix_that_is_not_drained_is_not_left(make_settings: MakeSettings) -> None:
    old, new = make_settings(**SMALL), make_settings(**SMALL)

    async def body(lab: Run) -> None:
        await lab.drive(7, bad=0.0)
        with pytest.raises(RebuildRefused, match=r"7 events of .* are not applied and announced"):
            await rebuilt(new, old.prefix)
        store = await Store.connect(new)
        assert not await store.positions([0, 1])
        await store.close()
        assert sum(one.states for one in await rebuilt(new, old.prefix, accept_loss=True)) == len(kept(old))
        with pytest.raises(RebuildRefused, match="is this prefix"):
            await rebuilt(new, new.prefix)

    with_driven(old, body)


def rules(settings: Settings) -> oracle.Rules:
    return oracle.Rules(now=round(time.time() * 1000), partitions=settings.kafka.partitions)


async def log_of(lab: Run) -> list[Any]:
    return sorted(await lab.read("events"), key=lambda r: (r.partition, r.offset))


def record(r: Any) -> oracle.Record:
    return oracle.Record(r.key, r.value, r.headers, r.timestamp, r.partition, r.offset)


def key_of(settings: Settings, user: str) -> bytes:
    partition = oracle.partition_of(user.encode(), rules(settings))
    return f"{settings.prefix}:u:{{{partition}}}:{user}".encode()


def test_a_worker_refuses_a_partition_without_position_until_it_is_rebuilt(make_settings: MakeSettings) -> None:
    settings = make_settings(**SMALL)

    async def body(lab: Run) -> None:
        ends = await lab.log_ends()
        await cut(settings, "events", {0: ends[0] // 2})
        with server(settings) as client:
            client.delete(f"{settings.prefix}:o:{{0}}")
        async with hosted(settings, ["embedding"]) as process:
            with pytest.raises(Lost, match="run `headrace users rebuild`"):
                await asyncio.wait_for(process.ready(), 60)
        await rebuilt(settings)
        async with hosted(settings, ["embedding"]) as process:
            await asyncio.wait_for(process.ready(), 60)
            await lab.drained()
        assert wrong(await checked(settings)) == set()

    with_driven(settings, body)
