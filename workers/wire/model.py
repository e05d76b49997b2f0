"""`model.v1`: what the trainer knows of items, a record an item and kind. MessagePack, fields by position.

Keys: `v:<item id>` vectors and counters, `l:<item id>` co-visitation lists, `#writer` and `#checkpoint` of the writer
itself, `#<part>` the parameters of a part of the model. Every record begins with the writer's epoch and version; arrays
are little-endian bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.types import F32, U64, ItemLists, ItemVectors, Parameters
from workers.wire.errors import WRONG, InvalidError, UnreadableError, decode, shown, wire_error
from workers.wire.ids import id_from_key
from workers.wire.numbers import INT64, UINT32, UINT64, check_float32

WRITER = b"#writer"
CHECKPOINT = b"#checkpoint"
EXAMPLES = -1  # stands for `examples` among the partitions of a checkpoint

_F4, _U8 = np.dtype("<f4"), np.dtype("<u8")
_LISTS = 4  # A, B, F, F1
_KINDS = ("|b1", "|u1", "<u4", "<u8", "<i4", "<i8", "<f2", "<f4", "<f8")  # of parameters
_SMALL = 3  # accumulators and entry counts have so many numbers


class Stamp(msgspec.Struct, array_like=True, frozen=True):
    """Who wrote a record, and in which flush. All of a record whose key we do not know."""

    epoch: Annotated[int, UINT32]  # a writer's; a follower drops records of lower epochs than it has seen
    version: Annotated[int, UINT32]  # the writer's count of flushes; never restarts


class VectorsRecord(Stamp, array_like=True, frozen=True):
    """`v:<item id>`."""

    item_id: str
    hash: Annotated[int, UINT64]
    e_in: bytes  # f32 (k,)
    e_out: bytes  # f32 (k,)
    bias: float
    accumulators: bytes  # f32 (3,)
    decayed: bytes  # f32 (H,)
    reference: Annotated[int, INT64]  # ms
    count: float
    entry: bytes  # f32 (3,)
    first_seen: Annotated[int, INT64]  # ms
    last_seen: Annotated[int, INT64]  # ms

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
    hash: Annotated[int, UINT64]
    reference: Annotated[int, INT64]  # ms
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
    since: Annotated[int, INT64]  # ms, wall


class CheckpointRecord(Stamp, array_like=True, frozen=True):
    """`#checkpoint`: everything learned from before these positions lies before it in the topic."""

    offsets: dict[int, Annotated[int, INT64]]  # partition of `states`, or EXAMPLES -> next offset to read there
    seen: dict[int, bytes]  # partition -> bitmap of the last events learned from


class PackedArray(msgspec.Struct, array_like=True, frozen=True):
    """An array of any shape, row by row."""

    kind: str  # as NumPy writes a dtype, one of _KINDS
    shape: tuple[int, ...]
    data: bytes

    def array(self) -> NDArray[Any]:
        """A view."""
        return np.frombuffer(self.data, np.dtype(self.kind)).reshape(self.shape)


class ParametersRecord(Stamp, array_like=True, frozen=True):
    """`#<part>`, for instance `#sequence`."""

    arrays: dict[str, PackedArray]

    def parameters(self, name: str) -> Parameters:
        """As the pipeline takes it, `name` as in the key; arrays are views."""
        return Parameters(name, {key: packed.array() for key, packed in self.arrays.items()})


class _Reserved(Stamp, array_like=True, frozen=True):
    """A `#` key that is not the writer's own: a part's, or of a later version, which is anything but a map."""

    content: Any = None


ModelRecord = VectorsRecord | ListsRecord | WriterRecord | CheckpointRecord | ParametersRecord | Stamp

_encoder = msgspec.msgpack.Encoder()
_vectors = msgspec.msgpack.Decoder(VectorsRecord)
_lists = msgspec.msgpack.Decoder(ListsRecord)
_writer = msgspec.msgpack.Decoder(WriterRecord)
_checkpoint = msgspec.msgpack.Decoder(CheckpointRecord)
_reserved = msgspec.msgpack.Decoder(_Reserved)
_other = msgspec.msgpack.Decoder(Stamp)


def vectors_key(item_id: str) -> bytes:
    """The key of an item's vectors."""
    return b"v:" + item_id.encode()


def lists_key(item_id: str) -> bytes:
    """The key of an item's lists."""
    return b"l:" + item_id.encode()


