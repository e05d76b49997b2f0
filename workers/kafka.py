"""The one place that builds Kafka clients from settings, so that all of them mean the same by "written" and "read"."""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, codec
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    IllegalSaslStateError,
    IncompatibleBrokerVersion,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorForGroupError,
    SaslAuthenticationFailed,
    UnknownError,
    UnsupportedSaslMechanismError,
    UnsupportedVersionError,
    for_code,
)
from aiokafka.protocol.transaction import InitProducerIdRequest

from workers import security
from workers.decoding import read_any_header
from workers.settings import Settings

log = structlog.get_logger()
T = TypeVar("T")

LARGEST_REQUEST = 1_048_576  # bytes: what our topics take
_BATCH = 512 * 1024  # bytes: of a record batch of our own
_REQUEST_TIMEOUT_MS = 40_000
_PROBE_TIMEOUT_MS = 5_000  # while waiting for a broker a dead connection is given up sooner
_METADATA_AGE_MS = 30_000
# The client asks for level 9, Java's clients for none: 8 us for a `states` record instead of 0.6, and 2 % fewer bytes.
_LZ4_LEVEL = 1
_FOR_EVER_MS = 1_000_000_000  # an idle standby must not leave its group; the lane has a watchdog of its own
_LONGEST_WAIT_S = 1.0
_TOPIC_WITHIN_S = 10.0
_TOPIC_POLL_S = 0.1
_GROUPS_WITHIN_S = 15.0
_GROUPS_POLL_S = 0.2
_MEMBERS = 5  # place of the members in a described group
# Asking again would not help: a person has to mend a name, a password, a certificate.
_LOGIN = (AuthenticationFailedError, SaslAuthenticationFailed, UnsupportedSaslMechanismError, IllegalSaslStateError)


class BrokerUnavailable(RuntimeError):
    """The broker did not answer within the time given at start."""


class BrokerRefused(RuntimeError):
    """The broker and we do not accept each other: user, password, mechanism or certificate."""


class TopicMissing(RuntimeError):
    """A topic that must be there is not."""


@dataclass(frozen=True, slots=True)
class Broker:
    """What a broker can do."""

    brokers: int
    idempotent: bool  # gives producer ids; the embedded one does not

    @property
    def tells_ends(self) -> bool:
        """Of logs; those that the embedded one tells are 0, or those of the last batch."""
        return self.idempotent


async def wait_for_broker(settings: Settings) -> Broker:
    """Try until a broker answers.

    Raises BrokerUnavailable after `kafka.connect_timeout_s`, BrokerRefused, Insecure.
    """
    timeout_s = settings.kafka.connect_timeout_s
    trouble: Exception | None = None
    try:
        async with asyncio.timeout(timeout_s):
            wait_s = 0.05
            while True:
                try:
                    return await _probe(settings)
                except (KafkaError, OSError) as error:
                    if trouble is None:
                        log.warning(
                            "broker not ready: trying again", broker=settings.kafka.bootstrap, error=_said(error)
                        )
                    trouble = error
                await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                wait_s = min(_LONGEST_WAIT_S, 2 * wait_s)
    except TimeoutError:
        raise BrokerUnavailable(
            f"kafka: {settings.kafka.bootstrap} did not answer within {timeout_s:g} s "
            f"({_said(trouble) if trouble else 'no answer'}); start it, or set kafka.bootstrap; one that wants TLS "
            "only hangs up on a client without: kafka.security_protocol"
        ) from None


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__  # a time limit has no words of its own


async def answers(settings: Settings) -> bool:
    """Whether a broker answers a newcomer now."""
    try:
        await _probe(settings)
    except (KafkaError, OSError):
        return False
    return True


async def _probe(settings: Settings) -> Broker:
    client = AIOKafkaClient(
        bootstrap_servers=settings.kafka.bootstrap,
        client_id=settings.prefix,
        request_timeout_ms=_probe_timeout_ms(settings),
        **security.broker_options(settings),
    )
    try:
        try:
            await client.bootstrap()
        except KafkaConnectionError:
            await _knock(client, settings)
            raise
        security.guard_broker(settings, (broker.host for broker in client.cluster.brokers()))
        return Broker(brokers=len(client.cluster.brokers()), idempotent=await _gives_producer_ids(client))
    finally:
        await client.close()


