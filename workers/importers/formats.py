"""Which format a folder or file has, and reading it by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from workers.importers import jsonl, movielens, movietweetings, yoochoose
from workers.importers.dataset import Check, Dataset, DatasetError

Format = Literal["movielens", "movietweetings", "yoochoose", "jsonl"]
FORMATS: tuple[Format, ...] = get_args(Format)
MIN_RATINGS: dict[Format, float] = {"movielens": 4.0, "movietweetings": 8.0}  # from here on a rating is a like

_SIGNS: tuple[tuple[str, Format], ...] = (
    ("u.data", "movielens"),
    ("ratings.dat", "movietweetings"),
    (yoochoose.CLICKS, "yoochoose"),
    *((name, "yoochoose") for name in yoochoose.EXCERPT),
)


def named(form: str) -> Format:
    """The format called `form`. Raises DatasetError."""
    found = next((known for known in FORMATS if known == form), None)
    if found is None:
        raise DatasetError(f"format: expected one of {', '.join(FORMATS)}, found {form!r}")
    return found


def detect(path: Path) -> Format:
    """The format of a folder, by the files in it, or of a file. Raises DatasetError."""
    if not path.exists():
        raise DatasetError(f"{path}: expected a file of JSON lines or the folder of a data set, found nothing there")
    if path.is_dir():
        for name, found in _SIGNS:
            if (path / name).exists():
                return found
        known = ", ".join(dict.fromkeys(name for name, _ in _SIGNS))
        raise DatasetError(f"{path}: expected a folder with one of {known}; found none of them, name the --format")
    return "yoochoose" if path.name in (yoochoose.CLICKS, *yoochoose.EXCERPT) else "jsonl"


def read(
    path: Path,
    form: Format,
    min_rating: float | None = None,
    items: Path | None = None,
    check: Check | None = None,
) -> Dataset:
    """The data set; `min_rating` None = the format's own, `items` only with jsonl. Raises DatasetError."""
    if min_rating is not None and form not in MIN_RATINGS:
        raise DatasetError(f"{path}: expected ratings for --min-rating, found {form}, which has none")
    if items is not None and form != "jsonl":
        raise DatasetError(f"{path}: expected JSON lines for --items, found {form}, which brings its own")
    if form == "movielens":
        return movielens.read(path, MIN_RATINGS[form] if min_rating is None else min_rating, check)
    if form == "movietweetings":
        return movietweetings.read(path, MIN_RATINGS[form] if min_rating is None else min_rating, check)
    if form == "yoochoose":
        return yoochoose.read(path, check)
    return jsonl.read(path, items, check)
