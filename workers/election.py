"""Who may write the item model: the member of the trainers' group that Kafka assigns the model topic's one partition.

Membership elects; it does not fence. A deposed writer that does not know it yet is recognised by its epoch (see
wire.md on `#writer`), so two writers for a moment cost work, never a wrong model.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

import structlog
from aiokafka import ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError

from workers import kafka
from workers.settings import Settings

log = structlog.get_logger()


class ElectionRefused(RuntimeError):
    """The trainers' group does not take this process: the message says why."""


class Election:
    """Takes part in electing the writer of a topic of one partition."""

    def __init__(self, settings: Settings, topic: str, group: str) -> None:
        self.elected = asyncio.Event()
        self._settings, self._topic, self._group = settings, topic, group
        self._stopping = False

    async def run(self) -> None:
        """Stay a member until `stop`. Raises ElectionRefused: who is no member must not wait to be elected."""
        consumer = await kafka.start_consumer(self._settings, group=self._group)
        consumer.subscribe([self._topic], listener=_Listener(self, consumer))
        try:
            while not self._stopping:
                await consumer.getmany(timeout_ms=200)  # nothing comes: its partition is paused
        except KafkaError as error:
            raise ElectionRefused(f"group {self._group}: {type(error).__name__}: {error}") from error
        finally:
            self.elected.clear()
            try:
                await asyncio.wait_for(consumer.stop(), 5)
            except TimeoutError:
                log.warning("election did not close: the broker does not answer")

    def stop(self) -> None:
        self._stopping = True


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self, election: Election, consumer: Any) -> None:
        self._election, self._consumer = election, consumer

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Kafka asks everyone to give up what they have at each rebalance; who stays elected learns it right after."""

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        for tp in assigned:
            self._consumer.seek(tp, 0)  # no position of its own: without one the client would complain
        self._consumer.pause(*assigned)
        if assigned:
            self._election.elected.set()
        else:
            self._election.elected.clear()
