"""JSON lines, plain or gzipped: a file of event data objects, optionally a file of item data objects (wire.md).

Files are read line by line, again at each pass: they may be larger than memory. An event without an id is given one
that its line and the line's number decide, so that importing a file twice is harmless within the idempotency window.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import IO, cast

import msgspec

from workers.importers.dataset import Check, Data, Dataset, DatasetError, Kind, Moment, checked


def read(events: Path, items: Path | None = None, check: Check | None = None) -> Dataset:
    """The data set in these files; order is the order of the lines, empty lines are passed over.

    Raises DatasetError for a file that cannot be opened; a line that is no JSON object, or that `check`
    refuses, raises it when it is reached.
    """
    for path in (events, items):
        if path is not None:
            _open(path).close()
    return Dataset(
        name=events.name,
        catalog=Lines(items, "item", check) if items else (),
        stream=Lines(events, "event", check),
        by_date=True,
    )


@dataclass(frozen=True, slots=True)
class Lines:
    """The data objects in a file, one a line."""

    path: Path
    kind: Kind
    check: Check | None = None

    def __iter__(self) -> Iterator[Moment]:
        try:
            with _open(self.path) as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        where = f"{self.path}:{number}"
                        yield checked((self.kind, self._object(line, number, where)), self.check, where)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DatasetError(f"{self.path}: is not whole gzip: {error}") from None

    def _object(self, line: bytes, number: int, where: str) -> Data:
        try:
            data = msgspec.json.decode(line, type=Data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DatasetError(f"{where}: expected a JSON object: {error}") from None
        if self.kind == "event" and data.get("event_id") is None:
            data["event_id"] = blake2b(b"%d:%b" % (number, line.strip()), digest_size=16).hexdigest()
        return data


def _open(path: Path) -> IO[bytes]:
    try:
        return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; expected a file of JSON lines (.jsonl, .jsonl.gz)") from None
