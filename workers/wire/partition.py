"""Which partition a key belongs to: Java's default partitioner, or librdkafka's."""

from __future__ import annotations

from struct import unpack_from
from zlib import crc32

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995
_SEED = 0x9747B28C


def partition_of(key: bytes, count: int, partitioner: str) -> int:
    """The partition of `key` among `count`: `murmur2` (Java's default) or `crc32` (librdkafka's `consistent`).

    Nothing is remembered here: who must forget a user could not reach it.
    """
    return (murmur2(key) & 0x7FFFFFFF if partitioner == "murmur2" else crc32(key)) % count


def murmur2(key: bytes) -> int:
    """MurmurHash2 as in org.apache.kafka.common.utils.Utils, unsigned: 0 <= hash < 2^32."""
    words, rest = divmod(len(key), 4)
    h = _SEED ^ len(key)
    for k in unpack_from(f"<{words}I", key):
        k = k * _M & _MASK  # noqa: PLW2901 - the hash's own variables
        h = h * _M & _MASK ^ (k ^ k >> 24) * _M & _MASK
    if rest:
        h = (h ^ int.from_bytes(key[-rest:], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15
