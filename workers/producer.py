"""Producing: batches of our own by partition, sizes checked first, every acknowledgement awaited.

`send()` of aiokafka costs 10-12 us a record; a batch of our own costs 1.3 us a record and does not linger. A batch that
the broker refuses breaks an idempotent producer for good, so whatever is too large is refused here, before it is
appended, and any other failure is final: the process ends, and the positions in the store make that safe.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Self

import structlog
from aiokafka.errors import KafkaError

from workers import kafka
from workers.settings import Settings
from workers.wire.output import Output
from workers.wire.partition import partition_of

log = structlog.get_logger()

LARGEST_RECORD = 1_000_000  # bytes; topics take 1 MiB, and a record carries some overhead
_ACK_TIMEOUT_S = 60.0


class ProduceError(RuntimeError):
    """The broker did not take a record: this producer cannot go on."""


class Producer:
    """An idempotent producer with awaited acknowledgements. Where a broker knows no idempotence it says so once."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Any = None
        self._partitions: dict[str, int] = {}
        self.sent = 0

    async def start(self) -> Self:
        self._client = await kafka.start_producer(self._settings)
        return self

    async def stop(self) -> None:
        """Close within 5 s: `stop()` of the client hangs while the broker is frozen."""
        if self._client is not None:
            client, self._client = self._client, None
            try:
                await asyncio.wait_for(client.stop(), 5)
            except TimeoutError:
                log.warning("producer did not close: the broker does not answer")

    async def send(self, outputs: Iterable[Output], instead: Callable[[Output], Output] | None = None) -> None:
        """Write all of `outputs`, in order within a partition, and wait until all are acknowledged by all replicas.

        An output without a partition goes where its key belongs. `instead` gives what is sent in the place of one that
        is too large. Raises ProduceError; then nothing may be acknowledged.
        """
        try:
            async with asyncio.timeout(_ACK_TIMEOUT_S):
                await asyncio.gather(*await self._submit(outputs, instead))
        except TimeoutError:
            raise ProduceError(f"produce: no acknowledgement within {_ACK_TIMEOUT_S:.0f} s") from None
        except KafkaError as error:
            raise ProduceError(f"produce: {type(error).__name__}: {error}") from error

    async def _submit(
        self, outputs: Iterable[Output], instead: Callable[[Output], Output] | None
    ) -> list[asyncio.Future[Any]]:
        open_batches: dict[tuple[str, int], Any] = {}
        pending: list[asyncio.Future[Any]] = []
        for output in outputs:
            target = output.topic, await self._home(output) if output.partition is None else output.partition
            batch = open_batches.get(target)
            if batch is None or not _append(batch, output):
                await self._begin(output, instead, open_batches, pending)
            self.sent += 1
        for target, batch in open_batches.items():
            pending.append(await self._submit_batch(batch, target))
        return pending

    async def _begin(
        self,
        made: Output,
        instead: Callable[[Output], Output] | None,
        open_batches: dict[tuple[str, int], Any],
        pending: list[asyncio.Future[Any]],
    ) -> None:
        """Append `made` to a new batch, since there is none with room for it; the full one is submitted.

        Only here can a record be too large: what was appended to another fits a batch, which is less.
        """
        output = made if size_of(made) <= LARGEST_RECORD else _replaced(made, instead)
        target = output.topic, await self._home(output) if output.partition is None else output.partition
        full = open_batches.get(target)
        if full is not None:
            if output is not made and _append(full, output):
                return
            pending.append(await self._submit_batch(full, target))
        batch = open_batches[target] = self._client.create_batch()
        if not _append(batch, output):
            raise ProduceError(f"produce: a record for {output.topic} does not fit an empty batch")

    async def _submit_batch(self, batch: Any, target: tuple[str, int]) -> asyncio.Future[Any]:
        """Nothing here gives way to the sender, so that all batches of a call leave in one request a broker."""
        batch.close()
        future: asyncio.Future[Any] = await self._client.send_batch(batch, target[0], partition=target[1])
        return future

    async def _home(self, output: Output) -> int:
        """The partition that the output's key belongs to."""
        count = self._partitions.get(output.topic)
        if count is None:
            count = self._partitions[output.topic] = len(await self._client.partitions_for(output.topic))
        if count == 1:  # of dead letters, most often: hashing a key costs as much as decoding an event
            return 0
        return partition_of(output.key or b"", count, self._settings.partitioner)


def _append(batch: Any, output: Output) -> bool:
    """False when the batch is full."""
    return batch.append(timestamp=None, key=output.key, value=output.value, headers=output.headers) is not None


def size_of(output: Output) -> int:
    """Bytes of key, value and headers."""
    size = len(output.key or b"") + len(output.value or b"")
    for name, value in output.headers:
        size += len(name) + len(value or b"")
    return size


def _replaced(output: Output, instead: Callable[[Output], Output] | None) -> Output:
    """What is sent in the place of `output`, which is too large."""
    replaced = output if instead is None else instead(output)
    size = size_of(replaced)
    if size > LARGEST_RECORD:
        raise ProduceError(f"produce to {replaced.topic}: a record of {size} bytes; at most {LARGEST_RECORD} are taken")
    return replaced
