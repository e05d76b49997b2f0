"""MovieLens 100K, the official folder: `u.data` (ratings), `u.item` (films, latin-1), `u.genre` (names of the flags).

A rating becomes a `like` if it is at least `min_rating`; the others are left out, and counted. Users and films keep
their numbers as ids, so that `headrace feed 196` is user 196 of the data set.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from workers.importers.dataset import Check, Data, Dataset, DatasetError, Moment, checked

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
        for where, cells in _rows(folder / "u.item", "|", 5 + len(genres))
    ]
    ratings = _rows(folder / "u.data", "\t", 4)
    likes = [
        checked(_like(cells, where), check, where) for where, cells in ratings if _number(cells[2], where) >= min_rating
    ]
    likes.sort(key=lambda moment: moment[1]["time"])
    below = len(ratings) - len(likes)
    return Dataset(
        name=f"MovieLens ({folder.name})",
        catalog=films,
        stream=likes,
        left_out=f"{below:,} of {len(ratings):,} ratings below {min_rating:g}" if below else "",
    )


def _rows(file: Path, separator: str, cells: int) -> list[tuple[str, list[str]]]:
    try:
        lines = file.read_text(encoding="latin-1").split("\n")
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}; expected the official MovieLens 100K folder") from None
    rows = [(f"{file}:{n}", line.rstrip("\r").split(separator)) for n, line in enumerate(lines, 1) if line.strip()]
    for where, row in rows:
        if len(row) != cells:
            raise DatasetError(f"{where}: expected {cells} fields separated by {separator!r}, found {len(row)}")
    return rows


def _genres(file: Path) -> list[str]:
    named = {_number(cells[1], where): cells[0] for where, cells in _rows(file, "|", 2)}
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


def _like(cells: list[str], where: str) -> Moment:
    user, item, rating, seconds = cells
    return "event", {
        "user_id": user,
        "item_id": item,
        "action": "like",
        "value": _number(rating, where),
        "time": 1000 * _number(seconds, where),
        # Nobody rates a film twice in this data set: the pair names the event, and importing twice is harmless
        # within the idempotency window.
        "event_id": f"movielens-{user}-{item}",
    }


def _number(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DatasetError(f"{where}: expected a whole number, found {text!r}") from None
