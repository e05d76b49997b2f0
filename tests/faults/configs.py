"""A topic configured otherwise for a while: how a broker is made to refuse what it took before, or to drop what it
kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import PolicyViolationError, for_code

from tests.waiting import eventually
from workers import kafka, topics
from workers.settings import Settings


@asynccontextmanager
async def configured(settings: Settings, dataset: str, **changes: str) -> AsyncIterator[None]:
    """`changes` (dots as underscores) hold for the topic while the block runs; then it is as declared again."""
    await configure(settings, dataset, **changes)
    try:
        yield
    finally:
        await configure(settings, dataset)


async def configure(settings: Settings, dataset: str, **changes: str) -> None:
    """Give a topic its declared configuration with `changes`; what is not named is the broker's default."""
    name = settings.topic(dataset)
    declared = next(dict(topic.config) for topic in topics.declared(settings) if topic.name == name)
    config = {**declared, **{key.replace("_", "."): value for key, value in changes.items()}}
    async with kafka.admin(settings) as client:
        (answer,) = await client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, config)])
    for code, message, *_ in answer.resources:
        if code:
            raise for_code(code)(message)


async def cut(settings: Settings, dataset: str) -> None:
    """Delete every record of a compacted topic of one partition, as an operator with a wrong retention does."""
    everything = {TopicPartition(settings.topic(dataset), 0): RecordsToDelete(before_offset=-1)}

    async def deleted() -> bool:  # a new configuration is answered for before the partition's leader has it
        try:
            async with kafka.admin(settings) as client:
                await client.delete_records(everything)
        except PolicyViolationError:
            return False
        return True

    async with configured(settings, dataset, cleanup_policy="compact,delete"):
        await eventually(deleted)
