"""`items.v1`: what producers publish of an item, as JSON. Full replacement, never a patch; a null value deletes."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from workers.wire.envelope import RAW_BYTES, SOURCE, binary_headers, unwrap
from workers.wire.errors import InvalidError, decode, shown
from workers.wire.ids import Id, check_id, id_from_key
from workers.wire.numbers import INT64, check_float32
from workers.wire.output import Headers, Record
from workers.wire.times import parse_time

TYPE = "headrace.item.v1"  # `ce_type`

_EARLIEST = parse_time("0001-01-01T00:00:00.000Z")
_LATEST = parse_time("9999-12-31T23:59:59.999Z")

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Value = str | Annotated[int, INT64] | float | bool | list[str] | None


class Vector(msgspec.Struct, omit_defaults=True, frozen=True):
    """A vector that its publisher computed, of an image for example."""

    model: Name  # what computed it: vectors of different models are never compared
    dim: Annotated[int, Meta(ge=1, le=4096)]
    f32: bytes  # dim float32, little-endian; in JSON as base64

    def array(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """(dim,) a view."""
        return np.frombuffer(self.f32, "<f4")


class ItemData(msgspec.Struct, omit_defaults=True):
    """One item. Unknown fields are ignored, null means absent. What msgspec does not check, `check_item` does."""

    item_id: Id
    title: Annotated[str, Meta(max_length=1000)] | None = None
    text: str | None = None
    categories: Annotated[list[Name], Meta(max_length=32)] | None = None
    tags: Annotated[list[Name], Meta(max_length=128)] | None = None
    creator_id: Id | None = None
    price: Annotated[float, Meta(ge=0)] | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] | None = None
    available: bool | None = None  # False hides reversibly; absent = True
    unsafe: Annotated[list[Name], Meta(max_length=16)] | None = None  # safety labels
    markets: Annotated[list[Name], Meta(max_length=32)] | None = None  # where it may be shown; absent = everywhere
    sponsored: Name | None = None
    published_at: int | str | None = None  # RFC 3339 or epoch ms
    expires_at: int | str | None = None
    vectors: Annotated[dict[Name, Vector], Meta(max_length=8)] | None = None
    attributes: Annotated[dict[Name, Value], Meta(max_length=64)] | None = None


class Published(NamedTuple):
    """A record of `items`, read."""

    item_id: str
    data: ItemData | None  # None = deleted


_decoder = msgspec.json.Decoder(ItemData)
_encoder = msgspec.json.Encoder()


def read_item(record: Record) -> Published:
    """The item in `record`, in any of the three envelope forms, or its deletion. Raises WireError."""
    item_id = id_from_key(record.key, "item id")
    if record.value is None:
        return Published(item_id, None)
    data = decode(_decoder, unwrap(record, record.value).data, "item")
    if data.item_id != item_id:
        raise InvalidError(
            f"key: expected the item id {shown(data.item_id)}, found {shown(item_id)}; send it as the key"
        )
    check_item(data)
    return Published(item_id, data)


def check_item(data: ItemData) -> None:
    """What msgspec does not check of `data`. Raises InvalidError."""
    check_id(data.item_id, "item_id")
    if data.creator_id is not None:
        check_id(data.creator_id, "creator_id")
    for name, number in [("price", data.price), *(data.attributes or {}).items()]:
        if isinstance(number, float):
            check_float32(number, name)
    item_time(data.published_at, "published_at")
    item_time(data.expires_at, "expires_at")
    for name, vector in (data.vectors or {}).items():
        check_vector(name, vector)


def item_time(given: int | str | None, name: str) -> int:
    """Epoch ms of a time that an item names, 0 for none (and 1 for 1970 itself). Raises InvalidError."""
    if given is None:
        return 0
    try:
        time = parse_time(given)
    except InvalidError as error:
        raise InvalidError(f"{name}: {error}") from None
    if not _EARLIEST <= time <= _LATEST:
        raise InvalidError(f"{name}: expected a time in the years 1 to 9999, found {shown(given)}")
    return time or 1


def write_item(data: ItemData) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of a record, checked as its readers check it; in binary mode. Raises WireError.

    An item has no id of an event, and needs none (the last record of a key counts): `ce_id` is the item's own.
    """
    check_item(data)
    value = _encoder.encode(data)
    if len(value) > RAW_BYTES:
        raise InvalidError(f"item: expected at most {RAW_BYTES} bytes, found {len(value)}")
    return data.item_id.encode(), value, binary_headers(data.item_id, SOURCE, TYPE, None, data.item_id)


def check_vector(name: str, vector: Vector) -> None:
    """Raise InvalidError unless the bytes of `vector`, of that name, are as many finite float32 as it says."""
    if len(vector.f32) != 4 * vector.dim:
        raise InvalidError(f"vectors.{name}: expected {vector.dim} float32, found {len(vector.f32)} bytes")
    if not np.isfinite(vector.array()).all():
        raise InvalidError(f"vectors.{name}: expected finite numbers")
