"""Partitions as Java and librdkafka compute them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as murmur2_of_aiokafka

from workers.wire.partition import murmur2, partition_of


@pytest.mark.parametrize(
    ("key", "hashed"),
    [  # of Apache Kafka's own UtilsTest, signed as Java has them
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        ("abc", 479470107),
    ],
)
def test_murmur2_is_javas(key: str, hashed: int) -> None:
    assert murmur2(key.encode()) == hashed & 0xFFFFFFFF


@pytest.mark.parametrize("length", range(20))
def test_murmur2_of_every_length(length: int) -> None:
    key = bytes(range(200, 200 + length))
    known: Callable[[bytes], Any] = murmur2_of_aiokafka
    assert murmur2(key) == known(key)


def test_murmur2_partition_takes_the_hash_positive_as_java_does() -> None:
    assert partition_of(b"21", 12, "murmur2") == (-973932308 & 0x7FFFFFFF) % 12


def test_crc32_partition_is_librdkafkas() -> None:
    # zlib's check value: crc32("123456789") = 0xCBF43926, unsigned
    assert partition_of(b"123456789", 12, "crc32") == 0xCBF43926 % 12
