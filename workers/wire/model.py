"""`model.v1`: what the trainer knows of items, a record an item and kind. MessagePack, fields by position.

Keys: `v:<item id>` vectors and counters, `l:<item id>` co-visitation lists, `#...` the writer's own records. Every
record begins with the writer's epoch and version; arrays are little-endian bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from pipeline.types import F32, U64, ItemLists, ItemVectors
from workers.wire.errors import UnreadableError, decode

WRITER = b"#writer"
CHECKPOINT = b"#checkpoint"

_F4, _U8 = np.dtype("<f4"), np.dtype("<u8")
_LISTS = 4  # A, B, F, F1
_SMALL = 3  # accumulators and entry counts have so many numbers


class Stamp(msgspec.Struct, array_like=True, frozen=True):
    """Who wrote a record, and in which flush. All of a record whose key we do not know."""

    epoch: int  # a writer's; a follower drops records of lower epochs than it has seen
    version: int  # the writer's count of flushes; never restarts


class VectorsRecord(Stamp, array_like=True, frozen=True):
    """`v:<item id>`."""

    item_id: str
    hash: int
    e_in: bytes  # f32 (k,)
    e_out: bytes  # f32 (k,)
    bias: float
    accumulators: bytes  # f32 (3,)
    decayed: bytes  # f32 (H,)
    reference: int  # ms
    count: float
    entry: bytes  # f32 (3,)
    first_seen: int  # ms
    last_seen: int  # ms

    def vectors(self) -> ItemVectors:
        """As the pipeline takes it; arrays are views."""
        return ItemVectors(
            item_id=self.item_id,
            hash=self.hash,
            e_in=_f32(self.e_in),
            e_out=_f32(self.e_out),
            bias=self.bias,
            accumulators=_f32(self.accumulators),
            decayed=_f32(self.decayed),
            reference=self.reference,
            count=self.count,
            entry=_f32(self.entry),
            first_seen=self.first_seen,
            last_seen=self.last_seen,
        )


class ListsRecord(Stamp, array_like=True, frozen=True):
    """`l:<item id>`: lists A, B, F, F1."""

    item_id: str
    hash: int
    reference: int  # ms
    hashes: list[bytes]  # u64, four lists
    weights: list[bytes]  # f32, four lists

    def lists(self) -> ItemLists:
        """As the pipeline takes it; arrays are views."""
        a, b, f, f1 = (np.frombuffer(packed, _U8) for packed in self.hashes)
        wa, wb, wf, wf1 = (_f32(packed) for packed in self.weights)
        return ItemLists(self.item_id, self.hash, self.reference, (a, b, f, f1), (wa, wb, wf, wf1))


class WriterRecord(Stamp, array_like=True, frozen=True):
    """`#writer`: who writes from here on."""

    owner: str
    since: int  # ms, wall


class CheckpointRecord(Stamp, array_like=True, frozen=True):
    """`#checkpoint`: everything learned from before these positions lies before it in the topic."""

    offsets: dict[int, int]  # partition of `states` -> next offset to read
    seen: dict[int, bytes]  # partition -> bitmap of the last events learned from


ModelRecord = VectorsRecord | ListsRecord | WriterRecord | CheckpointRecord | Stamp

_encoder = msgspec.msgpack.Encoder()
_vectors = msgspec.msgpack.Decoder(VectorsRecord)
_lists = msgspec.msgpack.Decoder(ListsRecord)
_writer = msgspec.msgpack.Decoder(WriterRecord)
_checkpoint = msgspec.msgpack.Decoder(CheckpointRecord)
_other = msgspec.msgpack.Decoder(Stamp)


def vectors_key(item_id: str) -> bytes:
    """The key of an item's vectors."""
    return b"v:" + item_id.encode()


def lists_key(item_id: str) -> bytes:
    """The key of an item's lists."""
    return b"l:" + item_id.encode()


def item_of_key(key: bytes) -> str | None:
    """The item id of a `v:` or `l:` key; None for another key. For a null: what was learned of the item is void."""
    return key[2:].decode() if key[:2] in (b"v:", b"l:") else None


def encode_vectors(item: ItemVectors, epoch: int, version: int) -> bytes:
    """The value of a `v:` record."""
    return _encoder.encode(
        VectorsRecord(
            epoch,
            version,
            item.item_id,
            item.hash,
            _bytes(item.e_in, _F4),
            _bytes(item.e_out, _F4),
            float(item.bias),
            _bytes(item.accumulators, _F4),
            _bytes(item.decayed, _F4),
            int(item.reference),
            float(item.count),
            _bytes(item.entry, _F4),
            int(item.first_seen),
            int(item.last_seen),
        )
    )


def encode_lists(item: ItemLists, epoch: int, version: int) -> bytes:
    """The value of an `l:` record."""
    hashes = [_bytes(column, _U8) for column in item.hashes]
    weights = [_bytes(column, _F4) for column in item.weights]
    return _encoder.encode(ListsRecord(epoch, version, item.item_id, item.hash, int(item.reference), hashes, weights))


def encode_writer(record: WriterRecord) -> bytes:
    """The value of the `#writer` record."""
    return _encoder.encode(record)


def encode_checkpoint(record: CheckpointRecord) -> bytes:
    """The value of the `#checkpoint` record."""
    return _encoder.encode(record)


def read_model(key: bytes, value: bytes) -> ModelRecord:
    """The record under `key`; a bare Stamp for a key of a later version. Raises WireError."""
    if key.startswith(b"v:"):
        return _checked_vectors(decode(_vectors, value, "model v:"))
    if key.startswith(b"l:"):
        return _checked_lists(decode(_lists, value, "model l:"))
    if key == WRITER:
        return decode(_writer, value, "model #writer")
    if key == CHECKPOINT:
        return decode(_checkpoint, value, "model #checkpoint")
    return decode(_other, value, "model")


def _checked_vectors(record: VectorsRecord) -> VectorsRecord:
    same = len(record.e_in) == len(record.e_out)
    small = len(record.accumulators) == len(record.entry) == 4 * _SMALL
    if not (same and small and _whole([record.e_in, record.decayed], 4)):
        raise UnreadableError(f"model v:{record.item_id}: expected arrays of float32 of matching lengths")
    return record


def _checked_lists(record: ListsRecord) -> ListsRecord:
    counts = [len(packed) // 8 for packed in record.hashes], [len(packed) // 4 for packed in record.weights]
    whole = _whole(record.hashes, 8) and _whole(record.weights, 4)
    if not (whole and counts[0] == counts[1] and len(counts[0]) == _LISTS):
        raise UnreadableError(f"model l:{record.item_id}: expected {_LISTS} lists, as many weights as hashes in each")
    return record


def _whole(arrays: Sequence[bytes], size: int) -> bool:
    return all(len(packed) % size == 0 for packed in arrays)


def _f32(packed: bytes) -> F32:
    return np.frombuffer(packed, _F4)


def _bytes(array: F32 | U64, dtype: np.dtype[np.float32] | np.dtype[np.uint64]) -> bytes:
    return array.astype(dtype, copy=False).tobytes()
