"""Round trips of what workers write for workers, and bytes that are none of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from pipeline.types import ItemLists, ItemVectors, Parameters
from tests.records import Consumed
from workers.wire import catalog, feed, marker, model, recent, state
from workers.wire.errors import WireError
from workers.wire.item import ItemData, read_item, write_item
from workers.wire.numbers import LAST_INT64
from workers.wire.times import END_MS

u64 = st.integers(0, 2**64 - 1)
u32 = st.integers(0, 2**32 - 1)
i64 = st.integers(0, 2**63 - 1)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


def f32(count: st.SearchStrategy[int] | int) -> st.SearchStrategy[Any]:
    return arrays.arrays(np.float32, count, elements=finite)


def column(dtype: type[Any], count: int) -> st.SearchStrategy[Any]:
    return arrays.arrays(dtype, count)


READERS: list[Callable[[bytes], Any]] = [
    state.decode_state,
    state.unpack_ring,
    catalog.read_catalog,
    marker.read_marker,
    recent.unpack_recent,
    feed.read_feed,
    lambda value: model.read_model(b"v:i", value),
    lambda value: model.read_model(b"l:i", value),
    lambda value: model.read_model(b"#writer", value),
    lambda value: model.read_model(b"#checkpoint", value),
    lambda value: model.read_model(b"#other", value),
    lambda value: model.read_model(b"other", value),
    lambda value: read_item(Consumed(b"i-77", value)),
    lambda value: read_item(Consumed(value, None)),
]


@given(st.sampled_from(READERS), st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(reader: Callable[[bytes], Any], value: bytes) -> None:
    with suppress(WireError):
        reader(value)


fresh = st.builds(state.Fresh, i64, i64, u64, st.binary())
causes = st.builds(state.Cause, st.text(), i64, st.none() | st.text(), st.none() | st.text(), i64)
states = st.builds(
    state.StateRecord, st.binary(), st.none() | st.binary(), st.lists(fresh), st.booleans(), st.none() | causes
)


@given(states)
def test_states(record: state.StateRecord) -> None:
    assert state.decode_state(state.encode_state(record)) == record


@given(st.integers(0, 40).flatmap(lambda n: st.tuples(column(np.uint64, n), column(np.uint32, n), column(np.uint8, n))))
def test_ring_entries(entries: tuple[Any, Any, Any]) -> None:
    packed = state.pack_ring(*entries)
    assert len(packed) == 13 * len(entries[0])
    unpacked: tuple[Any, ...] = state.unpack_ring(packed)
    for before, after in zip(entries, unpacked, strict=True):
        assert np.array_equal(before, after)


@given(st.integers(state.CARRIED, LAST_INT64 - 1), st.integers(0, END_MS - 1))
def test_forgets(offset: int, time_ms: int) -> None:
    assert state.read_forgotten(state.forgotten_headers(offset, time_ms)) == (offset, time_ms)


@given(st.integers(0, LAST_INT64), st.integers(0, LAST_INT64))
def test_pairs(version: int, revision: int) -> None:
    assert feed.read_pair(feed.pair_headers(version, revision)) == (version, revision)


@given(i64, st.integers(0, 2**47))
def test_markers(version: int, time: int) -> None:
    assert marker.read_marker(marker.write_marker(marker.Marker(version, time))) == (version, time)


@given(
    st.integers(0, 20).flatmap(
        lambda n: st.tuples(*(column(kind, n) for kind in (np.uint64, np.uint64, np.uint64, np.uint32, np.uint8)))
    )
)
def test_recent_rows(rows: tuple[Any, ...]) -> None:
    packed = recent.pack_recent(*rows)
    assert len(packed) == 29 * len(rows[0])
    read = recent.unpack_recent(packed)
    unpacked: tuple[Any, ...] = (read.offsets, read.users, read.items, read.times, read.actions)
    for before, after in zip(rows, unpacked, strict=True):
        assert np.array_equal(before, after)
        assert after.flags.c_contiguous


@st.composite
def vectors(draw: st.DrawFn) -> ItemVectors:
    k = draw(st.integers(0, 8))
    return ItemVectors(
        item_id=draw(st.text()),
        hash=draw(u64),
        e_in=draw(f32(k)),
        e_out=draw(f32(k)),
        bias=draw(finite),
        accumulators=draw(f32(3)),
        decayed=draw(f32(4)),
        reference=draw(i64),
        count=draw(finite),
        entry=draw(f32(3)),
        first_seen=draw(i64),
        last_seen=draw(i64),
    )


@given(vectors(), u32, u32)
def test_model_vectors(item: ItemVectors, epoch: int, version: int) -> None:
    read = model.read_model(model.vectors_key(item.item_id), model.encode_vectors(item, epoch, version))
    assert isinstance(read, model.VectorsRecord)
    assert (read.epoch, read.version) == (epoch, version)
    for name in ItemVectors.__dataclass_fields__:
        assert np.array_equal(getattr(read.vectors(), name), getattr(item, name)), name


@st.composite
def lists(draw: st.DrawFn) -> ItemLists:
    counts = [draw(st.integers(0, 5)) for _ in range(4)]
    hashes: Any = tuple(draw(column(np.uint64, count)) for count in counts)
    weights: Any = tuple(draw(f32(count)) for count in counts)
    return ItemLists(draw(st.text()), draw(u64), draw(i64), hashes, weights)


@given(lists(), u32, u32)
def test_model_lists(item: ItemLists, epoch: int, version: int) -> None:
    read = model.read_model(model.lists_key(item.item_id), model.encode_lists(item, epoch, version))
    assert isinstance(read, model.ListsRecord)
    again = read.lists()
    assert (again.item_id, again.hash, again.reference) == (item.item_id, item.hash, item.reference)
    given_: tuple[Any, ...] = (*item.hashes, *item.weights)
    back: tuple[Any, ...] = (*again.hashes, *again.weights)
    for before, after in zip(given_, back, strict=True):
        assert np.array_equal(before, after)


kinds = st.sampled_from(["?", "u1", "u4", "u8", "i4", "i8", "f2", "f4", "f8", ">f4"])
anything = kinds.flatmap(lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=0, min_side=0, max_side=4)))


@given(st.dictionaries(st.text(), anything, max_size=4), u32, u32)
def test_model_parameters(given_: dict[str, Any], epoch: int, version: int) -> None:
    encoded = model.encode_parameters(Parameters("part", given_), epoch, version)
    read = model.read_model(model.parameters_key("part"), encoded)
    assert isinstance(read, model.ParametersRecord)
    assert (read.epoch, read.version) == (epoch, version)
    back = read.parameters("part").arrays
    assert back.keys() == given_.keys()
    for name, array in given_.items():
        assert back[name].dtype == array.dtype.newbyteorder("<")
        assert back[name].shape == array.shape
        assert np.array_equal(back[name], array, equal_nan=array.dtype.kind == "f")


packed_arrays = st.tuples(
    st.sampled_from(["<f4", "|u1", "<f8", "O", "<U3", "M8[s]", ""]),
    st.lists(st.integers(-1, 3) | i64 | u64, max_size=3) | st.lists(st.just(0), max_size=100),
    st.binary(max_size=24),
)


@given(st.dictionaries(st.text(max_size=3), packed_arrays, max_size=2))
def test_parameters_of_any_shape_are_read_whole_or_refused(content: dict[str, Any]) -> None:
    with suppress(WireError):
        read = model.read_model(b"#part", msgspec.msgpack.encode([1, 2, content]))
        assert isinstance(read, model.ParametersRecord)
        arrays = read.parameters("part").arrays
        assert [array.shape for array in arrays.values()] == [tuple(shape) for _, shape, _ in content.values()]


@given(st.dictionaries(st.integers(0, 1023), i64), st.dictionaries(st.integers(0, 1023), st.binary()))
def test_model_checkpoints(offsets: dict[int, int], seen: dict[int, bytes]) -> None:
    record = model.CheckpointRecord(4, 5, offsets, seen)
    assert model.read_model(model.CHECKPOINT, model.encode_checkpoint(record)) == record


names = st.text(min_size=1, max_size=128)
items = st.builds(
    ItemData,
    item_id=st.from_regex(r"\A[A-Za-z0-9_.:@/+=-]{1,128}\Z"),
    title=st.none() | st.text(max_size=100),
    text=st.none() | st.text(max_size=100),
    categories=st.none() | st.lists(names, max_size=5),
    unsafe=st.none() | st.lists(names, max_size=5),
    markets=st.none() | st.lists(names, max_size=5),
    price=st.none() | st.floats(0, 1e30),
    available=st.none() | st.booleans(),
    attributes=st.none()
    | st.dictionaries(
        names,
        st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.lists(st.text(), max_size=3) | st.none(),
        max_size=5,
    ),
)


@given(items, i64)
def test_items_and_catalogue(data: ItemData, offset: int) -> None:
    key, value, headers = write_item(data)
    assert read_item(Consumed(key, value, headers)) == (data.item_id, data)
    record = catalog.catalog_of(data, offset)
    assert catalog.read_catalog(catalog.encode_catalog(record)) == record
    assert record.entry().title == (data.title or "")


@given(
    st.builds(
        feed.Feed,
        cause=st.none() | st.builds(feed.FeedCause),
        items=st.lists(
            st.builds(
                feed.FeedItem,
                score=st.floats(allow_nan=False, allow_infinity=False),
                parts=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False), max_size=3),
                propensity=st.floats(0, 1),
            ),
            max_size=3,
        ),
    )
)
def test_feeds(made: feed.Feed) -> None:
    assert feed.read_feed(feed.encode_feed(made)) == made
