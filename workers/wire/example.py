"""`examples.v1`: a list that was served and what its user chose of it. MessagePack, by position. Names no user.

Arrays are little-endian bytes. A list of more than 100 other candidates is told by 100 uniform draws of them, so that a
record has about 10 KB, not 40.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.model.ranker import Choice
from pipeline.model.trendcheck import BUCKETS
from pipeline.model.trends import LADDER
from workers.wire.errors import UnreadableError, decode

_F2, _F4 = np.dtype("<f2"), np.dtype("<f4")


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
    """With what it takes to learn from it, as it is written now."""

    total: int = 0  # candidates that there were; 0 = as many as are logged
    places: bytes = b""  # float32 (1 + H,): the chosen one's rank in the list, then in plain trending; inf = in none
    layout: int = 0  # hash of the names of features and contexts: those of another ranker mean something else

    def choice(self, features: int, contexts: int) -> Choice:
        """As the pipeline takes it, of so many features and contexts. Raises UnreadableError for other sizes."""
        table, places = _floats(self.features, _F2), _floats(self.places, _F4)
        rows, rest = divmod(len(table), max(features, 1))
        context = _floats(self.context, _F4).astype(np.float32)
        fit = rest == 0 and 0 <= self.chosen < self.logged <= rows and 0 <= self.bucket < BUCKETS
        if not fit or len(places) != 1 + LADDER or len(context) != contexts:
            raise UnreadableError(
                f"example: expected {contexts} contexts, {1 + LADDER} ranks, rows of {features} features, one chosen "
                f"of {self.logged} logged, a bucket below {BUCKETS}; found {len(context)}, {len(places)}, {len(table)} "
                f"values, row {self.chosen}, bucket {self.bucket}"
            )
        lines = np.ascontiguousarray(table.reshape(rows, features).T, np.float32)
        total = max(self.total, self.logged)
        return Choice(lines, self.logged, total, self.chosen, context, self.bucket, places.astype(np.float32))


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Choosing)


def encode_example(feed_id: str, choice: Choice, layout: int) -> bytes:
    """The value of a record; its key is the feed's id."""
    return _encoder.encode(
        Choosing(
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
    )


def read_example(value: bytes) -> Choosing:
    """The record in `value`. Raises WireError."""
    return decode(_decoder, value, "example")


def _floats(packed: bytes, dtype: np.dtype[np.float16] | np.dtype[np.float32]) -> NDArray[np.floating]:
    if len(packed) % dtype.itemsize:
        raise UnreadableError(f"example: expected {dtype.name} values, found {len(packed)} bytes")
    return np.frombuffer(packed, dtype)
