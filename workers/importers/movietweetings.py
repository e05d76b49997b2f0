"""MovieTweetings, the official folder: `ratings.dat` (user::film::rating::epoch seconds), `movies.dat`
(film::title (year)::genres separated by |), UTF-8.

A rating becomes a `like` if it is at least `min_rating` of 10; the others are left out, and counted.
"""

from __future__ import annotations

from pathlib import Path

from workers.importers.dataset import Check, Data, Dataset, Moment, checked
from workers.importers.ratings import Line, likes, table


def read(folder: Path, min_rating: float = 8.0, check: Check | None = None) -> Dataset:
    """Read the folder; events in the order of their times, equal times in the order of the file.

    Raises DatasetError, naming file and line, if the folder is not of this format or `check` refuses an object.
    """
    films = [checked(_film(cells), check, where) for where, cells in _table(folder / "movies.dat", 3)]
    stream, left_out = likes(_table(folder / "ratings.dat", 4), min_rating, _event_id, check)
    return Dataset(f"MovieTweetings ({folder.name})", films, stream, left_out)


def _table(file: Path, cells: int) -> list[Line]:
    return table(file, cells, "::", "UTF-8", "MovieTweetings")


def _film(cells: list[str]) -> Moment:
    film: Data = {"item_id": cells[0], "title": cells[1], "categories": [name for name in cells[2].split("|") if name]}
    return "item", film


def _event_id(user: str, item: str, seconds: str) -> str:
    return f"movietweetings-{user}-{item}-{seconds}"  # one tweet rates one film
