"""`catalog.v1`: an item as it was published, checked, with its hash and its offset in `items`; or its gravestone.

MessagePack, fields by name. A follower ignores a record whose offset is lower than the one it has of the item.
"""

from __future__ import annotations

import msgspec

from pipeline.catalog import Entry
from pipeline.types import hash_id
from workers.wire.errors import decode
from workers.wire.item import ItemData, Value, Vector, item_time


class CatalogItem(msgspec.Struct, tag_field="kind", tag="item", omit_defaults=True, frozen=True):
    """An item that is published."""

    item_id: str
    hash: int
    offset: int  # in `items`
    title: str = ""
    text: str = ""
    categories: list[str] = []
    tags: list[str] = []
    creator_id: str = ""
    price: float | None = None
    currency: str | None = None
    available: bool = True
    unsafe: list[str] = []
    sponsored: str | None = None
    published_at: int = 0  # ms, 0 = not said
    expires_at: int = 0  # ms, 0 = never
    vectors: dict[str, Vector] = {}
    attributes: dict[str, Value] = {}
    content: bytes | None = None  # float32 little-endian: the content vector, where an encoder made one

    def entry(self) -> Entry:
        """What `pipeline.catalog` keeps of it."""
        return Entry(
            item_id=self.item_id,
            hash=self.hash,
            title=self.title,
            categories=tuple(self.categories),
            tags=tuple(self.tags),
            creator_id=self.creator_id,
            available=self.available,
            unsafe=tuple(self.unsafe),
            sponsored=self.sponsored,
            published_at=self.published_at,
            expires_at=self.expires_at,
            offset=self.offset,
        )


class Gravestone(msgspec.Struct, tag_field="kind", tag="gravestone", frozen=True):
    """An item that was deleted: hidden from every feed until it is published again."""

    item_id: str
    hash: int
    deleted_at: int  # ms, wall
    offset: int = -1  # of the deletion in `items`


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
    return decode(_decoder, value, "catalog")
