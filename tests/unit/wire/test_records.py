"""Records that only workers touch: what is not whole is refused, what is written is read."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from tests.records import NOW
from workers.wire import feed, marker, model, recent, state
from workers.wire.errors import InvalidError, UnreadableError, WireError
from workers.wire.ids import event_hashes, item_hash


@pytest.mark.parametrize("value", [b"", b"\x90", b"\xc1", b"\x95\xc4\x01x\xc0\x90\xc3", b"{}"])
def test_state_bytes_that_are_none(value: bytes) -> None:
    with pytest.raises(WireError, match="state"):
        state.decode_state(value)


def test_a_state_of_a_later_version_may_have_more_fields() -> None:
    record = state.StateRecord(b"blob", None, [], refresh=True, cause=None)
    longer = msgspec.msgpack.encode([b"blob", None, [], True, None, "new"])
    assert state.decode_state(longer) == record


@pytest.mark.parametrize("length", [1, 12, 14])
def test_ring_entries_come_in_thirteens(length: int) -> None:
    with pytest.raises(UnreadableError, match=f"multiple of 13 bytes, found {length}"):
        state.unpack_ring(bytes(length))


def test_no_ring_entries() -> None:
    items, times, actions = state.unpack_ring(b"")
    assert (len(items), len(times), len(actions)) == (0, 0, 0)
    assert state.pack_ring(items, times, actions) == b""


@pytest.mark.parametrize(
    "headers",
    [
        [], [("offset", b"1")], [("offset", b"x"), ("time", b"1")], [("time", None)],
        [("offset", b"9" * 30), ("time", b"1")], [("offset", b"9223372036854775807"), ("time", b"1")],
        [("offset", b"-2"), ("time", b"1")], [("offset", b"1"), ("time", b"-1")],
        [("offset", b"1"), ("time", b"4294967296000")],
    ],
)  # fmt: skip
def test_null_on_states_needs_its_headers(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(InvalidError, match="expected the headers `offset` and `time`"):
        state.read_forgotten(headers)


@pytest.mark.parametrize(
    "headers",
    [
        [], [("version", b"1")], [("version", b"1"), ("revision", b"")], [("version", b"-1"), ("revision", b"0")],
        [("version", b"1"), ("revision", b"9" * 30)],
    ],
)  # fmt: skip
def test_feeds_need_their_pair(headers: list[tuple[str, bytes]]) -> None:
    with pytest.raises(InvalidError, match="expected the headers `version` and `revision`"):
        feed.read_pair(headers)


def test_markers_order_as_bytes_like_their_versions() -> None:
    versions = [1, 255, 256, 2**32, 2**53]
    written = [marker.write_marker(marker.Marker(version, NOW))[:16] for version in versions]
    assert written == sorted(written)
    assert all(head[8:] == bytes(8) for head in written)


def test_marker_that_is_cut() -> None:
    with pytest.raises(UnreadableError, match="at least 24 bytes, found 23"):
        marker.read_marker(bytes(23))
    assert marker.read_marker(bytes(24)) == (0, 0)


def test_recent_rows_that_are_cut() -> None:
    with pytest.raises(UnreadableError, match="multiple of 29 bytes, found 30"):
        recent.unpack_recent(bytes(30))
    assert len(recent.unpack_recent(b"")) == 0


VECTORS = [1, 2, "i", 5, b"\0" * 8, b"\0" * 8, 0.0, b"\0" * 12, b"\0" * 16, 0, 0.0, b"\0" * 12, 0, 0]
LISTS = [1, 2, "i", 5, 0, [b"\0" * 8, b"", b"", b""], [b"\0" * 4, b"", b"", b""]]


def test_model_records_that_are_whole() -> None:
    assert isinstance(model.read_model(b"v:i", msgspec.msgpack.encode(VECTORS)), model.VectorsRecord)
    assert isinstance(model.read_model(b"l:i", msgspec.msgpack.encode(LISTS)), model.ListsRecord)


@pytest.mark.parametrize("at", [4, 5, 7, 8, 11])
def test_vectors_of_wrong_lengths(at: int) -> None:
    wrong = [*VECTORS[:at], b"\0" * 7, *VECTORS[at + 1 :]]
    with pytest.raises(UnreadableError, match="matching lengths"):
        model.read_model(b"v:i", msgspec.msgpack.encode(wrong))


@pytest.mark.parametrize(
    ("at", "wrong"),
    [(5, [b"\0" * 16, b"", b"", b""]), (6, [b"\0" * 3, b"", b"", b""]), (5, [b"\0" * 8, b"", b""]), (6, [])],
)
def test_lists_of_wrong_lengths(at: int, wrong: list[bytes]) -> None:
    with pytest.raises(UnreadableError, match="as many weights as hashes"):
        model.read_model(b"l:i", msgspec.msgpack.encode([*LISTS[:at], wrong, *LISTS[at + 1 :]]))


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (
            {"a": ["<f4", [2], b"1234567"]},
            UnreadableError,
            r"model #part: expected 'a' to have the shape \(2,\), fou",
        ),
        ({"a": ["<f4", [3], bytes(8)]}, UnreadableError, "found 8 bytes of <f4"),
        ({"a": ["<f4", [-1], bytes(8)]}, UnreadableError, r"shape \(-1,\)"),
        ({"a": ["<f4", [0, 2**63], b""]}, UnreadableError, "found 0 bytes"),
        ({"a": [">f4", [2], bytes(8)]}, InvalidError, r"expected 'a' to be of a kind among \|b1, .*, found '>f4'"),
        ({"a": ["O", [1], bytes(8)]}, InvalidError, "found 'O'"),
        ({"a": ["<f4", 2, bytes(8)]}, InvalidError, "model #part: Expected `array`, got `int`"),
        ({"a": ["<f4", [2]]}, InvalidError, "model #part: Expected `array` of at least length 3"),
        ({5: ["<f4", [2], bytes(8)]}, InvalidError, "model #part: Expected `str`, got `int`"),
    ],
)
def test_parameters_that_are_wrong(content: object, error: type[WireError], said: str) -> None:
    with pytest.raises(error, match=said):
        model.read_model(b"#part", msgspec.msgpack.encode([1, 2, content]))


def test_model_keys() -> None:
    assert (model.vectors_key("i-77"), model.lists_key("i-77")) == (b"v:i-77", b"l:i-77")
    assert [model.item_of_key(key) for key in (b"v:i", b"l:i", b"#writer", b"")] == ["i", "i", None, None]
    keys = (b"#sequence", b"#writer", b"#checkpoint", b"v:i", b"")
    assert [model.part_of_key(key) for key in keys] == ["sequence", None, None, None, None]
    assert model.parameters_key("sequence") == b"#sequence"


# --- ids ---------------------------------------------------------------------------------------------------------


def test_event_hashes_are_the_common_hashes() -> None:
    ids = ["", "a", "é" * 256, "a"]
    hashes = event_hashes(ids)
    assert hashes.tolist() == [0, item_hash("a"), hashes[2], item_hash("a")]
    assert hashes.dtype == np.uint64
    assert len(event_hashes([])) == 0


def test_ids_that_are_none_are_not_remembered() -> None:
    known = item_hash.cache_info().currsize
    for number in range(10):
        with pytest.raises(InvalidError):
            item_hash(f"{{{number}}}" * 1000)
    assert item_hash.cache_info().currsize == known
