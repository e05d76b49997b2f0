"""The declared topics: what they hold, who writes them, how they are kept. `headrace topics` and the docs read this."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import structlog
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError, UnsupportedVersionError, for_code

from workers.kafka import admin, patiently
from workers.settings import Settings
from workers.wire.marker import KEPT_MS

log = structlog.get_logger()

Cleanup = Literal["delete", "compact", "compact,delete"]
Encoding = Literal["JSON (CloudEvents)", "MessagePack", "packed array", "original bytes"]

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS
_EXISTS = 36
_PARTITIONS = "partitions:"
_VISIBLE_WITHIN_S = 30.0
_POLL_S = 0.05


class TopicsRefused(RuntimeError):
    """The broker's topics cannot be used or made; the message says what was expected, what was found, what to do."""


@dataclass(frozen=True, slots=True)
class Topic:
    """A declared topic, without its prefix."""

    dataset: str
    key: str
    partitions: int | None  # None = P, the same for all topics of users
    cleanup: Cleanup
    encoding: Encoding
    writer: str
    keep_days: float | None = None  # None = as long as the key lives
    config: Mapping[str, str] = field(default_factory=dict)  # beyond what `configs` derives


TOPICS: tuple[Topic, ...] = (
    Topic("events", "user id", None, "delete", "JSON (CloudEvents)", "producers", keep_days=7),
    Topic(
        "states", "user id", None, "compact,delete", "MessagePack", "embedding worker",
        # `keep_days` is users.ttl_days. `verify` replays events from a cut younger than this lag. A null lives as long
        # as the store's forget marker: it is what a lost one is made of again.
        config={"min.compaction.lag.ms": str(_DAY_MS), "delete.retention.ms": str(KEPT_MS)},
    ),
    Topic("feeds", "user id", None, "compact,delete", "JSON (CloudEvents)", "retrieval worker", keep_days=7),
    Topic("items", "item id", 4, "compact", "JSON (CloudEvents)", "producers"),
    Topic("catalog", "item id", 1, "compact", "MessagePack", "catalog worker"),
    Topic("model", "record key", 1, "compact", "MessagePack", "trainer", config={"segment.ms": str(_HOUR_MS)}),
    Topic("recent", "partition of events", None, "delete", "packed array", "embedding worker", keep_days=1),
    Topic(
        "examples", "feed id", 1, "delete", "MessagePack", "retrieval worker", keep_days=3,
        # 10 KB each, 50 a second and worker. A trainer goes on a minute from where it was: older ones are for looks.
        config={"retention.bytes": str(1 << 30)},
    ),
    Topic("dead-letters", "original", 1, "delete", "original bytes", "every worker", keep_days=7),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Declared:
    """A topic as a broker is asked for it."""

    name: str
    partitions: int
    replication: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """What a broker has of a declared topic, and how that differs."""

    topic: Declared
    exists: bool
    differences: tuple[str, ...]  # "retention.ms: expected 604800000, found 3600000"


def declared(settings: Settings) -> list[Declared]:
    """All topics of a prefix."""
    kafka = settings.kafka
    return [
        Declared(settings.topic(t.dataset), t.partitions or kafka.partitions, kafka.replication, configs(t, settings))
        for t in TOPICS
    ]


def configs(topic: Topic, settings: Settings) -> dict[str, str]:
    """The configuration of a topic, all of it that is ours to say."""
    config = {"cleanup.policy": topic.cleanup, "max.message.bytes": str(1024 * 1024)}
    keep_days = settings.users.ttl_days if topic.dataset == "states" else topic.keep_days
    if keep_days is not None:
        config["retention.ms"] = str(round(keep_days * _DAY_MS))
    if "compact" in topic.cleanup:
        config |= {
            "segment.ms": str(_DAY_MS),  # the open segment is never compacted
            "max.compaction.lag.ms": str(7 * _DAY_MS),
            "delete.retention.ms": str(7 * _DAY_MS),  # a follower that was away so long still sees each deletion
            "min.cleanable.dirty.ratio": "0.1",
        }
    return {**config, **topic.config}


async def show(settings: Settings) -> list[Standing]:
    """Compare the broker's topics with the declared ones; changes nothing."""
    async with admin(settings) as client:
        return await _compare(client, declared(settings))


async def apply(settings: Settings) -> tuple[list[str], list[Standing]]:
    """Create the missing topics; the names of the new ones, and how all compare afterwards.

    What exists is not changed: a difference is for an operator to judge. Raises TopicsRefused when one cannot be made.
    """
    async with admin(settings) as client:
        wanted = declared(settings)
        there = await _partitions(client)
        created = await _create(client, [topic for topic in wanted if topic.name not in there])
        await _visible(client, wanted)
        return created, await _compare(client, wanted)


async def ensure(settings: Settings) -> None:
    """Create the missing topics; raises TopicsRefused when one has another number of partitions than declared."""
    _, standings = await apply(settings)
    for standing in standings:
        _refuse_other_partitions(standing)
        for difference in standing.differences:
            log.warning("topic differs from its declaration", topic=standing.topic.name, difference=difference)


async def check(settings: Settings) -> None:
    """Raise TopicsRefused when a topic that is there has another number of partitions than declared."""
    for standing in await patiently(settings, lambda: show(settings)):
        _refuse_other_partitions(standing)


def _refuse_other_partitions(standing: Standing) -> None:
    for difference in standing.differences:
        if difference.startswith(_PARTITIONS):
            raise TopicsRefused(
                f"kafka: topic {standing.topic.name}, {difference}; the number is part of the prefix's contract: "
                "set kafka.partitions back, or use another prefix"
            )


async def _create(client: AIOKafkaAdminClient, topics: Sequence[Declared]) -> list[str]:
    if not topics:
        return []
    asked = [NewTopic(t.name, t.partitions, t.replication, topic_configs=dict(t.config)) for t in topics]
    try:
        answer = await client.create_topics(asked, timeout_ms=30_000)
    except KafkaError as error:
        raise TopicsRefused(f"kafka: cannot create topics: {type(error).__name__}: {error}") from error
    created = []
    for name, code, *message in answer.topic_errors:  # errors are answers here, not exceptions
        if code and code != _EXISTS:
            why = f"{for_code(code).__name__}: {message[0] if message and message[0] else 'no reason given'}"
            raise TopicsRefused(f"kafka: cannot create topic {name}: {why}")
        if not code:
            created.append(name)
    return created


async def _visible(client: AIOKafkaAdminClient, topics: Sequence[Declared]) -> None:
    """Wait until every partition of `topics` has a leader: a creation is answered before that."""
    names = {topic.name for topic in topics}
    for _ in range(round(_VISIBLE_WITHIN_S / _POLL_S)):
        if names <= (await _partitions(client)).keys():
            return
        await asyncio.sleep(_POLL_S)
    raise TopicsRefused(f"kafka: topics have no leaders after {_VISIBLE_WITHIN_S:g} s; is a broker down?")


async def _compare(client: AIOKafkaAdminClient, topics: Sequence[Declared]) -> list[Standing]:
    there = await _partitions(client)
    found = await _found_configs(client, [topic.name for topic in topics if topic.name in there])
    standings = []
    for topic in topics:
        differences = []
        if topic.name in there and there[topic.name] != topic.partitions:
            differences.append(f"{_PARTITIONS} expected {topic.partitions}, found {there[topic.name]}")
        if topic.name in found:
            differences += _differences(topic.config, found[topic.name])
        standings.append(Standing(topic, topic.name in there, tuple(differences)))
    return standings


def _differences(expected: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    return [
        f"{name}: expected {value}, found {found.get(name, 'none')}"
        for name, value in expected.items()
        if not _same(value, found.get(name))
    ]


def _same(expected: str, found: str | None) -> bool:
    """A cleanup policy is a set: brokers give its words in an order of their own."""
    return found is not None and sorted(expected.split(",")) == sorted(found.replace(" ", "").split(","))


async def _partitions(client: AIOKafkaAdminClient) -> dict[str, int]:
    """Topics whose partitions all have leaders, with their number.

    All topics are asked for: to ask for one by name creates it on a broker that creates by use.
    """
    topics: list[dict[str, Any]] = await client.describe_topics()
    return {
        t["topic"]: len(t["partitions"])
        for t in topics
        if not t["error_code"] and t["partitions"] and all(p["leader"] >= 0 for p in t["partitions"])
    }


async def _found_configs(client: AIOKafkaAdminClient, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Configurations by topic; a topic whose configuration the broker does not tell is left out."""
    if not names:
        return {}
    try:
        answers = await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    except (IncompatibleBrokerVersion, UnsupportedVersionError):
        log.info("topic configurations not compared: this broker does not tell them")
        return {}
    found = {}
    for answer in answers:
        for code, _, _, name, entries in answer.resources:
            if not code:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found
