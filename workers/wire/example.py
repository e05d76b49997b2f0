"""`examples.v1`: a list that was served and what its user chose of it. MessagePack, by position. Names no user.

Arrays are little-endian bytes. A list of more than 100 other candidates is told by 100 uniform draws of them, so that a
record has about 10 KB, not 40.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.model.ranker import Choice
from pipeline.model.trendcheck import BUCKETS
from pipeline.model.trends import LADDER
from workers.wire.errors import UnreadableError, decode

_U2, _F2, _F4 = np.dtype("<u2"), np.dtype("<f2"), np.dtype("<f4")


class Example(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One training example: r candidates logged at serving, and the random items drawn with them."""

    feed_id: str  # also the key
    bucket: int  # of the user's history
    context: bytes  # float32: c of the ranker
    chosen: int  # row of the item that the user chose
    logged: int  # r; all rows after them are random items
    features: bytes  # float16 (rows, features), row by row, unstandardised, as of serving
    ranks: bytes  # uint16 (rows, sources); empty: the ranks that count are among the features


class Choosing(Example, array_like=True, frozen=True, gc=False):
    """With what it takes to learn from it, as it is written where nobody says what the user saw."""

    total: int = 0  # candidates that there were; 0 = as many as are logged
    places: bytes = b""  # float32 (1 + H,): the chosen one's rank in the list, then in plain trending; inf = in none
    layout: int = 0  # hash of the names of features and contexts: those of another ranker mean something else


class Seeing(Choosing, array_like=True, frozen=True, gc=False):
    """With what the user saw of it. Who knows only `Choosing` reads that and leaves the rest."""

    seen: bytes = b""  # uint16, ascending: other logged rows that the user is known to have looked at

    def choice(self, features: int, contexts: int) -> Choice:
        """As the pipeline takes it, of so many features and contexts. Raises UnreadableError for other sizes."""
        table, places, seen = _numbers(self.features, _F2), _numbers(self.places, _F4), _numbers(self.seen, _U2)
        rows, rest = divmod(len(table), max(features, 1))
        context = _numbers(self.context, _F4).astype(np.float32)
        fit = rest == 0 and 0 <= self.chosen < self.logged <= rows and 0 <= self.bucket < BUCKETS
        told = len(seen) == 0 or (seen[-1] < self.logged and (seen[1:] > seen[:-1]).all() and self.chosen not in seen)
        if not fit or not told or len(places) != 1 + LADDER or len(context) != contexts:
            raise UnreadableError(
                f"example: expected {contexts} contexts, {1 + LADDER} ranks, rows of {features} features, one chosen "
                f"of {self.logged} logged, some others of these seen, a bucket below {BUCKETS}; found {len(context)}, "
                f"{len(places)}, {len(table)} values, row {self.chosen}, {len(seen)} seen, bucket {self.bucket}"
            )
        lines = np.ascontiguousarray(table.reshape(rows, features).T, np.float32)
        total = max(self.total, self.logged)
        then = self.bucket, places.astype(np.float32), seen.astype(np.int64)
        return Choice(lines, self.logged, total, self.chosen, context, *then)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Seeing)


def encode_example(feed_id: str, choice: Choice, layout: int) -> bytes:
    """The value of a record; its key is the feed's id."""
    told = (
        feed_id,
        choice.bucket,
        choice.context.astype(_F4).tobytes(),
        choice.chosen,
        choice.logged,
        np.ascontiguousarray(choice.features.T, _F2).tobytes(),
        b"",
        choice.total,
        choice.places.astype(_F4).tobytes(),
        layout,
    )
    seen = np.sort(choice.seen).astype(_U2).tobytes()
    return _encoder.encode(Seeing(*told, seen) if seen else Choosing(*told))


def read_example(value: bytes) -> Seeing:
    """The record in `value`. Raises WireError."""
    return decode(_decoder, value, "example")


def _numbers(packed: bytes, dtype: np.dtype[Any]) -> NDArray[Any]:
    if len(packed) % dtype.itemsize:
        raise UnreadableError(f"example: expected {dtype.name} values, found {len(packed)} bytes")
    return np.frombuffer(packed, dtype)
