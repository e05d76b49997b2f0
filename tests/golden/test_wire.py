"""Every record of version 1, as bytes that were written once: read to the values below, and written to the same bytes.

A file here is never regenerated. A change that fails these tests is a new version of the topic.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.types import ItemLists, ItemVectors, Parameters, hash_id
from tests.records import NOW, Consumed
from workers.settings import Settings
from workers.wire import catalog, example, feed, item, marker, model, recent, state
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.event import Attributes, Context, EventData, Rules, read_event, read_events, write_data, write_event

V1 = Path(__file__).parent / "v1"
ID = "0197f3b0-6f0e-7c1a-9b7e-2f1a6f2d4c11"
FEED_ID = "0197f3b0-5c1e-7d3a-8f10-6a52c1d0aa01"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
RULES = Rules.of(Settings())

CLICK = EventData(
    user_id="u-1042",
    action="click",
    item_id="i-77",
    value=1.0,
    time="2026-11-22T05:10:11.123Z",
    event_id=ID,
    session_id="s-9",
    feed_id=FEED_ID,
    position=3,
    context=Context("home", "ios", "en-GB"),
)
PROFILE = EventData(
    user_id="u-1042",
    action="profile",
    time=NOW - 9,
    attributes=Attributes("adult", "de-AT", "AT", ["Krimi – blutig"], ["acme"]),
)
SHOWN = EventData(user_id="u-1042", action="view_item_list", feed_id=FEED_ID, items=["i-12", "i-13"])
SHOE = item.ItemData(
    item_id="i-77",
    title="Trail shoe – Größe 42",
    text="Light.",
    categories=["shoes", "outdoor"],
    tags=["vegan"],
    creator_id="acme",
    price=89.0,
    currency="EUR",
    available=True,
    unsafe=["nsfw"],
    sponsored="autumn",
    published_at="2026-11-01T00:00:00Z",
    expires_at=1_830_000_000_000,
    vectors={"image": item.Vector("clip-v2", 2, np.array([1, -2], "<f4").tobytes())},
    attributes={"brand": "acme", "pieces": 2, "weight": 0.25, "new": True, "sizes": ["41", "42"], "note": None},
)
FEED = feed.Feed(
    feed_id="0197f3b0-7a22-7e10-9d0b-5b3f0e7e1c90",
    user_id="u-1042",
    version=99124,
    revision=NOW,
    count=381,
    generated_at="2026-11-22T05:10:11.132Z",
    expires_at="2026-11-23T05:10:11.132Z",
    cause=feed.FeedCause(ID, "2026-11-22T05:10:11.123Z", "events/3/99123"),
    model=feed.FeedModel(4, 5123),
    recipe="home",
    items=[
        feed.FeedItem(
            item_id="i-12",
            rank=1,
            score=0.913,
            sources={"sequence": 4, "covisitation": 1},
            because=["i-77"],
            parts={"sequence": 0.41, "covisitation": 0.38, "trend": 0.08},
            propensity=0.98,
        )
    ],
    stages=feed.FeedStages(512, {"consumed": 41, "unavailable": 3, "unsafe": 2}, 468, 830),
)


def packed(name: str) -> bytes:
    """The bytes of a binary record."""
    return (V1 / f"{name}.bin").read_bytes()


def consumed(name: str, partition: int = 8) -> Consumed:
    """A record with headers; header values are bytes written as latin-1."""
    record: dict[str, Any] = json.loads((V1 / f"{name}.json").read_text())
    value = record["value"]
    return Consumed(
        key=record["key"].encode(),
        value=None if value is None else value.encode(),
        headers=[(header, text.encode("latin-1")) for header, text in record["headers"]],
        partition=partition,
    )


# --- events: the three envelopes ---------------------------------------------------------------------------------


def test_bare_event() -> None:
    record = consumed("event_bare")
    event = read_event(record, RULES, NOW)
    assert (event.data, event.time_ms, event.id, event.item) == (PROFILE, NOW - 9, "", 0)
    attributes = '"audience":"adult","locale":"de-AT","market":"AT","muted_categories":["Krimi – blutig"]'
    assert event.attributes.decode() == f'{{{attributes},"muted_creators":["acme"]}}'
    assert write_data(event.data) == record.value


def test_binary_event() -> None:
    record = consumed("event_binary")
    event = read_event(record, RULES, NOW)
    assert (event.data, event.time_ms, event.id, event.item) == (CLICK, NOW - 9, ID, hash_id("i-77"))
    written = write_event(event.data, "/shop", event.envelope.traceparent, event.envelope.tracestate)
    assert written == (record.key, record.value, record.headers)


def test_structured_event() -> None:
    record = consumed("event_structured")
    event = read_event(record, RULES, NOW)
    assert (event.data, event.time_ms, event.id) == (SHOWN, NOW - 132, "/app\0A234")
    assert record.value is not None
    assert write_data(event.data) == event.raw
    assert event.raw in record.value


@pytest.mark.parametrize("form", ["bare", "binary", "structured"])
def test_every_form_is_rerouted_in_binary_mode_and_read_the_same(form: str) -> None:
    batch = read_events([consumed(f"event_{form}", partition=4)], RULES, 4, NOW)
    [sent] = batch.astray
    expected = consumed(f"rerouted_{form}")
    assert (sent.key, sent.value, sent.headers, sent.partition) == (expected.key, expected.value, expected.headers, 8)
    before, after = read_event(consumed(f"event_{form}"), RULES, NOW), read_event(expected, RULES, NOW)
    assert (after.data, after.time_ms) == (before.data, before.time_ms)
    assert after.id == (before.id or "/headrace\0headrace.events.v1/4/99123")


# --- items and catalogue -----------------------------------------------------------------------------------------


def test_item() -> None:
    record = consumed("item")
    assert item.read_item(record) == ("i-77", SHOE)
    assert item.write_item(SHOE) == (record.key, record.value, record.headers)


def test_catalog_item() -> None:
    read = catalog.read_catalog(packed("catalog_item"))
    assert read == catalog.catalog_of(SHOE, 41)
    assert isinstance(read, catalog.CatalogItem)
    assert (read.hash, read.offset, read.published_at) == (hash_id("i-77"), 41, 1_793_491_200_000)
    assert catalog.encode_catalog(read) == packed("catalog_item")


def test_catalog_item_with_its_content() -> None:
    read = catalog.read_catalog(packed("catalog_content"))
    vector = f32(0.6, 0, -0.8)
    assert read == catalog.catalog_of(SHOE, 41).encoded(vector, 2**64 - 7)
    assert isinstance(read, catalog.CatalogItem)
    assert read.entry(2**64 - 7).content.tolist() == vector.tolist()
    assert read.entry(7).content.tolist() == []
    assert catalog.encode_catalog(read) == packed("catalog_content")


def test_catalog_gravestone() -> None:
    read = catalog.read_catalog(packed("catalog_gravestone"))
    assert read == catalog.Gravestone("i-77", hash_id("i-77"), deleted_at=NOW, offset=42)
    assert catalog.encode_catalog(read) == packed("catalog_gravestone")


# --- states ------------------------------------------------------------------------------------------------------


def test_state() -> None:
    read = state.decode_state(packed("state"))
    shown, clicked = (consumed(f"event_{form}").value or b"" for form in ("structured", "binary"))
    shown = shown[shown.index(b'"data":') + 7 : -1]
    assert read.blob == bytes(range(256))
    assert read.fresh == [
        state.Fresh(99122, NOW - 9, 0, shown),
        state.Fresh(99123, NOW - 9, hash_id(ID), clicked),
    ]
    assert read.refresh
    assert read.cause == state.Cause(ID, NOW - 9, TRACE, "vendor=1", 99123)
    items, times, actions = state.unpack_ring(read.evicted or b"")
    assert items.tolist() == [hash_id("i-1"), 2**63]
    assert times.tolist() == [1_795_324_211, 1_795_324_000]
    assert actions.tolist() == [3, 4]
    assert state.pack_ring(items, times, actions) == read.evicted
    assert state.encode_state(read) == packed("state")


def test_state_announced_again() -> None:
    read = state.decode_state(packed("state_again"))
    assert (read.evicted, read.refresh, read.cause, len(read.fresh)) == (None, False, None, 1)
    assert state.encode_state(read) == packed("state_again")


def test_state_null() -> None:
    record = consumed("state_null")
    forgotten = state.read_forgotten(record.headers)
    assert (record.value, forgotten) == (None, (99123, NOW))
    assert state.forgotten_headers(*forgotten) == record.headers


def test_forget_marker() -> None:
    read = marker.read_marker(packed("marker"))
    assert read == (99124, NOW)
    assert marker.write_marker(read) == packed("marker")
    assert packed("marker")[24:] == b'{"forgotten":true,"version":99124,"time":"2026-11-22T05:10:11.132Z"}'


def test_recent() -> None:
    rows = recent.unpack_recent(packed("recent"))
    assert rows.offsets.tolist() == [99122, 99123]
    assert rows.users.tolist() == [hash_id("u-1042"), hash_id("u-2")]
    assert rows.items.tolist() == [hash_id("i-77"), 0]
    assert rows.times.tolist() == [1_795_324_211, 1_795_324_212]
    assert rows.actions.tolist() == [3, 10]
    assert recent.pack_recent(rows.offsets, rows.users, rows.items, rows.times, rows.actions) == packed("recent")


# --- model -------------------------------------------------------------------------------------------------------


def f32(*numbers: float) -> Any:
    return np.array(numbers, np.float32)


def u64(*numbers: int) -> Any:
    return np.array(numbers, np.uint64)


def test_model_vectors() -> None:
    read = model.read_model(b"v:i-77", packed("model_vectors"))
    expected = ItemVectors(
        item_id="i-77",
        hash=hash_id("i-77"),
        e_in=f32(0.5, -1.25, 0, 2),
        e_out=f32(1, 2, 3, -4),
        bias=-0.75,
        accumulators=f32(1e-6, 0.5, 0.25),
        decayed=f32(1, 2.5, 3, 4),
        reference=NOW,
        count=17.5,
        entry=f32(3, 2, 1),
        first_seen=NOW - 10_000_000,
        last_seen=NOW - 5,
    )
    assert isinstance(read, model.VectorsRecord)
    assert (read.epoch, read.version) == (4, 5123)
    for name in ItemVectors.__dataclass_fields__:
        assert np.array_equal(getattr(read.vectors(), name), getattr(expected, name)), name
    assert model.encode_vectors(read.vectors(), 4, 5123) == packed("model_vectors")


def test_model_lists() -> None:
    read = model.read_model(b"l:i-77", packed("model_lists"))
    hashes = u64(1, 2**64 - 1), u64(), u64(7), u64(9, 8, 3)
    weights = f32(2, 0.5), f32(), f32(1), f32(3, 2, 0.125)
    expected = ItemLists("i-77", hash_id("i-77"), NOW, hashes, weights)
    assert isinstance(read, model.ListsRecord)
    lists = read.lists()
    assert (read.epoch, read.version, lists.item_id, lists.hash, lists.reference) == (
        4, 5123, expected.item_id, expected.hash, NOW,
    )  # fmt: skip
    columns: list[Any] = [*lists.hashes, *lists.weights]
    for read_column, column in zip(columns, (*hashes, *weights), strict=True):
        assert np.array_equal(read_column, column)
    assert model.encode_lists(lists, 4, 5123) == packed("model_lists")


def test_model_writer() -> None:
    read = model.read_model(b"#writer", packed("model_writer"))
    assert read == model.WriterRecord(4, 5122, "host-1:812", NOW)
    assert isinstance(read, model.WriterRecord)
    assert model.encode_writer(read) == packed("model_writer")


def test_model_checkpoint() -> None:
    read = model.read_model(b"#checkpoint", packed("model_checkpoint"))
    assert read == model.CheckpointRecord(4, 5130, {0: 10, 3: 99124}, {0: b"\xff\x03", 3: b"\x01"})
    assert isinstance(read, model.CheckpointRecord)
    assert model.encode_checkpoint(read) == packed("model_checkpoint")


def test_model_parameters() -> None:
    read = model.read_model(b"#sequence", packed("model_parameters"))
    assert isinstance(read, model.ParametersRecord)
    assert (read.epoch, read.version) == (4, 5123)
    expected: dict[str, Any] = {
        "alpha": f32(0, -0.25),
        "context": f32(1, 2, 3, 4, 5, 6).reshape(3, 2),
        "steps": np.array(17),
        "names": u64(2**64 - 1),
        "doubled": np.array([0.1]),
        "nothing": np.empty((0, 3), np.uint8),
        "on": np.array([True, False]),
    }
    parameters = read.parameters("sequence")
    assert parameters.name == "sequence"
    assert parameters.arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert parameters.arrays[name].dtype == array.dtype
        assert parameters.arrays[name].shape == array.shape
        assert np.array_equal(parameters.arrays[name], array)
    assert model.encode_parameters(Parameters("sequence", expected), 4, 5123) == packed("model_parameters")


def test_model_record_of_a_later_version() -> None:
    later = msgspec.msgpack.encode([4, 5131, "something", b"new"])
    assert model.read_model(b"#ranker", later) == model.Stamp(4, 5131)


# --- feeds, examples, dead letters -------------------------------------------------------------------------------


def test_feed() -> None:
    record = consumed("feed")
    assert feed.read_feed(record.value or b"") == FEED
    assert feed.encode_feed(FEED) == record.value
    assert feed.feed_headers(FEED, TRACE) == record.headers
    assert feed.read_pair(record.headers) == (99124, NOW)


def test_default_feed() -> None:
    record = consumed("feed_default")
    read = feed.read_feed(record.value or b"")
    assert read == msgspec.structs.replace(FEED, user_id="", version=0, count=0, cause=None, items=[])
    assert feed.encode_feed(read) == record.value


def test_feed_null() -> None:
    record = consumed("feed_null")
    pair = feed.read_pair(record.headers)
    assert (record.value, pair) == (None, (99124, 0))
    assert feed.pair_headers(*pair) == record.headers


def test_example() -> None:
    read = msgspec.msgpack.decode(packed("example"), type=example.Example)
    assert (read.feed_id, read.bucket, read.chosen, read.logged) == (FEED.feed_id, 2, 1, 2)
    assert np.frombuffer(read.context, "<f4").tolist() == [0.5, 1]
    assert np.frombuffer(read.features, "<f2").reshape(3, 2).tolist() == [[1, 2], [3, 4], [5, 6]]
    assert np.frombuffer(read.ranks, "<u2").reshape(3, 2).tolist() == [[1, 0], [2, 1], [0, 0]]
    assert msgspec.msgpack.encode(read) == packed("example")


def test_example_to_learn_from() -> None:
    read = example.read_example(packed("example_choosing"))
    assert (read.feed_id, read.bucket, read.chosen, read.logged, read.ranks) == (FEED.feed_id, 2, 1, 2, b"")
    assert (read.total, read.layout) == (40, (1 << 63) + 5)
    assert np.frombuffer(read.places, "<f4").tolist() == [2, 3.5, np.inf, 1, 8]
    choice = read.choice(2, 2)
    assert choice.features.tolist() == [[1, 3, 5], [2, 4, 6]]
    assert choice.context.tolist() == [0.5, 1]
    assert example.encode_example(read.feed_id, choice, read.layout) == packed("example_choosing")
    old = example.read_example(packed("example"))  # written before: it does not say by which features
    assert (old.total, old.places, old.layout, read.seen) == (0, b"", 0, b"")


def test_example_with_what_was_seen() -> None:
    read = example.read_example(packed("example_seeing"))
    choice = read.choice(2, 2)
    assert (read.chosen, read.logged, choice.seen.tolist()) == (1, 3, [0, 2])
    assert example.encode_example(read.feed_id, choice, read.layout) == packed("example_seeing")
    before = msgspec.msgpack.decode(packed("example_seeing"), type=example.Choosing)  # by whom knows nothing of it
    assert (before.layout, before.total) == (read.layout, 40)


def test_dead_letter() -> None:
    expected = consumed("dead_letter")
    record = Consumed(b"u-9", b'{"user_id":"u-1042","action":5}', [("ce_id", b"\xff\x00"), ("x", b"")])
    bad = BadRecord(record, "validate", "event: Expected `str`, got `int` - at `$.action`", "InvalidError")
    sent = dead_letter(bad, "headrace.dead-letters.v1", "headrace.embedding", NOW)
    assert (sent.key, sent.value, sent.headers) == (expected.key, expected.value, expected.headers)
    assert sent.topic == "headrace.dead-letters.v1"
