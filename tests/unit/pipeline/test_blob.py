"""The state blob: read, cut, refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.blob import BlobError, decode, durable, embedding, model_version
from pipeline.state import Users, advance, stamp
from pipeline.types import ATTRIBUTES, CONSUMES, IDS, MARKS, NEGATIVES, POSITIVE, PROFILE, RING
from tests.streams import Ev, batch, blobs, nobody

GOLDEN = Path(__file__).parents[2] / "golden" / "v1" / "blob.bin"  # made with `struct` from the layout's table
K = 4


def a_blob() -> bytes:
    return blobs(advance(nobody(1), batch([Ev(7, POSITIVE | CONSUMES | PROFILE, 5, id=9, attributes=b"{}")]), K))[0]


def test_the_golden_blob_is_read() -> None:
    golden = GOLDEN.read_bytes()
    states = decode([golden])
    assert states.count.tolist() == [381]
    assert states.positives.tolist() == [290]
    assert states.last_offset.tolist() == [99_123]
    assert states.last_time.tolist() == [1_795_324_211_123]
    assert states.rings.length.tolist() == [3]
    assert states.rings.items[0, :3].tolist() == [0xFEDCBA9876543210, 0x0123456789ABCDEF, 1]
    assert states.rings.times[0, :3].tolist() == [1_795_324_211, 1_795_324_100, 0]
    assert states.rings.actions[0, :3].tolist() == [6, 3, 200]
    assert states.consumed.tolist() == [0x76543210, 0x89ABCDEF, 0]
    assert states.blocked.tolist() == [0xFFFFFFFF]
    assert states.blocked_times.tolist() == [0]  # it was written before times were kept
    assert states.attributes == ['{"locale":"de-CH","market":"zürich"}'.encode()]
    assert embedding(golden).tolist() == np.array([0.5, -1.25, 3.0, 1e-3], np.float32).tolist()
    assert model_version(golden) == (4, 5123)
    known = Ev(99_124, id=0xAAAAAAAAAAAAAAAA), Ev(99_125, id=2)
    assert advance(Users([golden], np.array([-1]), np.array([0])), batch(known), K).outcome.tolist() == [3, 3]


def test_the_golden_blob_is_written() -> None:
    golden = GOLDEN.read_bytes()
    done = advance(Users([golden], np.array([-1]), np.array([0])), batch([]), K)
    assert stamp(done, embedding(golden)[None], *model_version(golden)) == [golden]


def test_users_without_a_state_are_read_as_nobody() -> None:
    states = decode([b"", a_blob(), b""])
    assert len(states) == 3
    assert states.count.tolist() == [0, 1, 0]
    assert states.last_offset.tolist() == [-1, 7, -1]
    assert states.rings.length.tolist() == [0, 1, 0]
    assert states.consumed_start.tolist() == [0, 0, 1, 1]
    assert states.blocked_start.tolist() == [0, 0, 0, 0]
    assert states.attributes == [b"", b"{}", b""]
    assert len(decode([])) == 0


def test_blobs_of_several_dimensions_are_read_together() -> None:
    events = batch([Ev(7, POSITIVE, 5)])
    mixed = [blobs(advance(nobody(1), events, k))[0] for k in (4, 1024)]
    assert decode(mixed).rings.items[:, 0].tolist() == [5, 5]


def test_durable_is_the_header_and_what_follows_the_derived_part() -> None:
    blob = a_blob()
    assert durable(blob) == blob[:16] + blob[16 + 4 * K + 8 :]
    assert durable(b"") == b""


def test_an_embedding_is_asked_of_a_state_only() -> None:
    for read in (embedding, model_version):
        with pytest.raises(BlobError, match="found the b'' of a user without a state"):
            read(b"")


def put(blob: bytes, at: int, *values: int) -> bytes:
    return blob[:at] + bytes(values) + blob[at + len(values) :]


@pytest.mark.parametrize(
    ("expected", "damage"),
    [
        ("at least 16 bytes", lambda blob: blob[:15]),
        ("layout 1", lambda blob: put(blob, 0, 2)),
        ("layout 1", lambda blob: put(blob, 1, 1)),
        ("layout 1", lambda blob: put(blob, 13, 1)),
        ("layout 1", lambda blob: put(blob, 15, 1)),
        (f"at most {RING} ring entries", lambda blob: put(blob, 4, RING + 1)),
        (f"{IDS} ids", lambda blob: put(blob, 5, IDS + 1)),
        (f"{MARKS} marks", lambda blob: put(blob, 6, 0, 2, 1, 2)),
        (f"{ATTRIBUTES} bytes of attributes", lambda blob: put(blob, 10, 1, 1)),
        (f"{NEGATIVES} times", lambda blob: put(blob, 12, 1)),
        ("a length that agrees", lambda blob: put(blob, 4, 2)),
        ("a length that agrees", lambda blob: put(blob, 2, 3)),
        ("a length that agrees", lambda blob: blob[:-1]),
        ("a length that agrees", lambda blob: blob + b"\0"),
        ("at least one event", lambda blob: put(blob, 16 + 4 * K + 8, 0)),
        ("at least one event", lambda blob: put(blob, 16 + 4 * K + 15, 128)),
    ],
)
def test_what_is_no_blob_of_this_layout_is_refused_with_place_and_bytes(expected: str, damage: object) -> None:
    assert callable(damage)
    blob = a_blob()
    damaged = damage(blob)
    with pytest.raises(BlobError, match=expected) as refused:
        decode([blob, b"", damaged])
    assert refused.value.row == 2
    assert f"found {len(damaged)} bytes with header {damaged[:16].hex()}" in str(refused.value)
    for read in (durable, embedding, model_version):
        with pytest.raises(BlobError, match=expected):
            read(damaged)
