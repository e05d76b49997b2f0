"""YooChoose clicks (RecSys Challenge 2015): the challenge's own `yoochoose-clicks.dat`, and the usual excerpt of it.

    yoochoose-clicks.dat            session, time (RFC 3339), item, category; comma, no header
    train_full.txt, test.txt        SessionId, ItemId, Time (epoch seconds); tab, header; read together

A session is a user and a click a `click`. Sessions are short and items come again: recommend with repeats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from workers.importers.dataset import Check, Dataset, DatasetError, Moment, checked

CLICKS = "yoochoose-clicks.dat"
EXCERPT = ("train_full.txt", "test.txt")
HEADER = "SessionId\tItemId\tTime"

_Row = tuple[int, str, str]  # ms, session, item


def read(path: Path, check: Check | None = None) -> Dataset:
    """Read a folder with one of the forms, or one file; events by time, equal times in the order of the files.

    Raises DatasetError, naming file and line, for what is not of this format, or what `check` refuses.
    """
    rows = [row for file in _files(path) for row in _rows(file)]
    rows.sort(key=lambda row: row[1][0])
    return Dataset(
        name=f"YooChoose ({path.name})", catalog=(), stream=[checked(_click(*row), check, where) for where, row in rows]
    )


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    files = [path / name for name in EXCERPT if (path / name).exists()]
    return files or [path / CLICKS]


def _rows(file: Path) -> Iterator[tuple[str, _Row]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        expected = f"{CLICKS}, or {' and '.join(EXCERPT)}"
        raise DatasetError(f"{file}: {error.strerror}; expected a folder with {expected}") from None
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: expected text, found {error}") from None
    excerpt = bool(lines) and lines[0].strip() == HEADER
    parse = _excerpt if excerpt else _official
    for number, line in enumerate(lines[excerpt:], 1 + excerpt):
        if line.strip():
            yield f"{file}:{number}", _parsed(parse, line, f"{file}:{number}")


def _parsed(parse: Callable[[str], _Row], line: str, where: str) -> _Row:
    try:
        return parse(line)
    except ValueError as error:
        raise DatasetError(f"{where}: expected session, item and time of a click: {error}") from None


def _excerpt(line: str) -> _Row:
    session, item, seconds = line.split("\t")
    return _ms(float(seconds)), session.strip(), item.strip()


def _official(line: str) -> _Row:
    session, time, item, _ = line.split(",")
    return _ms(datetime.fromisoformat(time.strip()).timestamp()), session.strip(), item.strip()


def _ms(seconds: float) -> int:
    if not math.isfinite(seconds):
        raise ValueError(f"{seconds} is no time")
    return round(seconds * 1000)


def _click(time: int, session: str, item: str) -> Moment:
    return "event", {
        "user_id": session,
        "item_id": item,
        "action": "click",
        "time": time,
        # Nobody clicks on an item twice in a millisecond: these name the click, and importing twice is harmless within
        # the idempotency window.
        "event_id": f"yoochoose-{session}-{time}-{item}",
    }
