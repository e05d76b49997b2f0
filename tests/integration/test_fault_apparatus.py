"""What the faults are made with does what it says: the proxy before a real Redis, the pair, the mock cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import KafkaError, UnknownError
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests import backing
from tests.backing import url_of
from tests.faults.mock_cluster import Api, mock_cluster
from tests.faults.proxy import Proxy, proxied
from tests.faults.redis_pair import redis_pair
from tests.waiting import eventually, run
from workers import embedded

pytestmark = [pytest.mark.redis, pytest.mark.fault]
redis_only = pytest.mark.parametrize("own_store", ["redis"], indirect=True)


@pytest.fixture
def proxy(own_store: embedded.Server) -> Iterator[Proxy]:
    with proxied(own_store.port) as made:
        yield made


@pytest.fixture
def through(proxy: Proxy) -> Iterator[redis.Redis]:
    """A client that leads through the proxy, and asks once."""
    with redis.Redis(port=proxy.port, socket_timeout=1.0, retry=Retry(NoBackoff(), 0)) as client:
        yield client


@redis_only
def test_a_held_call_comes_late(proxy: Proxy, through: redis.Redis, own_store: embedded.Server) -> None:
    """Whoever asked has given up; the server carries it out all the same."""
    assert through.ping()
    proxy.hold()
    with pytest.raises(redis.TimeoutError):
        through.incr("n")
    with redis.Redis.from_url(url_of(own_store)) as direct:
        assert direct.get("n") is None
        proxy.forward()

        async def late() -> bool:
            value: bytes | None = await asyncio.to_thread(direct.get, "n")
            return value == b"1"

        run(eventually(late))
    assert through.incr("n") == 2


@redis_only
def test_refused_cut_and_led_elsewhere(proxy: Proxy, through: redis.Redis, own_store: embedded.Server) -> None:
    assert through.ping()
    proxy.refuse()
    for _ in range(2):  # the connection that was there, and a new one
        with pytest.raises(redis.ConnectionError):
            through.ping()
    proxy.forward()
    assert through.set("here", 1)
    with embedded.redis_server(backing.redis_binary() or embedded.valkey_binary()) as other:
        proxy.forward(other.port)
        assert through.get("here") is None  # the old connection was cut


@redis_only
def test_an_answer_is_delayed(proxy: Proxy, through: redis.Redis) -> None:
    assert through.ping()
    proxy.delay(0.1)
    assert through.ping()
    proxy.delay(5.0)
    with pytest.raises(redis.TimeoutError):  # after 1 s
        through.ping()
    assert proxy.delayed == 2
    proxy.forward()
    assert through.ping()


@pytest.mark.skipif(backing.redis_binary() is None, reason="no redis-server on the PATH; the pair is of two of them")
def test_a_failover_loses_what_the_replica_has_not_seen() -> None:
    with redis_pair(backing.redis_binary() or "") as pair, redis.Redis.from_url(pair.url) as client:
        run(eventually(lambda: asyncio.to_thread(pair.in_step)))
        client.set("seen", 1)
        run(eventually(lambda: asyncio.to_thread(pair.in_step)))
        pair.link.hold()
        client.set("lost", 1)
        assert pair.lost() > 0
        pair.fail_over()
        assert client.mget("seen", "lost") == [b"1", None]
        client.set("after", 1)
        pair.rejoin()
        run(eventually(lambda: asyncio.to_thread(pair.in_step)))
        pair.fail_over()
        assert client.mget("seen", "lost", "after") == [b"1", None, b"1"]


def test_one_pushed_error_meets_one_request() -> None:
    async def main() -> None:
        with mock_cluster() as cluster:
            cluster.create("t", 1)
            async with (
                AIOKafkaProducer(bootstrap_servers=cluster.bootstrap) as producer,
                AIOKafkaConsumer("t", bootstrap_servers=cluster.bootstrap, auto_offset_reset="earliest") as consumer,
            ):
                cluster.push(Api.PRODUCE, [UnknownError.errno])
                assert cluster.waiting(Api.PRODUCE) == 1
                with pytest.raises(KafkaError):
                    await producer.send_and_wait("t", b"refused")
                assert cluster.waiting(Api.PRODUCE) == 0
                await producer.send_and_wait("t", b"taken")
                assert (await consumer.getone()).value == b"taken"

    run(main())
