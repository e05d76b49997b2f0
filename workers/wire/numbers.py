"""Limits of numbers in JSON, whose own numbers have none."""

from __future__ import annotations

from msgspec import Meta

from workers.wire.errors import InvalidError

FLOAT32_END = 2.0**128 - 2.0**103  # what is smaller rounds to a finite float32
UINT32 = Meta(ge=0, le=(1 << 32) - 1)
UINT64 = Meta(ge=0)  # of MessagePack, which has no greater ones
LAST_INT64 = (1 << 63) - 1
INT64 = Meta(ge=-(1 << 63), le=LAST_INT64)


def check_float32(number: float, name: str) -> None:
    """Raise InvalidError unless `number`, the value of field `name`, is finite also as a float32."""
    if not -FLOAT32_END < number < FLOAT32_END:
        raise InvalidError(f"{name}: expected a finite float32, found {number}")


def header_number(text: bytes | None, first: int, last: int) -> int:
    """The integer that a header holds as text. Raises ValueError for anything else, and outside [first, last]."""
    number = int(text or b"")
    if not first <= number <= last:
        raise ValueError
    return number