def _probe_timeout_ms(settings: Settings) -> int:
    return min(_PROBE_TIMEOUT_MS, round(1000 * settings.kafka.connect_timeout_s))


async def _knock(client: AIOKafkaClient, settings: Settings) -> None:
    """Raise why the bootstrap failed, which the client only logs: BrokerRefused, or what a connection raises."""
    for host, port, _ in client.hosts:
        try:
            connection = await create_conn(
                host,
                port,
                client_id=settings.prefix,
                request_timeout_ms=_probe_timeout_ms(settings),
                **security.broker_options(settings),
            )
        except _LOGIN as error:
            raise BrokerRefused(
                f"kafka: {host}:{port} refused the user {settings.kafka.user} by {settings.kafka.sasl_mechanism} "
                f"({error}); check kafka.user, kafka.password_file, kafka.sasl_mechanism"
            ) from None
        except ssl.SSLError as error:
            if security.tls_refusal(error) is None:
                raise
            raise BrokerRefused(
                f"kafka: {host}:{port}: no TLS that both sides accept ({error}); check kafka.security_protocol, "
                "kafka.ca_file, kafka.cert_file"
            ) from None
        connection.close()


async def _gives_producer_ids(client: AIOKafkaClient) -> bool:
    """Ask for a producer id, as an idempotent producer does when it starts. KafkaError: ask again."""
    try:
        answer = await client.send(client.get_random_node(), InitProducerIdRequest(None, 1000))
    except (IncompatibleBrokerVersion, UnsupportedVersionError):
        return False
    error = for_code(answer.error_code)
    if error in (CoordinatorLoadInProgressError, CoordinatorNotAvailableError):
        raise error(f"no producer ids yet: {error.__name__}")
    if error is ClusterAuthorizationFailedError:  # to whom may write nowhere; what else it is here for is allowed
        return True
    if error in (UnknownError, UnsupportedVersionError):  # the first is the embedded broker's answer
        return False
    if answer.error_code:
        raise error(f"producer ids are refused: {error.__name__}")
    return True


@cache
def _say_not_idempotent(bootstrap: str) -> None:
    """Once a process."""
    log.warning("broker gives no producer ids: a retried write may be there twice", broker=bootstrap)


