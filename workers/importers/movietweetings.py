"""MovieTweetings, the official folder: `ratings.dat` (user::film::rating::epoch seconds), `movies.dat`
(film::title (year)::genres separated by |), UTF-8.

A rating becomes a `like` if it is at least `min_rating` of 10; the others are left out, and counted.
"""

from __future__ import annotations

from pathlib import Path

from workers.importers.dataset import Check, Data, Dataset, DatasetError, Moment, checked


def read(folder: Path, min_rating: float = 8.0, check: Check | None = None) -> Dataset:
    """Read the folder; events in the order of their times, equal times in the order of the file.

    Raises DatasetError, naming file and line, if the folder is not of this format or `check` refuses an object.
    """
    films = [checked(_film(cells), check, where) for where, cells in _rows(folder / "movies.dat", 3)]
    ratings = _rows(folder / "ratings.dat", 4)
    likes = [
        checked(_like(cells, where), check, where) for where, cells in ratings if _number(cells[2], where) >= min_rating
    ]
    likes.sort(key=lambda moment: moment[1]["time"])
    below = len(ratings) - len(likes)
    return Dataset(
        name=f"MovieTweetings ({folder.name})",
        catalog=films,
        stream=likes,
        left_out=f"{below:,} of {len(ratings):,} ratings below {min_rating:g}" if below else "",
    )


def _rows(file: Path, cells: int) -> list[tuple[str, list[str]]]:
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}; expected the official MovieTweetings folder") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: expected UTF-8, found {error}") from None
    rows = [(f"{file}:{n}", line.rstrip("\r").split("::")) for n, line in enumerate(lines, 1) if line.strip()]
    for where, row in rows:
        if len(row) != cells:
            raise DatasetError(f"{where}: expected {cells} fields separated by '::', found {len(row)}")
    return rows


def _film(cells: list[str]) -> Moment:
    film: Data = {"item_id": cells[0], "title": cells[1], "categories": [name for name in cells[2].split("|") if name]}
    return "item", film


def _like(cells: list[str], where: str) -> Moment:
    user, item, rating, seconds = cells
    return "event", {
        "user_id": user,
        "item_id": item,
        "action": "like",
        "value": _number(rating, where),
        "time": 1000 * _number(seconds, where),
        # One tweet rates one film: the pair and the time name the event, and importing twice is harmless within the
        # idempotency window.
        "event_id": f"movietweetings-{user}-{item}-{seconds}",
    }


def _number(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise DatasetError(f"{where}: expected a whole number, found {text!r}") from None
