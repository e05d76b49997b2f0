"""Which events of the log were learned from: a bitmap of the last offsets of each partition.

Records come again after a restart, and an event may be told by two records. What lies below the window counts as seen.
"""

from __future__ import annotations

import struct

import numpy as np
from numba import njit

from pipeline.types import I64, U8, Mask

WINDOW = 65_536  # offsets a partition; a power of two
_HEAD = 16  # bytes before the bits


class Seen:
    """Marks of the last WINDOW offsets below the greatest one of each partition."""

    def __init__(self) -> None:
        self._lines: dict[int, int] = {}  # partition -> line
        self._ends = np.zeros(0, np.int64)  # greatest offset seen + 1
        self._marks = np.zeros((0, WINDOW), np.uint8)  # the mark of offset o stands at o mod WINDOW

    def mark(self, partition: I64, offset: I64) -> Mask:
        """Mark events (m,) in order; True where one had not been seen."""
        lines = np.empty(len(partition), np.int64)
        for found in np.unique(partition):
            lines[partition == found] = self._line(int(found))
        new: Mask = _mark(lines, offset, self._ends, self._marks)
        return new

    def export(self) -> dict[int, bytes]:
        """A line a partition: end and floor (i64, little-endian), then a bit an offset of [floor, end). All below the
        floor is seen."""
        return {partition: self._export(line) for partition, line in self._lines.items()}

    def load(self, exported: dict[int, bytes]) -> None:
        """Take over what `export` gave; other partitions stay as they are. Raises ValueError for other bytes."""
        parts = {partition: _parse(partition, packed) for partition, packed in exported.items()}
        for partition, (end, floor, bits) in parts.items():
            line = self._line(partition)
            self._ends[line] = end
            self._marks[line] = 1
            self._marks[line, np.arange(floor, end) % WINDOW] = bits

    def _export(self, line: int) -> bytes:
        end = int(self._ends[line])
        offsets = np.arange(max(end - WINDOW, 0), end)
        bits = self._marks[line, offsets % WINDOW]
        holes = np.flatnonzero(bits == 0)
        first = int(holes[0]) if len(holes) else len(bits)
        return struct.pack("<qq", end, end - len(bits) + first) + np.packbits(bits[first:]).tobytes()

    def _line(self, partition: int) -> int:
        if partition not in self._lines:
            self._lines[partition] = len(self._lines)
            self._ends = np.append(self._ends, 0)
            self._marks = np.concatenate((self._marks, np.zeros((1, WINDOW), np.uint8)))
        return self._lines[partition]


def _parse(partition: int, packed: bytes) -> tuple[int, int, U8]:
    """End, floor and the bits between them."""
    end, floor = struct.unpack_from("<qq", packed.ljust(_HEAD, b"\0"))
    if len(packed) < _HEAD or not 0 <= end - floor <= min(end, WINDOW) or len(packed) != _HEAD + (end - floor + 7) // 8:
        raise ValueError(
            f"seen offsets of partition {partition}: expected end, floor and a bit an offset between them, "
            f"found {len(packed)} bytes beginning {packed[:_HEAD].hex()}"
        )
    return end, floor, np.unpackbits(np.frombuffer(packed, np.uint8, offset=_HEAD), count=end - floor)


@njit(cache=True)
def _mark(lines: I64, offsets: I64, ends: I64, marks: U8) -> Mask:
    new = np.zeros(len(lines), np.bool_)
    for at in range(len(lines)):
        line, offset = lines[at], offsets[at]
        end = ends[line]
        if offset < end - WINDOW:
            continue
        for between in range(max(end, offset - WINDOW + 1), offset + 1):  # the window moves up: new places are unseen
            marks[line, between % WINDOW] = 0
        ends[line] = max(end, offset + 1)
        new[at] = marks[line, offset % WINDOW] == 0
        marks[line, offset % WINDOW] = 1
    return new
