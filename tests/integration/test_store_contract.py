"""The contract of the store, on Redis and on Valkey: every answer of every function."""

from __future__ import annotations

import asyncio
import struct

import pytest
import redis

from tests.stores import DAY_S, DUP, FENCED, LOST, OK, batch, claimed, opened
from tests.waiting import run
from workers.settings import Settings, load
from workers.store import (
    Applied,
    Apply,
    BeingRebuilt,
    Claim,
    FeedWrite,
    Lost,
    NotOurs,
    Position,
    StoreError,
    UserRead,
    Write,
)
from workers.store.link import pack

pytestmark = pytest.mark.redis


# ------------------------------------------------------------------ claim


def test_a_claim_of_a_new_partition_begins_at_zero(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            assert await store.claim([0, 2], "a", [0, 2]) == {p: Claim(1, 0, 0, "", -1) for p in (0, 2)}
            assert await store.positions([0, 1, 2]) == {p: Position(0, 0, 1, "a") for p in (0, 2)}

    run(main())


def test_a_claim_takes_over_where_the_last_owner_stood(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            first = await claimed(store, "a")
            assert await store.apply([batch(first.epoch, 0, 10, sent=4)]) == [OK]
            assert await claimed(store, "b") == Claim(first.epoch + 1, 10, 4, "a", 10)
            assert await store.claim([3], "b", []) == {3: Claim(first.epoch + 2, 10, 4, "b", 10)}

    run(main())


def test_a_claim_notes_when(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            await claimed(store)

    run(main())
    noted = server.hget(f"{store_settings.prefix}:o:{{3}}", "claimed_at")
    assert abs(int(noted or 0) - server.time()[0]) <= 60


@pytest.mark.parametrize("field", ["next", "sent"])
def test_a_lost_position_is_never_read_as_zero(store_settings: Settings, server: redis.Redis, field: str) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            for partition in (1, 3):
                await claimed(store, partition=partition)
            server.hdel(f"{store_settings.prefix}:o:{{3}}", field)
            with pytest.raises(Lost, match="partition 2, 3 ") as lost:
                await store.claim([1, 2, 3], "b", [])
            assert lost.value.partitions == [2, 3]
            assert (await store.positions([1]))[1].owner == "b"
            assert not server.exists(f"{store_settings.prefix}:o:{{2}}")
            assert (await claimed(store, "b"))[1:3] == (0, 0)  # where the log begins at 0, it is a beginning

    run(main())


# ------------------------------------------------------------------ apply


def test_apply_writes_states_and_position_together(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            key, other = store.state_key(3, "u-1"), store.state_key(3, "u-2")
            assert await store.apply(
                [batch(claim.epoch, 0, 7, 2, [Write(key, 60, b"\x00one\xff"), Write(other, 90, b"two")])]
            ) == [OK]
            assert await store.positions([3]) == {3: Position(7, 2, claim.epoch, "a")}
            assert await store.read_state(3, "u-1") == b"\x00one\xff"
            assert 0 < server.ttl(key) <= 60 < server.ttl(other) <= 90
            assert await store.apply([batch(claim.epoch, 7, 9, 7, [Write(key, 1, b"")])]) == [OK]
            assert [await store.read_state(3, user) for user in ("u-1", "u-2")] == [None, b"two"]
            assert await store.positions([3]) == {3: Position(9, 7, claim.epoch, "a")}

    run(main())


def test_nothing_is_written_twice(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            key = store.state_key(3, "u-1")
            call = batch(claim.epoch, 0, 7, 0, [Write(key, 60, b"first")])
            assert await store.apply([call]) == [OK]
            server.set(key, b"later")
            assert await store.apply([call]) == [DUP]
            assert await store.read_state(3, "u-1") == b"later"

    run(main())


def refused_calls(epoch: int, write: Write) -> list[tuple[Apply, Applied]]:
    return [
        (batch(epoch, 5, 12, 9, [write]), Applied("GAP", 7)),
        (batch(epoch, 8, 12, 9, [write]), Applied("GAP", 7)),
        (batch(epoch - 1, 7, 12, 9, [write]), FENCED),
        (batch(epoch + 1, 7, 12, 9, [write]), FENCED),
        (batch(epoch - 1, 0, 7, 9, [write]), FENCED),  # a zombie's retry: its batch was applied, but it must not go on
        (batch(epoch, 0, 12, 0, [write], partition=2), LOST),
    ]


@pytest.mark.parametrize("number", range(6))
def test_a_refused_apply_changes_nothing(store_settings: Settings, server: redis.Redis, number: int) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            await claimed(store, "before")
            claim = await claimed(store)
            assert await store.apply([batch(claim.epoch, 0, 7)]) == [OK]
            call, answer = refused_calls(claim.epoch, Write(store.state_key(3, "u-1"), 60, b"no"))[number]
            assert await store.apply([call]) == [answer]
            assert await store.positions(range(4)) == {3: Position(7, 0, claim.epoch, "a")}
            assert await store.read_state(3, "u-1") is None
            assert not server.exists(f"{store_settings.prefix}:o:{{2}}")

    run(main())


def test_partitions_are_answered_one_by_one(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            claims = await store.claim([0, 1, 2], "a", [0, 1, 2])
            await store.claim([1], "b", [])
            calls = [batch(claims[p].epoch, at, 5, partition=p) for p, at in ((0, 0), (1, 0), (2, 4))]
            assert await store.apply(calls) == [OK, FENCED, Applied("GAP", 0)]
            assert await store.apply([]) == []

    run(main())


def test_offsets_are_exact_beyond_doubles(store_settings: Settings) -> None:
    big = 2**62

    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            assert await store.apply([batch(claim.epoch, 0, big, big - 1)]) == [OK]
            assert await store.apply([batch(claim.epoch, big + 1, big + 5)]) == [Applied("GAP", big)]
            assert await store.apply([batch(claim.epoch, big, big + 1, big)]) == [OK]
            assert await store.positions([3]) == {3: Position(big + 1, big, claim.epoch, "a")}

    run(main())


def test_an_apply_of_the_wrong_shape_is_an_error_and_changes_nothing(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            position, key = b"%b:o:{3}" % store_settings.prefix.encode(), store.state_key(3, "u-1")
            with pytest.raises(StoreError, match="a ttl and a value for each key"):
                await store._link.run([pack("FCALL", "headrace_apply", 2, position, key, claim.epoch, 0, 5, 0, 60)])
            assert await store.positions([3]) == {3: Position(0, 0, claim.epoch, "a")}
            assert await store.apply([batch(claim.epoch, 0, 5)]) == [OK]  # the connection is in step

    run(main())


# ------------------------------------------------------------------ sent


def test_sent_moves_forward_only(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            assert await store.apply([batch(claim.epoch, 0, 100)]) == [OK]
            for told, kept in ((9, 9), (10, 10), (9, 10), (99, 99), (100, 100), (20, 100)):
                assert await store.sent(3, claim.epoch, told) == "OK"
                assert (await store.positions([3]))[3].sent == kept
            assert await store.apply([batch(claim.epoch, 100, 200, sent=50)]) == [OK]
            assert await store.positions([3]) == {3: Position(200, 100, claim.epoch, "a")}

    run(main())


def test_sent_is_fenced(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            old = await claimed(store, "a")
            new = await claimed(store, "b")
            assert await store.sent(3, old.epoch, 5) == "FENCED"
            assert (await store.positions([3]))[3] == Position(0, 0, new.epoch, "b")
            assert await store.sent(2, 1, 5) == "FENCED"
            assert not server.exists(f"{store_settings.prefix}:o:{{2}}")  # it would look like a position

    run(main())


# ------------------------------------------------------------------ feeds


def feed(version: int, revision: int, text: bytes = b"{}", user: str = "u-1") -> FeedWrite:
    return FeedWrite(3, user, version, revision, text)


def test_only_newer_feeds_are_stored(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            steps = [
                (feed(200, 5, b"a"), True, b"a"),
                (feed(200, 5, b"a again"), True, b"a"),  # our own retry: a success that writes nothing
                (feed(200, 4, b"b"), False, b"a"),
                (feed(199, 2**60, b"c"), False, b"a"),
                (feed(200, 6, b"d"), True, b"d"),
                (feed(256, 0, b"e"), True, b"e"),  # bytes, not characters of some locale
                (feed(2**62 + 1, 1, b"f"), True, b"f"),
                (feed(2**62, 2, b"g"), False, b"f"),
            ]
            for write, taken, stored in steps:
                assert await store.put_feeds([write]) == [taken]
                assert await store.read_feed(3, "u-1") == stored
            assert 7 * DAY_S - 60 <= server.ttl(store.feed_key(3, "u-1")) <= 7 * DAY_S
            assert await store.put_feeds([feed(1, 1, user="u-2"), feed(3, 3), feed(1, 1, user="u-3")]) == [
                True,
                False,
                True,
            ]
            assert await store.put_feeds([]) == []

    run(main())


def marker(version: int, time_ms: int = 1_795_000_000_000) -> bytes:
    return struct.pack(">QQQ", version, 0, time_ms) + b'{"receipt":"r-1"}'


def test_a_forgotten_user_gets_no_feed_of_before(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            keys = store.state_key(3, "u-1"), store.feed_key(3, "u-1"), store.marker_key(3, "u-1")
            await store.apply([batch(claim.epoch, 0, 99, 0, [Write(keys[0], 60, b"state")])])
            assert await store.put_feeds([feed(99, 1)]) == [True]
            forget = [Write(keys[0], 1, b""), Write(keys[1], 1, b""), Write(keys[2], store.marker_ttl_s, marker(100))]
            assert await store.apply([batch(claim.epoch, 99, 100, 99, forget)]) == [OK]
            assert [server.exists(key) for key in keys] == [0, 0, 1]
            assert server.ttl(keys[2]) > 36 * DAY_S
            late = [feed(99, 2), feed(98, 2**62), feed(100, 0)]
            assert await store.put_feeds(late) == [False] * 3
            assert not server.exists(keys[1])
            assert await store.put_feeds([feed(101, 3, b"anew")]) == [True]
            assert await store.read_feed(3, "u-1") == b"anew"
            assert b"u-1" not in keys[2]  # the one remnant does not name the user

    run(main())


def test_the_default_feed_is_the_newest(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            assert await store.read_default("home") is None
            taken = [await store.put_default("home", at, b"%d" % at) for at in (300, 200, 300, 1000)]
            assert taken == [True, False, True, True]
            assert await store.read_default("home") == b"1000"
            assert await store.read_default("other") is None
            assert 0 < server.ttl(f"{store_settings.prefix}:default:home") <= DAY_S

    run(main())


def test_a_version_of_the_wrong_size_is_an_error(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            keys = store.feed_key(3, "u"), store.marker_key(3, "u")
            with pytest.raises(StoreError, match="16 bytes"):
                await store._link.run([pack("FCALL", "headrace_put_feed", 2, *keys, 60, b"\0" * 15, b"{}")])
            assert await store.read_feed(3, "u") is None

    run(main())


# ------------------------------------------------------------------ reading


def test_users_are_read_in_order(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            odd = "A.b:c@d/e+f=g-h_" + "x" * 112
            writes = [Write(store.state_key(3, u), 60, u.encode()) for u in ("u-1", "u-2", odd)]
            writes.append(Write(store.marker_key(3, "u-2"), 60, marker(5)))
            assert await store.apply([batch(claim.epoch, 0, 1, 0, writes)]) == [OK]
            assert await store.read_users(3, [odd, "none", "u-2", "u-1"]) == [
                UserRead(odd.encode(), b""),
                UserRead(b"", b""),
                UserRead(b"u-2", marker(5)),
                UserRead(b"u-1", b""),
            ]
            assert await store.read_many({1: ["u-1"], 2: [], 3: ["u-1"]}) == {
                1: [UserRead(b"", b"")],
                2: [],
                3: [UserRead(b"u-1", b"")],
            }
            assert await store.read_users(3, []) == []

    run(main())


def test_concurrent_calls_get_their_own_answers(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            users = [f"u-{n}" for n in range(200)]
            writes = [Write(store.state_key(3, user), 60, user.encode()) for user in users]
            assert await store.apply([batch(claim.epoch, 0, 1, 0, writes)]) == [OK]
            assert await asyncio.gather(*(store.read_state(3, user) for user in users)) == [u.encode() for u in users]

    run(main())


def test_a_call_that_is_wrong_for_good_is_not_repeated(store_settings: Settings, server: redis.Redis) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            server.set(f"{store_settings.prefix}:o:{{3}}", "no hash")
            with pytest.raises(StoreError, match="WRONGTYPE"):
                await store.claim([3], "a", [3])
            assert store.retries == 0
            assert await claimed(store, partition=1) == Claim(1, 0, 0, "", -1)

    run(main())


# ------------------------------------------------------------------ rebuilding


def test_a_partition_that_is_rebuilt_belongs_to_nobody(store_settings: Settings, server: redis.Redis) -> None:
    """From begin to end its owner is fenced and nobody can claim it; then it stands where it was told to."""

    async def main() -> None:
        async with opened(store_settings) as store:
            claim = await claimed(store)
            key, old = store.state_key(3, "u-1"), store.state_key(3, "u-2")
            assert await store.apply([batch(claim.epoch, 0, 9, 9, [Write(old, 60, b"old")])]) == [OK]
            rebuilding = store.rebuilding("r")
            await rebuilding.begin([3])
            assert await store.positions([3]) == {}
            assert await store.apply([batch(claim.epoch, 9, 12)]) == [LOST]
            assert await store.sent(3, claim.epoch, 9) == "FENCED"
            for fresh in ([], [3]):
                with pytest.raises(BeingRebuilt, match="users of partition 3 are being rebuilt"):
                    await store.claim([3], "b", fresh)
            await rebuilding.write(3, [Write(key, 60, b"new"), Write(old, 1, b"")])
            assert [await store.read_state(3, user) for user in ("u-1", "u-2")] == [b"new", None]
            assert 0 < server.ttl(key) <= 60
            await rebuilding.end(3, 5)
            assert await store.positions([3]) == {3: Position(5, 5, claim.epoch + 1, "")}
            assert await claimed(store, "b") == Claim(claim.epoch + 2, 5, 5, "", 5)

    run(main())


def test_a_rebuilding_that_another_took_over_writes_nothing(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            first, second = store.rebuilding("first"), store.rebuilding("second")
            await first.begin([3])
            await second.begin([3])
            for late in (first.write(3, [Write(store.state_key(3, "u-1"), 60, b"no")]), first.end(3, 5)):
                with pytest.raises(NotOurs, match="someone else rebuilds partition 3"):
                    await late
            assert await store.read_state(3, "u-1") is None
            assert await store.positions([3]) == {}
            await second.end(3, 7)
            with pytest.raises(NotOurs):
                await second.write(3, [])
            await claimed(store, "b")
            for late in (second.write(3, []), second.end(3, 7)):
                with pytest.raises(NotOurs):
                    await late

    run(main())


def test_calls_of_a_rebuilding_may_come_twice_or_late(store_settings: Settings) -> None:
    """As every call may whose first answer was lost."""

    async def main() -> None:
        async with opened(store_settings) as store:
            rebuilding, write = store.rebuilding("r"), Write(store.state_key(3, "u-1"), 60, b"new")
            for _ in range(2):
                await rebuilding.begin([3])
            for _ in range(2):
                await rebuilding.write(3, [write])
            for _ in range(2):
                await rebuilding.end(3, 5)
            assert await store.positions([3]) == {3: Position(5, 5, 1, "")}
            await rebuilding.begin([3])
            assert await store.positions([3]) == {3: Position(5, 5, 1, "")}
            with pytest.raises(NotOurs):
                await rebuilding.end(3, 6)

    run(main())


def test_a_restore_of_the_wrong_shape_is_an_error_and_changes_nothing(store_settings: Settings) -> None:
    async def main() -> None:
        async with opened(store_settings) as store:
            rebuilding = store.rebuilding("r")
            await rebuilding.begin([3])
            position, key = b"%b:o:{3}" % store_settings.prefix.encode(), store.state_key(3, "u-1")
            with pytest.raises(StoreError, match="a ttl and a value for each key"):
                await store._link.run([pack("FCALL", "headrace_restore", 2, position, key, 1, 60)])
            assert await store.read_state(3, "u-1") is None

    run(main())


def test_users_are_found_by_what_is_kept_of_them(store_settings: Settings) -> None:
    """All of them, of this prefix alone."""
    longer = load(environ={}, flags={"store_url": store_settings.store.url, "prefix": f"{store_settings.prefix}x"})

    async def main() -> None:
        async with opened(store_settings) as store, opened(longer) as other:
            users = {(p, f"u:{n}") for p in (0, 3) for n in range(700)}
            for at, whose in ((store, users), (other, {(0, "foreign")})):
                claims = await at.claim([0, 3], "a", [0, 3])
                writes = {p: [Write(at.state_key(p, user), 60, b"s") for q, user in whose if q == p] for p in claims}
                calls = [batch(claims[p].epoch, 0, 1, 0, writes[p], partition=p) for p in claims]
                assert await at.apply(calls) == [OK, OK]
            assert await store.put_feeds([FeedWrite(3, "fed", 1, 1, b"{}")]) == [True]
            assert {one async for found in store.scan_users("u") for one in found} == users
            assert {one async for found in store.scan_users("f") for one in found} == {(3, "fed")}

    run(main())
