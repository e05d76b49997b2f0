"""Items as producers publish them, and what the catalogue makes of them."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.catalog import Entry
from pipeline.content.item import Content
from pipeline.types import hash_id
from tests.records import NOW, Consumed
from workers.wire.catalog import CatalogItem, catalog_of, encode_catalog, gravestone_of, read_catalog
from workers.wire.errors import InvalidError, UnreadableError, WireError
from workers.wire.item import ItemData, Vector, read_item, write_item


def record(**fields: Any) -> Consumed:
    return Consumed(b"i-77", json.dumps({"item_id": "i-77"} | fields).encode())


def vector(*numbers: float, dim: int | None = None) -> dict[str, Any]:
    packed = base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()
    return {"model": "clip", "dim": len(numbers) if dim is None else dim, "f32": packed}


def refused(sent: Consumed) -> WireError:
    with pytest.raises(WireError) as raised:
        read_item(sent)
    return raised.value


def test_an_id_is_enough() -> None:
    assert read_item(record(colour="red", title=None)) == ("i-77", ItemData("i-77"))


def test_null_deletes() -> None:
    assert read_item(Consumed(b"i-77", None)) == ("i-77", None)


@pytest.mark.parametrize("form", ["binary", "structured"])
def test_cloudevents(form: str) -> None:
    bare = record(title="Shoe")
    assert bare.value is not None
    if form == "binary":
        sent = Consumed(b"i-77", bare.value, [("ce_id", b"1")])
    else:
        sent = Consumed(b"i-77", b'{"data":' + bare.value + b"}", [("content-type", b"application/cloudevents+json")])
    assert read_item(sent) == read_item(bare)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (Consumed(None, b"{}"), "key: expected the item id, found null"),
        (Consumed(None, None), "key: expected the item id, found null"),
        (Consumed(b"\xff", None), "key: expected the item id as UTF-8"),
        (Consumed(b"i 77", None), "key (item id): expected"),
        (Consumed(b"i-78", b'{"item_id":"i-77"}'), "key: expected the item id 'i-77', found 'i-78'"),
        (record(item_id=77), "at `$.item_id`"),
        (record(title=5), "at `$.title`"),
        (record(title="x" * 1001), "at `$.title`"),
        (record(categories="shoes"), "at `$.categories`"),
        (record(categories=["x"] * 33), "at `$.categories`"),
        (record(categories=["x" * 129]), "at `$.categories[0]`"),
        (record(tags=[""]), "at `$.tags[0]`"),
        (record(tags=["x"] * 129), "at `$.tags`"),
        (record(creator_id="a b"), "creator_id: expected"),
        (record(price=-1), "at `$.price`"),
        (record(price=1e39), "price: expected a finite float32"),
        (record(price="89"), "at `$.price`"),
        (record(currency="euro"), "at `$.currency`"),
        (record(available="yes"), "at `$.available`"),
        (record(unsafe=["x"] * 17), "at `$.unsafe`"),
        (record(markets=["x"] * 33), "at `$.markets`"),
        (record(markets=[""]), "at `$.markets[0]`"),
        (record(sponsored=True), "at `$.sponsored`"),
        (record(published_at="yesterday"), "published_at: time: expected RFC 3339"),
        (record(published_at=10**15), "published_at: expected a time in the years 1 to 9999"),
        (record(expires_at=1795324211), "expires_at: time: 1795324211 looks like seconds"),
        (record(attributes={"a": {"deep": 1}}), "at `$.attributes[...]`"),
        (record(attributes={"a": 2**64}), "at `$.attributes[...]`"),
        (record(attributes={"a": 1e39}), "a: expected a finite float32"),
        (record(attributes={str(n): 1 for n in range(65)}), "at `$.attributes`"),
        (record(vectors={"image": vector(1, 2, dim=3)}), "vectors.image: expected 3 float32, found 8 bytes"),
        (record(vectors={"image": vector(1, float("nan"))}), "vectors.image: expected finite numbers"),
        (record(vectors={"image": vector(dim=0)}), "at `$.vectors[...].dim`"),
        (record(vectors={"image": vector(dim=4097)}), "at `$.vectors[...].dim`"),
        (record(vectors={"image": {"model": "m", "dim": 1, "f32": "no!"}}), "at `$.vectors[...].f32`"),
        (record(vectors={"image": {"model": "m", "dim": 1}}), "missing required field `f32`"),
        (record(vectors={str(n): vector(1) for n in range(9)}), "at `$.vectors`"),
        (record(text="x" * 70_000), "value: expected at most 65536 bytes"),
    ],
)
def test_invalid_items(sent: Consumed, reason: str) -> None:
    assert reason in str(refused(sent))


@pytest.mark.parametrize("value", [b"", b"{", b"\xff", b'{"item_id":"i-77","price":NaN}', b'{"a":' + b"[" * 40_000])
def test_unreadable_items(value: bytes) -> None:
    assert isinstance(refused(Consumed(b"i-77", value)), UnreadableError)


def test_a_vector_is_little_endian() -> None:
    _, data = read_item(record(vectors={"image": vector(1, -2.5)}))
    assert data is not None
    assert data.vectors is not None
    assert data.vectors["image"].array().tolist() == [1, -2.5]


def test_what_is_written_is_read() -> None:
    data = ItemData("i-77", title="Größe", available=False, vectors={"v": Vector("m", 1, b"\0\0\x80?")})
    key, value, headers = write_item(data)
    assert read_item(Consumed(key, value, headers)) == ("i-77", data)


@pytest.mark.parametrize(
    "data", [ItemData("a b"), ItemData("a", published_at="soon"), ItemData("a", text="x" * 70_000)]
)
def test_what_readers_would_refuse_is_not_written(data: ItemData) -> None:
    with pytest.raises(InvalidError):
        write_item(data)


# --- the catalogue's record --------------------------------------------------------------------------------------


def test_entry_of_a_bare_item() -> None:
    entry = catalog_of(ItemData("i-77"), 9).entry()
    assert entry == Entry("i-77", hash_id("i-77"), "", (), (), "", True, (), None, 0, 0, 9)


def test_entry_of_a_full_item() -> None:
    data = ItemData(
        "i-77",
        title="Shoe",
        categories=["shoes"],
        tags=["vegan"],
        creator_id="acme",
        available=False,
        unsafe=["nsfw"],
        markets=["de", "at"],
        sponsored="autumn",
        published_at=NOW,
        expires_at="1970-01-01T00:00:00Z",
    )
    read = read_catalog(encode_catalog(catalog_of(data, 9)))
    assert isinstance(read, CatalogItem)
    # It expired in 1970: its time must not read as "never".
    assert read.entry() == Entry(
        "i-77",
        hash_id("i-77"),
        "Shoe",
        ("shoes",),
        ("vegan",),
        "acme",
        False,
        ("nsfw",),
        "autumn",
        NOW,
        1,
        9,
        markets=("de", "at"),
    )


def test_what_encoders_read_of_an_item() -> None:
    data = ItemData(
        "i-77", title="Shoe", text="Light.", categories=["shoes"], tags=["vegan"], creator_id="acme", price=89.0,
        currency="EUR", published_at=NOW, vectors={"image": Vector("clip", 2, b"\0\0\x80?\0\0\0@")},
        attributes={"brand": "acme", "sizes": ["41", "42"], "pieces": 2, "note": None},
    )  # fmt: skip
    says = catalog_of(data, 9).says()
    assert (says.hash, says.title, says.text, says.categories, says.tags, says.creator_id, says.published_at) == (
        hash_id("i-77"), "Shoe", "Light.", ("shoes",), ("vegan",), "acme", NOW,
    )  # fmt: skip
    assert says.attributes == {"brand": "acme", "sizes": ("41", "42"), "pieces": 2, "note": None}
    assert says.numbers() == {"published_at": NOW, "price EUR": 89.0, "attribute pieces": 2.0}
    assert (says.vectors["image"].model, says.vectors["image"].values.tolist()) == ("clip", [1, 2])
    assert catalog_of(ItemData("i-78"), 1).says() == Content(hash_id("i-78"))


def test_a_content_vector_is_taken_if_the_same_encoding_made_it() -> None:
    vector = np.array([0.6, -0.8], np.float32)
    item = catalog_of(ItemData("i-77"), 9)
    read = read_catalog(encode_catalog(item.encoded(vector, 5)))
    assert isinstance(read, CatalogItem)
    assert [read.entry(encoding).content.tolist() for encoding in (5, 6, 0)] == [vector.tolist(), [], []]
    nothing = item.encoded(np.zeros(2, np.float32), 5)
    assert (nothing.content, nothing.encoding) == (None, 0)
    assert item.entry(5).content.tolist() == []


@pytest.mark.parametrize("packed", [b"\0" * 7, b"\0\0\xc0\x7f", b"\0\0\x80\x7f\0\0\0\0"])
def test_a_content_vector_that_is_none(packed: bytes) -> None:
    record = msgspec.structs.replace(catalog_of(ItemData("i-77"), 9), content=packed)
    with pytest.raises(UnreadableError, match="content vector"):
        read_catalog(encode_catalog(record))


def test_gravestone() -> None:
    stone = gravestone_of("i-77", 10, NOW)
    assert read_catalog(encode_catalog(stone)) == stone
    assert (stone.hash, stone.deleted_at, stone.offset) == (hash_id("i-77"), NOW, 10)


@pytest.mark.parametrize("value", [b"", b"\x80", b"\xc1", b"\x81\xa4kind\xa5other"])
def test_catalog_bytes_that_are_none(value: bytes) -> None:
    with pytest.raises(WireError, match="catalog"):
        read_catalog(value)


@pytest.mark.parametrize("f32", [b"\x00", b"", b"\x00\x00\xc0\x7f"], ids=["cut", "empty", "NaN"])
def test_a_damaged_vector_of_a_catalogue_record_is_told(f32: bytes) -> None:
    """Whoever follows the catalogue would end by it."""
    damaged = CatalogItem("i-1", 1, 0, vectors={"image": Vector("clip", 1, f32)})
    with pytest.raises(InvalidError, match=r"vectors\.image: expected"):
        read_catalog(encode_catalog(damaged))
