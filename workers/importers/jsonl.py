"""JSON lines, plain or gzipped: a file of event data objects, optionally a file of item data objects (wire.md).

Files are read line by line, again at each pass: they may be larger than memory.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import msgspec

from workers.importers.dataset import Data, Dataset, DatasetError, Kind, Moment


def read(events: Path, items: Path | None = None) -> Dataset:
    """The data set in these files; order is the order of the lines, empty lines are passed over.

    Raises DatasetError for a file that cannot be opened; a line that is no JSON object raises it when it is reached.
    """
    for path in (events, items):
        if path is not None:
            _open(path).close()
    return Dataset(
        name=events.name,
        catalog=Lines(items, "item") if items else (),
        stream=Lines(events, "event"),
    )


@dataclass(frozen=True, slots=True)
class Lines:
    """The data objects in a file, one a line."""

    path: Path
    kind: Kind

    def __iter__(self) -> Iterator[Moment]:
        try:
            with _open(self.path) as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield self.kind, _object(line, f"{self.path}:{number}")
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DatasetError(f"{self.path}: is not whole gzip: {error}") from None


def _open(path: Path) -> IO[bytes]:
    try:
        return cast(IO[bytes], gzip.open(path)) if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise DatasetError(f"{path}: {error.strerror}; expected a file of JSON lines (.jsonl, .jsonl.gz)") from None


def _object(line: bytes, where: str) -> Data:
    try:
        return msgspec.json.decode(line, type=Data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{where}: expected a JSON object: {error}") from None