def parameters_key(name: str) -> bytes:
    """The key of a part's parameters."""
    return b"#" + name.encode()


def part_of_key(key: bytes) -> str | None:
    """The name of the part whose parameters stand under `key`; None for another key."""
    return key[1:].decode(errors="replace") if key[:1] == b"#" and key not in (WRITER, CHECKPOINT) else None


def item_of_key(key: bytes) -> str | None:
    """The item id of a `v:` or `l:` key; None for another key. For a null: what was learned of the item is void.

    Raises WireError.
    """
    return id_from_key(key[2:], "item id") if key[:2] in (b"v:", b"l:") else None


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


def encode_parameters(parameters: Parameters, epoch: int, version: int) -> bytes:
    """The value of a `#<part>` record."""
    packed = {name: _packed(array) for name, array in parameters.arrays.items()}
    return _encoder.encode(ParametersRecord(epoch, version, packed))


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
    if key.startswith(b"#"):
        return _parameters(decode(_reserved, value, f"model {_named(key)}"), key)
    return decode(_other, value, "model")


def _parameters(record: _Reserved, key: bytes) -> ParametersRecord | Stamp:
    if not isinstance(record.content, dict):
        return Stamp(record.epoch, record.version)
    what = f"model {_named(key)}"
    try:
        arrays = msgspec.convert(record.content, dict[str, PackedArray])
    except WRONG as error:
        raise wire_error(error, what) from None
    for name, packed in arrays.items():
        _check_array(packed, f"{what}: expected {shown(name)}")
    return ParametersRecord(record.epoch, record.version, arrays)


def _check_array(packed: PackedArray, expected: str) -> None:
    if packed.kind not in _KINDS:
        raise InvalidError(f"{expected} to be of a kind among {', '.join(_KINDS)}, found {shown(packed.kind)}")
    try:
        if min(packed.shape, default=0) >= 0:  # a shape may leave -1 to NumPy; a record may not
            packed.array()
            return
    except (ValueError, OverflowError):
        pass
    found = f"{len(packed.data)} bytes of {packed.kind}"
    raise UnreadableError(f"{expected} to have the shape {shown(packed.shape)}, found {found}")


def _checked_vectors(record: VectorsRecord) -> VectorsRecord:
    same = len(record.e_in) == len(record.e_out)
    small = len(record.accumulators) == len(record.entry) == 4 * _SMALL
    if not (same and small and _whole([record.e_in, record.decayed], 4)):
        raise UnreadableError(f"model v:{shown(record.item_id)}: expected arrays of float32 of matching lengths")
    _check_finite(record.item_id, [record.e_in, record.e_out, record.accumulators, record.decayed, record.entry])
    for name, number in (("bias", record.bias), ("count", record.count)):
        check_float32(number, f"model v:{shown(record.item_id)}: {name}")
    return record


def _check_finite(item_id: str, arrays: Sequence[bytes]) -> None:
    """One number that is none would spread to every score that it meets."""
    if not np.isfinite(_f32(b"".join(arrays))).all():
        raise InvalidError(f"model {shown(item_id)}: expected finite numbers")


def _checked_lists(record: ListsRecord) -> ListsRecord:
    counts = [len(packed) // 8 for packed in record.hashes], [len(packed) // 4 for packed in record.weights]
    whole = _whole(record.hashes, 8) and _whole(record.weights, 4)
    if not (whole and counts[0] == counts[1] and len(counts[0]) == _LISTS):
        found = shown(record.item_id)
        raise UnreadableError(f"model l:{found}: expected {_LISTS} lists, as many weights as hashes in each")
    _check_finite(record.item_id, record.weights)
    return record


def _named(key: bytes) -> str:
    """A key as messages repeat it: escaped and cut."""
    return shown(key.decode(errors="replace"))[1:-1]


def _whole(arrays: Sequence[bytes], size: int) -> bool:
    return all(len(packed) % size == 0 for packed in arrays)


def _packed(array: NDArray[Any]) -> PackedArray:
    little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return PackedArray(little.dtype.str, array.shape, little.tobytes())


def _f32(packed: bytes) -> F32:
    return np.frombuffer(packed, _F4)


def _bytes(array: F32 | U64, dtype: np.dtype[np.float32] | np.dtype[np.uint64]) -> bytes:
    return array.astype(dtype, copy=False).tobytes()
