"""Limits of numbers in JSON, whose own numbers have none."""

from __future__ import annotations

from msgspec import Meta

from workers.wire.errors import InvalidError

FLOAT32_END = 2.0**128 - 2.0**103  # what is smaller rounds to a finite float32
UINT32 = Meta(ge=0, le=(1 << 32) - 1)
UINT64 = Meta(ge=0)  # of MessagePack, which has no greater ones
INT64 = Meta(ge=-(1 << 63), le=(1 << 63) - 1)


def check_float32(number: float, name: str) -> None:
    """Raise InvalidError unless `number`, the value of field `name`, is finite also as a float32."""
    if not -FLOAT32_END < number < FLOAT32_END:
        raise InvalidError(f"{name}: expected a finite float32, found {number}")