async def patiently(settings: Settings, ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again while the node that was asked has just died, say. Raises BrokerUnavailable after
    `kafka.connect_timeout_s`, at once what no repetition mends."""
    ending = time.monotonic() + settings.kafka.connect_timeout_s
    while True:
        try:
            return await ask()
        except KafkaError as error:
            if not error.retriable:
                raise
            if time.monotonic() > ending:
                raise BrokerUnavailable(f"kafka: {settings.kafka.bootstrap}: {error}; is a node down?") from error
        await asyncio.sleep(_GROUPS_POLL_S)


async def start_producer(settings: Settings) -> AIOKafkaProducer:
    """A started producer: acks of all replicas, idempotent where the broker can, lz4, batches up to 512 KiB.

    Waits for the broker as `wait_for_broker` does.
    """
    broker = await wait_for_broker(settings)
    if not broker.idempotent:
        _say_not_idempotent(settings.kafka.bootstrap)
    codec.lz4_encode.__defaults__ = (_LZ4_LEVEL,)  # there is no setting for it
    producer = AIOKafkaProducer(
        bootstrap_servers=settings.kafka.bootstrap,
        client_id=settings.prefix,
        acks="all",
        enable_idempotence=broker.idempotent,
        compression_type="lz4",
        max_batch_size=_BATCH,
        max_request_size=LARGEST_REQUEST,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        metadata_max_age_ms=_METADATA_AGE_MS,
        **security.broker_options(settings),
    )
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise
    return producer


def consumer(settings: Settings, group: str | None = None, **options: Any) -> AIOKafkaConsumer:
    """A consumer, not started, without topics: subscribe it (`group`), or assign it partitions.

    It reads only what is committed, commits nothing by itself, and raises on a position outside the log instead of
    jumping. `options` are aiokafka's and come last.
    """
    read_any_header()
    kafka = settings.kafka
    return AIOKafkaConsumer(
        **{
            "bootstrap_servers": kafka.bootstrap,
            "client_id": settings.prefix,
            "group_id": group,
            "enable_auto_commit": False,
            "auto_offset_reset": "none",
            "isolation_level": "read_committed",
            "fetch_max_wait_ms": kafka.fetch_wait_ms,
            "fetch_min_bytes": 1,
            "request_timeout_ms": _REQUEST_TIMEOUT_MS,
            "metadata_max_age_ms": _METADATA_AGE_MS,
            "session_timeout_ms": round(1000 * kafka.session_timeout_s),
            "heartbeat_interval_ms": round(1000 * kafka.heartbeat_s),
            "rebalance_timeout_ms": round(2000 * kafka.session_timeout_s),
            "max_poll_interval_ms": _FOR_EVER_MS,
            **security.broker_options(settings),
            **options,
        }
    )


async def start_consumer(settings: Settings, group: str | None, **options: Any) -> AIOKafkaConsumer:
    """A started `consumer`. Waits for the broker as `wait_for_broker` does."""
    await wait_for_broker(settings)
    made = consumer(settings, group, **options)
    try:
        await made.start()
    except BaseException:
        await made.stop()
        raise
    return made


async def partitions_of(consumer: AIOKafkaConsumer, topic: str) -> list[int]:
    """The partitions of a topic, ascending. Raises TopicMissing when it is still not there after 10 s.

    All topics are asked for: to ask for one by name creates it on a broker that creates by use.
    """
    for _ in range(round(_TOPIC_WITHIN_S / _TOPIC_POLL_S)):
        cluster = await consumer._client.fetch_all_metadata()
        partitions = cluster.partitions_for_topic(topic)
        if partitions:
            return sorted(partitions)
        await asyncio.sleep(_TOPIC_POLL_S)
    raise TopicMissing(
        f"kafka: expected topic {topic}, found none; run `headrace topics apply`, or let this user read it"
    )


@asynccontextmanager
async def admin(settings: Settings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A started admin client, closed at the end. Waits for the broker as `wait_for_broker` does."""
    await wait_for_broker(settings)
    client = AIOKafkaAdminClient(
        bootstrap_servers=settings.kafka.bootstrap,
        client_id=settings.prefix,
        request_timeout_ms=_REQUEST_TIMEOUT_MS,
        **security.broker_options(settings),
    )
    try:
        await client.start()
        yield client
    finally:
        await client.close()


async def members(settings: Settings, group: str) -> int:
    """How many consumers a group has now."""
    async with admin(settings) as client:
        answers = await _of_group(lambda: client.describe_consumer_groups([group]))
    return sum(len(described[_MEMBERS]) for answer in answers for described in answer.groups)


async def commits(settings: Settings, group: str, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """What a group has committed of a topic's partitions; those without a commit are left out."""
    asked = [TopicPartition(topic, partition) for partition in partitions]  # the embedded broker cannot tell of all
    async with admin(settings) as client:
        found = await _of_group(lambda: client.list_consumer_group_offsets(group, partitions=asked))
    return {tp.partition: committed.offset for tp, committed in found.items() if committed.offset >= 0}


async def _of_group(ask: Callable[[], Awaitable[T]]) -> T:
    """Ask again for a while: a broker that had no group yet makes a place for them first."""
    for _ in range(round(_GROUPS_WITHIN_S / _GROUPS_POLL_S)):
        try:
            return await ask()
        except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError, NotCoordinatorForGroupError):
            await asyncio.sleep(_GROUPS_POLL_S)
    return await ask()
