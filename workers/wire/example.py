"""`examples.v1`: a list that was served and what its user chose of it. MessagePack, by position. Names no user."""

from __future__ import annotations

import msgspec


class Example(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One training example: r candidates logged at serving, and the random items drawn with them.

    Arrays are little-endian bytes, row by row: the logged candidates first, then the random items.
    """

    feed_id: str  # also the key
    bucket: int  # of the user's history
    context: bytes  # float32: c of the ranker
    chosen: int  # row of the item that the user chose
    logged: int  # r; all rows after them are random items
    features: bytes  # float16 (rows, features), unstandardised, as of serving
    ranks: bytes  # uint16 (rows, sources), from 1; 0 = that source did not propose it
