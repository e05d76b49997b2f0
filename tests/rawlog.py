"""Record batches as bytes: what no well-behaved producer writes, and a broker takes all the same."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.errors import NotLeaderForPartitionError, for_code
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from tests.records import NOW
from tests.waiting import eventually
from workers.settings import Settings

NAME = "q7-Zk:9x"  # of a header; nothing else in a batch looks like it
NOT_UTF8 = b"q7\xff\xfek:9x"
ESCAPED = "q7\\xff\\xfek:9x"
_LENGTH_COUNTS_FROM, _CRC_AT, _ATTRIBUTES_AT, _PRODUCER_AT, _RECORDS_AT = 12, 17, 21, 43, 61
_CODEC = 0b111  # of the attributes

Compress = Callable[[bytes], bytes]
CODECS: dict[Compress, int] = {gzip_encode: 1, snappy_encode: 2, lz4_encode: 3, zstd_encode: 4}
Given = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]  # key, value, headers


class Head(NamedTuple):
    """What a batch says of how it was written."""

    codec: int
    producer: int  # -1 = not by an idempotent producer


def raw_batch(records: Sequence[Given], compress: Compress | None = None, first: int = 0, time: int = NOW) -> bytes:
    """A batch in which every header named NAME is named NOT_UTF8. `first` and `time` (ms): of the first
    record."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 24)
    for i, (key, value, headers) in enumerate(records):
        builder.append(i, time + i, key, value, headers)
    raw = bytearray(bytes(builder.build()).replace(NAME.encode(), NOT_UTF8))
    if compress is not None:
        raw[_RECORDS_AT:] = compress(bytes(raw[_RECORDS_AT:]))
        struct.pack_into(">h", raw, _ATTRIBUTES_AT, CODECS[compress])
    struct.pack_into(">qi", raw, 0, first, len(raw) - _LENGTH_COUNTS_FROM)
    struct.pack_into(">I", raw, _CRC_AT, calc_crc32c(bytes(raw[_ATTRIBUTES_AT:])))
    return bytes(raw)


async def write_raw(settings: Settings, topic: str, partition: int, raw: bytes) -> None:
    """Write a batch as it is; raises the broker's error, but for a topic so new that its leader does not know yet."""
    client = AIOKafkaClient(bootstrap_servers=settings.kafka.bootstrap)
    await client.bootstrap()

    async def written() -> bool:
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        answer = await client.send(leader, ProduceRequest(None, -1, 10_000, [(topic, [(partition, raw)])]))
        ((_, ((_, code, *_),)),) = answer.topics
        if code == NotLeaderForPartitionError.errno:
            await client.force_metadata_update()
            return False
        if code:
            raise for_code(code)
        return True

    try:
        await client.set_topics([topic])
        await eventually(written)
    finally:
        await client.close()


async def heads(settings: Settings, topic: str, partition: int) -> list[Head]:
    """Of the batches of a partition, which are fewer than 1 MiB."""
    client = AIOKafkaClient(bootstrap_servers=settings.kafka.bootstrap)
    await client.bootstrap()
    try:
        await client.set_topics([topic])
        leader = client.cluster.leader_for_partition(TopicPartition(topic, partition))
        answer = await client.send(leader, FetchRequest(1000, 1, 1 << 20, 0, [(topic, [(partition, 0, 1 << 20)])]))
    finally:
        await client.close()
    ((_, ((*_, raw),)),) = answer.topics
    return list(_heads(bytes(raw)))


def _heads(raw: bytes) -> Iterator[Head]:
    at = 0
    while at < len(raw):
        (attributes,) = struct.unpack_from(">h", raw, at + _ATTRIBUTES_AT)
        (producer,) = struct.unpack_from(">q", raw, at + _PRODUCER_AT)
        yield Head(attributes & _CODEC, producer)
        at += _LENGTH_COUNTS_FROM + int(struct.unpack_from(">i", raw, at + 8)[0])
