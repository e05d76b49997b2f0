"""Rating data sets of films: tables of text, ratings that become likes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from workers.importers.dataset import Check, DatasetError, Moment, checked

Line = tuple[str, list[str]]  # file:line, for what is said of it, and its cells


def table(file: Path, cells: int, separator: str, encoding: str, folder: str) -> list[Line]:
    """The lines of `file`, of `cells` cells each; empty ones are left out.

    Raises DatasetError, naming file and line; `folder` says which official one is expected.
    """
    try:
        lines = file.read_text(encoding=encoding).split("\n")
    except OSError as error:
        raise DatasetError(f"{file}: {error.strerror}; expected the official {folder} folder") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: expected {encoding}, found {error}") from None
    rows = [(f"{file}:{n}", line.rstrip("\r").split(separator)) for n, line in enumerate(lines, 1) if line.strip()]
    for where, row in rows:
        if len(row) != cells:
            raise DatasetError(f"{where}: expected {cells} fields separated by {separator!r}, found {len(row)}")
    return rows


def likes(
    ratings: list[Line], min_rating: float, event_id: Callable[[str, str, str], str], check: Check | None
) -> tuple[list[Moment], str]:
    """Ratings (user, item, rating, seconds) of at least `min_rating` as likes in the order of their times, equal times
    in that of the file; and what was left out.

    `event_id` of user, item and seconds names the event, so that importing twice is harmless within the idempotency
    window. Raises DatasetError, naming file and line.
    """
    found = [
        checked(_like(cells, where, event_id), check, where)
        for where, cells in ratings
        if whole_number(cells[2], where) >= min_rating
    ]
    found.sort(key=lambda moment: moment[1]["time"])
    below = len(ratings) - len(found)
    return found, f"{below:,} of {len(ratings):,} ratings below {min_rating:g}" if below else ""


def _like(cells: list[str], where: str, event_id: Callable[[str, str, str], str]) -> Moment:
    user, item, rating, seconds = cells
    return "event", {
        "user_id": user,
        "item_id": item,
        "action": "like",
        "value": whole_number(rating, where),
        "time": 1000 * whole_number(seconds, where),
        "event_id": event_id(user, item, seconds),
    }


def whole_number(text: str, where: str) -> int:
    """The number. Raises DatasetError, naming `where`."""
    try:
        return int(text)
    except ValueError:
        raise DatasetError(f"{where}: expected a whole number, found {text!r}") from None
