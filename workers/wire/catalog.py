"""`catalog.v1`: an item as it was published, checked, with its hash, content vector and offset in `items`; or its
gravestone.

MessagePack, fields by name. A follower ignores a record whose offset is lower than the one it has of the item, and a
content vector that another encoding made: it reads `items` anew to have them all encoded again.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
import numpy as np

from pipeline.catalog import Entry
from pipeline.content.item import Content, Fact, Given
from pipeline.types import F32, hash_id
from workers.wire.errors import UnreadableError, decode
from workers.wire.item import ItemData, Value, Vector, check_vector, item_time
from workers.wire.numbers import INT64, UINT64


class CatalogItem(msgspec.Struct, tag_field="kind", tag="item", omit_defaults=True, frozen=True):
    """An item that is published."""

    item_id: str
    hash: Annotated[int, UINT64]
    offset: Annotated[int, INT64]  # in `items`
    title: str = ""
    text: str = ""
    categories: list[str] = []
    tags: list[str] = []
    creator_id: str = ""
    price: float | None = None
    currency: str | None = None
    available: bool = True
    unsafe: list[str] = []
    markets: list[str] = []
    sponsored: str | None = None
    published_at: Annotated[int, INT64] = 0  # ms, 0 = not said
    expires_at: Annotated[int, INT64] = 0  # ms, 0 = never
    vectors: dict[str, Vector] = {}
    attributes: dict[str, Value] = {}
    content: bytes | None = None  # float32 little-endian: the content vector; absent where the item says nothing
    encoding: int = 0  # tells what made the content vector

    def entry(self, encoding: int = 0) -> Entry:
        """What `pipeline.catalog` keeps of it; with the content vector, if `encoding` made it."""
        return Entry(
            item_id=self.item_id,
            hash=self.hash,
            title=self.title,
            categories=tuple(self.categories),
            tags=tuple(self.tags),
            creator_id=self.creator_id,
            available=self.available,
            unsafe=tuple(self.unsafe),
            markets=tuple(self.markets),
            sponsored=self.sponsored,
            published_at=self.published_at,
            expires_at=self.expires_at,
            offset=self.offset,
            content=_vector(self.content) if self.content and self.encoding == encoding else _NO_VECTOR,
        )

    def says(self) -> Content:
        """What encoders read of it."""
        return Content(
            hash=self.hash,
            title=self.title,
            text=self.text,
            categories=tuple(self.categories),
            tags=tuple(self.tags),
            creator_id=self.creator_id,
            price=self.price,
            currency=self.currency or "",
            published_at=self.published_at,
            attributes={name: _fact(value) for name, value in self.attributes.items()},
            vectors={name: Given(vector.model, vector.array()) for name, vector in self.vectors.items()},
        )

    def encoded(self, vector: F32, encoding: int) -> CatalogItem:
        """The same with a content vector (d,) that `encoding` made; without one where all of it is 0."""
        packed = vector.astype("<f4").tobytes() if vector.any() else None
        return msgspec.structs.replace(self, content=packed, encoding=encoding if packed else 0)


class Gravestone(msgspec.Struct, tag_field="kind", tag="gravestone", frozen=True):
    """An item that was deleted: hidden from every feed until it is published again."""

    item_id: str
    hash: Annotated[int, UINT64]
    deleted_at: Annotated[int, INT64]  # ms, wall
    offset: Annotated[int, INT64] = -1  # of the deletion in `items`


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[CatalogItem | Gravestone] = msgspec.msgpack.Decoder(CatalogItem | Gravestone)


def catalog_of(data: ItemData, offset: int) -> CatalogItem:
    """The record of valid `data`, published at `offset` of `items`."""
    return CatalogItem(
        item_id=data.item_id,
        hash=hash_id(data.item_id),
        offset=offset,
        title=data.title or "",
        text=data.text or "",
        categories=data.categories or [],
        tags=data.tags or [],
        creator_id=data.creator_id or "",
        price=data.price,
        currency=data.currency,
        available=data.available is not False,
        unsafe=data.unsafe or [],
        markets=data.markets or [],
        sponsored=data.sponsored,
        published_at=item_time(data.published_at, "published_at"),
        expires_at=item_time(data.expires_at, "expires_at"),
        vectors=data.vectors or {},
        attributes=data.attributes or {},
    )


def gravestone_of(item_id: str, offset: int, deleted_at: int) -> Gravestone:
    """The gravestone of `item_id`, deleted at `offset` of `items`, at `deleted_at` (ms, wall)."""
    return Gravestone(item_id, hash_id(item_id), deleted_at, offset)


def encode_catalog(record: CatalogItem | Gravestone) -> bytes:
    """The value of a `catalog` record; its key is the item id."""
    return _encoder.encode(record)


def read_catalog(value: bytes) -> CatalogItem | Gravestone:
    """The record in `value`. Raises WireError."""
    record = decode(_decoder, value, "catalog")
    if isinstance(record, CatalogItem):
        if record.content is not None:
            _check_content(record.content)
        for name, vector in record.vectors.items():
            check_vector(name, vector)
    return record


def _check_content(packed: bytes) -> None:
    if len(packed) % 4 or not np.isfinite(_vector(packed)).all():
        raise UnreadableError(f"catalog: expected a content vector of finite float32, found {len(packed)} bytes")


def _vector(packed: bytes) -> F32:
    """(d,) a view."""
    return np.frombuffer(packed, "<f4")


def _fact(value: Value) -> Fact:
    return tuple(value) if isinstance(value, list) else value


_NO_VECTOR: F32 = np.empty(0, np.float32)
