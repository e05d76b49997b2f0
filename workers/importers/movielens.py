"""MovieLens 100K, the official folder: `u.data` (ratings), `u.item` (films, latin-1), `u.genre` (names of the flags).

A rating becomes a `like` if it is at least `min_rating`; the others are left out, and counted. Users and films keep
their numbers as ids, so that `headrace feed 196` is user 196 of the data set.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from workers.importers.dataset import Check, Data, Dataset, DatasetError, Moment, checked
from workers.importers.ratings import Line, likes, table, whole_number

# strptime's %b would follow the locale.
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
UNKNOWN_GENRE = "unknown"


def read(folder: Path, min_rating: float = 4.0, check: Check | None = None) -> Dataset:
    """Read the folder; events in the order of their times, equal times in the order of the file.

    Raises DatasetError, naming file and line, if the folder is not of this format or `check` refuses an object.
    """
    genres = _genres(folder / "u.genre")
    films = [
        checked(_film(cells, genres, where), check, where)
        for where, cells in _table(folder / "u.item", "|", 5 + len(genres))
    ]
    stream, left_out = likes(_table(folder / "u.data", "\t", 4), min_rating, _event_id, check)
    return Dataset(f"MovieLens ({folder.name})", films, stream, left_out)


def _table(file: Path, separator: str, cells: int) -> list[Line]:
    return table(file, cells, separator, "latin-1", "MovieLens 100K")


def _genres(file: Path) -> list[str]:
    named = {whole_number(cells[1], where): cells[0] for where, cells in _table(file, "|", 2)}
    if sorted(named) != list(range(len(named))):
        raise DatasetError(f"{file}: expected genres numbered from 0 without a gap, found {sorted(named)}")
    return [named[number] for number in range(len(named))]


def _film(cells: list[str], genres: list[str], where: str) -> Moment:
    flags = dict(zip(genres, cells[5:], strict=True))
    film: Data = {
        "item_id": cells[0],
        "title": cells[1],
        "categories": [genre for genre, flag in flags.items() if flag == "1" and genre != UNKNOWN_GENRE],
    }
    if cells[2]:
        film["published_at"] = _release(cells[2], where)
    return "item", film


def _release(text: str, where: str) -> str:
    try:
        day, month, year = text.split("-")
        return datetime(int(year), MONTHS.index(month) + 1, int(day), tzinfo=UTC).isoformat().replace("+00:00", "Z")
    except ValueError:
        raise DatasetError(f"{where}: expected a release date such as 01-Jan-1995, found {text!r}") from None


def _event_id(user: str, item: str, _: str) -> str:
    return f"movielens-{user}-{item}"  # nobody rates a film twice in this data set
