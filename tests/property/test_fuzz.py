"""Every decoder of bytes from outside, fed what nobody would write: it returns, or raises the error it names.

A few hundred cases of each here; `./dev fuzz` runs 100,000 of each, and prints the seed that repeats them; so does
pytest's `--long`. One that hangs meets pytest's time limit, which shows where it was.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import state as states
from pipeline.blob import BlobError
from tests.records import NOW, Consumed
from workers.feeds import attributes_of
from workers.items import ItemReplica
from workers.outside.letters import Letter
from workers.outside.letters import text as shown_text
from workers.outside.redrive import Redrive
from workers.recent import RecentReplica
from workers.settings import Settings, load
from workers.trainer import TrainerCore
from workers.wire.catalog import CatalogItem, catalog_of, encode_catalog, read_catalog
from workers.wire.dead_letter import BadRecord, dead_letter
from workers.wire.errors import WireError
from workers.wire.event import Rules, read_data, read_event, read_events
from workers.wire.example import read_example
from workers.wire.feed import read_feed, read_pair
from workers.wire.item import read_item
from workers.wire.marker import read_marker
from workers.wire.model import item_of_key, part_of_key, read_model
from workers.wire.recent import unpack_recent
from workers.wire.state import decode_state, read_forgotten, unpack_ring

CASES = int(os.environ.get("FUZZ_CASES", "200"))
V1 = Path(__file__).parents[1] / "golden" / "v1"
SETTINGS = load(environ={}, flags={"clock": "stream", "kafka_partitions": 4})
RULES = Rules.of(SETTINGS)
pytestmark = [pytest.mark.timeout(7200)] * (CASES >= 100_000)
many = settings(
    max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

# ------------------------------------------------------------------ what nobody would write

# Numbers at the edges, sizes that are not there, depths that no stack holds, in JSON and in MessagePack.
NASTY = [
    b"NaN", b"1e999", b"-0", b"9" * 5000, b"1." + b"0" * 400 + b"1", b'"\\ud800"', b'"\\u0000"', b"null", b"true",
    b"[" * 300, b'{"a":' * 300, b"[" * 100_000, b"\x00", b"\xff" * 9, b"\xef\xbb\xbf", b"\xed\xa0\x80",
    b"\xcf" + b"\xff" * 8, b"\xd3\x80" + b"\x00" * 7, b"\xcb\x7f\xf0" + b"\x00" * 6, b"\xcb\x7f\xf8" + b"\x00" * 6,
    b"\xcb\x7f\xef" + b"\xff" * 6, b"\xca\x7f\xc0\x00\x00", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\x91" * 2000, b"\x81\xa1a" * 2000,
    b"\xc0", b"\xc1", b"\xd6\xff\xff\xff\xff\xff",
]  # fmt: skip
chunks = st.sampled_from(NASTY) | st.binary(max_size=12)
edits = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 24), chunks), min_size=1, max_size=4)
numbers = st.sampled_from([0, 1, -1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63), 2**64 - 1, NOW]) | st.floats(width=64)
leaves = numbers | st.none() | st.booleans() | st.text(max_size=12) | st.binary(max_size=40)
anything = leaves | st.lists(leaves, max_size=4) | st.dictionaries(st.text(max_size=4), leaves, max_size=3)


def mutated(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """One of `seeds` with bytes replaced, put in or cut away; or bytes of no origin."""
    return st.builds(_edited, st.sampled_from(seeds), edits) | chunks


def _edited(seed: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for where, cut, put in changes:
        at = round(where * len(seed))
        seed = seed[:at] + put + seed[at + cut :]
    return seed[:200_000]


def twisted(
    seeds: Sequence[bytes], decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]
) -> st.SearchStrategy[bytes]:
    """One of `seeds` that can still be read, with one of its values replaced by anything."""
    trees = [decode(seed) for seed in seeds]
    paths = [(tree, path) for tree in trees for path in _paths(tree)]
    return st.builds(lambda chosen, leaf: encode(_with(chosen[0], chosen[1], leaf)), st.sampled_from(paths), anything)


def _paths(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [path] + [found for key, value in inner for found in _paths(value, (*path, key))]


def _with(tree: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    if not path:
        return leaf
    copy = tree.copy()
    copy[path[0]] = _with(tree[path[0]], path[1:], leaf)
    return copy


def of_json(*bodies: bytes) -> st.SearchStrategy[bytes]:
    return mutated(bodies) | twisted(bodies, json.loads, _as_json)


def _as_json(body: Any) -> bytes:
    return json.dumps(body, default=lambda raw: raw.decode("latin-1")).encode("utf-8", "surrogatepass")


def of_msgpack(*files: str) -> st.SearchStrategy[bytes]:
    seeds = [(V1 / file).read_bytes() for file in files]
    return mutated(seeds) | twisted(seeds, msgspec.msgpack.decode, msgspec.msgpack.encode)


def golden_json(name: str) -> Any:
    return json.loads((V1 / name).read_text())


def value_of(name: str) -> bytes:
    """The value of a golden record that is kept as JSON."""
    found = golden_json(name)
    given = found.get("value", found)
    return given.encode() if isinstance(given, str) else json.dumps(given).encode()


BODY = {
    "user_id": "u-1042", "item_id": "i-77", "action": "profile", "value": 1.0, "time": NOW, "event_id": "e",
    "position": 3, "session_id": "s", "feed_id": "f", "context": {"surface": "home"}, "items": ["a", "b"],
    "attributes": {"audience": "adult", "market": "de", "muted_creators": ["a"], "muted_categories": ["b"]},
}  # fmt: skip
STRUCTURED = {
    "specversion": "1.0",
    "id": "1",
    "source": "/a",
    "type": "t",
    "time": NOW,
    "data": BODY,
    "traceparent": "00",
}
names = st.sampled_from(
    ["ce_id", "ce_source", "ce_time", "content-type", "traceparent", "tracestate", "headrace-rerouted", "offset",
     "time", "version", "revision", "__dlq.errors.topic", "__dlq.errors.partition", "__dlq.errors.offset",
     "__dlq.errors.timestamp", "__dlq.truncated"]
)  # fmt: skip
contents = (
    st.none()
    | chunks
    | st.sampled_from(
        [
            b"application/cloudevents+json",
            b"application/json",
            b"5",
            b"-1",
            b"1" * 30,
            b"headrace.events.v1",
            b"headrace.items.v1",
        ]
    )
)
headers = st.lists(st.tuples(names | st.text(max_size=9), contents), max_size=5)
keys = st.none() | st.sampled_from([b"u-1042", b"i-77", b""]) | chunks


# ------------------------------------------------------------------ decoders


@many
@given(of_json(_as_json(BODY), _as_json(STRUCTURED)), headers, keys)
def test_events_and_dead_letters(value: bytes, given_headers: Any, key: bytes | None) -> None:
    """In the three forms of envelope. What cannot be read becomes a letter, and the letter is read and judged again."""
    record = Consumed(key, value, given_headers)
    batch = read_events([record], RULES, 3, NOW)
    assert len(batch.events) + len(batch.bad) + len(batch.astray) == 1
    try:
        read_event(record, RULES, NOW)
    except WireError as error:
        bad = BadRecord(record, error.stage, str(error), type(error).__name__)
        made = dead_letter(bad, "headrace.dead-letters.v1", "g", NOW)
        _judged(Consumed(made.key, made.value, made.headers))
    _judged(record)  # whoever may write there may write anything


def _judged(record: Consumed) -> None:
    letter = Letter(record)
    assert isinstance(letter.errors, dict)
    assert letter.origin.offset >= -1
    Redrive(SETTINGS, {}).judge(letter)
    for raw in (record.key, record.value, *(value for _, value in letter.headers)):
        shown = shown_text(raw)
        assert shown is None or shown.isprintable()


@many
@given(of_json((V1 / "item.json").read_bytes(), value_of("item.json")), headers)
def test_items(value: bytes, given_headers: Any) -> None:
    """What is taken can be written to the catalogue, and read there."""
    try:
        found = read_item(Consumed(b"i-77", value, given_headers))
    except WireError:
        return
    assert found.data is not None
    kept = read_catalog(encode_catalog(catalog_of(found.data, 7)))
    assert isinstance(kept, CatalogItem)
    kept.entry()
    kept.says()


@many
@given(mutated([(V1 / "blob.bin").read_bytes(), b""]))
def test_state_blobs(blob: bytes) -> None:
    """One that is taken is read by every reader, in bounds."""
    try:
        found = states.decode([blob])
    except BlobError:
        return
    assert len(found) == 1
    assert states.durable(blob) or not blob
    if blob:
        states.embedding(blob)


@many
@given(of_msgpack("state.bin", "state_again.bin"), headers)
def test_state_records(value: bytes, given_headers: Any) -> None:
    try:
        record = decode_state(value)
        unpack_ring(record.evicted or b"")
        for event in record.fresh:
            np.int64(event.offset), np.int64(event.time_ms), np.uint64(event.id_hash)
            read_data(event.data)
    except WireError:
        pass
    for read in (read_forgotten, read_pair):
        with contextlib.suppress(WireError):
            assert all(-(2**63) <= number < 2**63 for number in read(given_headers))


MODEL = ("model_vectors.bin", "model_lists.bin", "model_parameters.bin", "model_checkpoint.bin", "model_writer.bin")
model_keys = (
    st.sampled_from([b"v:i-77", b"l:i-77", b"#ranker", b"#sequence", b"#checkpoint", b"#writer", b"v:\xff"]) | chunks
)


@many
@given(of_msgpack(*MODEL), model_keys)
def test_model_records(value: bytes, key: bytes) -> None:
    try:
        record = read_model(key, value)
        assert 0 <= record.epoch < 2**32
        item_of_key(key)
    except WireError:
        pass
    part_of_key(key)


@many
@given(of_msgpack("example.bin", "example_choosing.bin", "example_seeing.bin"))
def test_examples(value: bytes) -> None:
    try:
        choice = read_example(value).choice(14, 4)
    except WireError:
        return
    assert choice.features.shape[0] == 14


@many
@given(of_msgpack("catalog_item.bin", "catalog_content.bin", "catalog_gravestone.bin"))
def test_catalogue_records(value: bytes) -> None:
    try:
        record = read_catalog(value)
    except WireError:
        return
    assert 0 <= record.hash < 2**64
    if isinstance(record, CatalogItem):
        assert np.isfinite(record.entry(record.encoding).content).all()
        record.says()


@many
@given(of_json((V1 / "feed.json").read_bytes(), value_of("feed.json")))
def test_feeds(value: bytes) -> None:
    with contextlib.suppress(WireError):
        read_feed(value)


@many
@given(mutated([(V1 / "recent.bin").read_bytes(), (V1 / "marker.bin").read_bytes()]))
def test_packed_records(value: bytes) -> None:
    for read in (unpack_recent, read_marker):
        with contextlib.suppress(WireError):
            read(value)


@many
@given(of_json(_as_json(BODY["attributes"])))
def test_profiles(raw: bytes) -> None:
    """What a state keeps was written by us; still a damaged one is a WireError."""
    with contextlib.suppress(WireError):
        attributes_of(raw)


# ------------------------------------------------------------------ who follows them


SMALL: Settings = load(environ={}, flags={"clock": "stream", "kafka_partitions": 4, "model_dimension": 4})


@pytest.fixture(scope="module")
def followers() -> tuple[ItemReplica, TrainerCore]:
    return ItemReplica(SMALL, catalog=True), TrainerCore(SMALL, Rules.of(SMALL))


@pytest.fixture(scope="module")
def neighbours(followers: Any) -> RecentReplica:
    return RecentReplica(SMALL, Rules.of(SMALL), followers[0].model)


@many
@given(value=st.none() | of_msgpack(*MODEL), key=model_keys)
def test_whoever_follows_the_model_goes_on(followers: Any, value: bytes | None, key: bytes) -> None:
    for follower in followers:
        follower.on_model([Consumed(key, value)])


@many
@given(
    value=st.none() | of_msgpack("catalog_item.bin", "catalog_content.bin", "catalog_gravestone.bin"),
    key=st.sampled_from([b"i-77", b"\xff"]) | chunks,
)
def test_whoever_follows_the_catalogue_goes_on(followers: Any, value: bytes | None, key: bytes) -> None:
    for follower in followers:
        follower.on_catalog([Consumed(key, value)])


@many
@given(
    value=mutated([(V1 / "recent.bin").read_bytes(), bytes(range(29)) * 3]),
    key=st.sampled_from([b"0", b"3", b"4", b"999999999", b"-1"]) | chunks,
)
def test_who_follows_what_all_users_did_goes_on(neighbours: Any, value: bytes, key: bytes) -> None:
    neighbours.on_recent([Consumed(key, value), Consumed(None, value)])


@many
@given(value=of_msgpack("state.bin", "state_again.bin", "example.bin", "example_choosing.bin"))
def test_who_learns_from_states_and_examples_goes_on(followers: Any, value: bytes) -> None:
    _, trainer = followers
    trainer.on_states([Consumed(b"u-1042", value)])
    trainer.on_examples([Consumed(b"f", value)])
