"""What is published of items: availability, expiry, markets, creators, categories, tags, safety labels, content.

Columns on the common rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from pipeline.model.rows import ItemRows
from pipeline.types import CONTENT, F32, I64, U64, Mask, Rows, hash_id

CATEGORIES = 8  # kept an item; later ones cannot be muted
TAGS = 8  # kept an item
WORDS = 1 << 17  # categories and tags that are known by name; later ones are hashes only
OTHER_LABEL = 1 << 63  # the bit that all labels share for which no bit of their own was left; of markets too


@dataclass(frozen=True, slots=True)
class Entry:
    """One item as published: a full replacement of what was published before."""

    item_id: str
    hash: int
    title: str
    categories: tuple[str, ...]
    tags: tuple[str, ...]
    creator_id: str  # "" = none
    available: bool
    unsafe: tuple[str, ...]  # safety labels
    sponsored: str | None
    published_at: int  # ms, 0 = not said
    expires_at: int  # ms, 0 = never
    offset: int  # position in `items`: the greatest wins
    content: F32 = field(default_factory=lambda: np.empty(0, np.float32), compare=False)  # (d,) unit; (0,) = none
    markets: tuple[str, ...] = ()  # where it may be shown; () = everywhere


class Catalog:
    """The catalogue, by row. An item without a record is `listed` nowhere; `unlisted` says whether it may be shown.

    All columns are (capacity,) by row; only the first `len(self)` rows are in use.
    """

    def __init__(self, rows: ItemRows, unlisted: bool = True, dimension: int = CONTENT) -> None:
        self.rows = rows
        self.unlisted = unlisted
        self.labels: dict[str, int] = {}  # safety label -> bit of `unsafe`
        self.named_markets: dict[str, int] = {}  # market -> bit of `markets`
        self.titles: dict[int, str] = {}  # by row
        self.words: dict[int, str] = {}  # categories and tags by hash
        self._offset = rows.column((), np.int64, -1)
        self._listed = rows.column((), np.bool_, False)
        self._available = rows.column((), np.bool_, False)
        self._deleted = rows.column((), np.bool_, False)
        self._published_at = rows.column((), np.int64, 0)
        self._expires_at = rows.column((), np.int64, 0)
        self._creator = rows.column((), np.uint64, 0)
        self._categories = rows.column((CATEGORIES,), np.uint64, 0)
        self._tags = rows.column((TAGS,), np.uint64, 0)
        self._unsafe = rows.column((), np.uint64, 0)
        self._markets = rows.column((), np.uint64, 0)
        self._content = rows.column((dimension,), np.float32, 0)
        self._described = rows.column((), np.bool_, False)
        self._content_sum = np.zeros(dimension)  # of the rows that are described
        self._n_described = 0

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def hashes(self) -> U64:
        """(capacity,) item hashes."""
        return self.rows.hashes

    @property
    def listed(self) -> Mask:
        """(capacity,) has a record of its own."""
        return self._listed.data

    @property
    def available(self) -> Mask:
        """(capacity,) its record says so; False without a record."""
        return self._available.data

    @property
    def deleted(self) -> Mask:
        """(capacity,) a gravestone lies on it."""
        return self._deleted.data

    @property
    def published_at(self) -> I64:
        """(capacity,) ms, 0 = not said."""
        return self._published_at.data

    @property
    def expires_at(self) -> I64:
        """(capacity,) ms, 0 = never."""
        return self._expires_at.data

    @property
    def creator(self) -> U64:
        """(capacity,) hash of the creator's id, 0 = none."""
        return self._creator.data

    @property
    def categories(self) -> U64:
        """(capacity, CATEGORIES) hashes of category names, zeros beyond the last."""
        return self._categories.data

    @property
    def tags(self) -> U64:
        """(capacity, TAGS) hashes of tags, zeros beyond the last."""
        return self._tags.data

    @property
    def unsafe(self) -> U64:
        """(capacity,) bits of safety labels: see `label`."""
        return self._unsafe.data

    @property
    def markets(self) -> U64:
        """(capacity,) bits of the markets that it is bound to: see `market`; 0 = it may be shown everywhere."""
        return self._markets.data

    @property
    def content(self) -> F32:
        """(capacity, d) content vectors, of length 1; zeros where nothing is known of the content."""
        return self._content.data

    @property
    def described(self) -> Mask:
        """(capacity,) has a content vector."""
        return self._described.data

    @property
    def typical(self) -> F32:
        """(d,) the mean of the content vectors there are; zeros without any."""
        mean: F32 = (self._content_sum / max(self._n_described, 1)).astype(np.float32)
        return mean

    def present(self, rows: Rows | None = None) -> Mask:
        """Which of `rows` (default: all n) a feed could name: id known, not deleted, listed unless `unlisted`."""
        those = slice(len(self)) if rows is None else rows
        known: Mask = self.rows.named[those] & ~self.deleted[those]
        return known if self.unlisted else known & self.listed[those]

    def open(self, rows: Rows | None = None) -> Mask:
        """Which of `rows` (default: all n) may be shown now: present, and available where they are listed."""
        those = slice(len(self)) if rows is None else rows
        mask: Mask = self.present(rows) & (self.available[those] | ~self.listed[those])
        return mask

    def label(self, name: str) -> int:
        """The bit of safety label `name`, given out at first sight."""
        return self.labels.setdefault(name, min(1 << len(self.labels), OTHER_LABEL))

    def market(self, name: str) -> int:
        """The bit of market `name`, given out at first sight."""
        return self.named_markets.setdefault(name, min(1 << len(self.named_markets), OTHER_LABEL))

    def title(self, row: int) -> str:
        """The title of `row`, "" where none was published."""
        return self.titles.get(row, "")

    def put(self, entry: Entry) -> int:
        """Take a record in, unless a later one is known; returns its row."""
        row = self.rows.row(entry.hash, entry.item_id)
        if entry.offset < self._offset.data[row]:
            return row
        self._reset(row)
        self._offset.data[row] = entry.offset
        self.listed[row] = True
        self.available[row] = entry.available
        self.published_at[row] = entry.published_at
        self.expires_at[row] = entry.expires_at
        self.creator[row] = hash_id(entry.creator_id) if entry.creator_id else 0
        self.categories[row] = self._hashes(entry.categories, CATEGORIES)
        self.tags[row] = self._hashes(entry.tags, TAGS)
        for name in entry.unsafe:
            self.unsafe[row] |= np.uint64(self.label(name))
        for name in entry.markets:
            self.markets[row] |= np.uint64(self.market(name))
        if entry.title:
            self.titles[row] = entry.title
        if entry.content.shape == self.content.shape[1:] and entry.content.any():
            self._describe(row, entry.content)
        return row

    def remove(self, item: int, deleted_at: int, offset: int = -1) -> int:
        """Lay a gravestone on hash `item`: hidden until a later record. `offset` -1 = later than anything known.

        Returns its row. `deleted_at` (ms) stands in for the publishing time.
        """
        row = self.rows.row(item)
        if offset >= 0 and offset < self._offset.data[row]:
            return row
        last = max(int(self._offset.data[row]), offset)
        self._reset(row)
        self._offset.data[row] = last
        self.deleted[row] = True
        self.published_at[row] = deleted_at
        return row

    def drop(self, item: int) -> None:
        """Forget hash `item`: its record or gravestone became a null on the topic."""
        row = int(self.rows.find(np.array([item], np.uint64))[0])
        if row >= 0:
            self._reset(row)
            self._offset.data[row] = -1

    def _hashes(self, names: tuple[str, ...], most: int) -> U64:
        """(most,) of the first of them, which from here on are known by name."""
        out = np.zeros(most, np.uint64)
        for at, name in enumerate(names[:most]):
            out[at] = word = hash_id(name)
            if len(self.words) < WORDS:
                self.words[word] = name
        return out

    def _describe(self, row: int, content: F32) -> None:
        """Give a row that has none a content vector."""
        self.content[row] = content
        self.described[row] = True
        self._content_sum += self.content[row]
        self._n_described += 1

    def _reset(self, row: int) -> None:
        if self.described[row]:
            self._content_sum -= self.content[row]
            self._n_described -= 1
        for column in (self._listed, self._available, self._deleted, self._described):
            column.data[row] = False
        for column in (self._published_at, self._expires_at, self._creator, self._categories, self._tags):
            column.data[row] = 0
        self._unsafe.data[row] = self._markets.data[row] = 0
        self._content.data[row] = 0
        self.titles.pop(row, None)
