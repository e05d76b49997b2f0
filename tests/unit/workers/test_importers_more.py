"""Importers of MovieTweetings and YooChoose, and which format a path has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workers.importers import formats, movietweetings, yoochoose
from workers.importers.dataset import Dataset, DatasetError, Moment
from workers.importers.play import checker
from workers.settings import Settings, load

DATA = Path(load().data)
TWEETINGS, CLICKS = DATA / "movietweetings", DATA / "yoochoose100k"

RATINGS = "1::0120735::9::1365029107\n2::0120735::7::1364118447\n2::2844::8::1365029107\n1::2844::8::1364117717\n"
MOVIES = "0120735::Lock, Stock: Two Barrels (1998)::Comedy|Crime\n2844::Fantômas (1913)::\n"

TRAIN = "SessionId\tItemId\tTime\n3\t214716935\t1396437466.94\n3\t214832672\t1396438212.318\n"
TEST = "SessionId\tItemId\tTime\n1\t214832672\t1396437000\n1\t214832672\t1396437466.94\n"
OFFICIAL = (
    "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n\n2,2014-04-07T10:50:00Z,2146,0\n"
)


def datas(moments: Any) -> list[dict[str, Any]]:
    return [data for _, data in moments]


@pytest.fixture
def tweetings(tmp_path: Path) -> Path:
    (tmp_path / "ratings.dat").write_text(RATINGS)
    (tmp_path / "movies.dat").write_text(MOVIES)
    return tmp_path


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    (tmp_path / "train_full.txt").write_text(TRAIN)
    (tmp_path / "test.txt").write_text(TEST)
    return tmp_path


# ------------------------------------------------------------------ MovieTweetings


def test_movietweetings_films_become_items_and_high_ratings_likes(tweetings: Path) -> None:
    dataset = movietweetings.read(tweetings)
    assert datas(dataset.catalog) == [
        {"item_id": "0120735", "title": "Lock, Stock: Two Barrels (1998)", "categories": ["Comedy", "Crime"]},
        {"item_id": "2844", "title": "Fantômas (1913)", "categories": []},
    ]
    likes = datas(dataset.stream)
    assert [(like["user_id"], like["item_id"], like["value"], like["time"]) for like in likes] == [
        ("1", "2844", 8, 1364117717000),
        ("1", "0120735", 9, 1365029107000),  # equal times: the order of the file
        ("2", "2844", 8, 1365029107000),
    ]
    assert {like["action"] for like in likes} == {"like"}
    assert len({like["event_id"] for like in likes}) == 3
    assert dataset.left_out == "1 of 4 ratings below 8"
    assert movietweetings.read(tweetings, 9).left_out == "3 of 4 ratings below 9"
    assert movietweetings.read(tweetings, 1).left_out == ""


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("ratings.dat", "1::2::8\n", r"ratings\.dat:1: expected 4 fields separated by '::', found 3"),
        ("ratings.dat", "1::2::8::1\n1::2::x::1\n", r"ratings\.dat:2: expected a whole number, found 'x'"),
        ("ratings.dat", "1::2::8::\n", r"ratings\.dat:1: expected a whole number, found ''"),
        ("movies.dat", "1::A\n", r"movies\.dat:1: expected 3 fields separated by '::', found 2"),
    ],
)
def test_a_broken_movietweetings_folder_is_one_clear_line(tweetings: Path, file: str, text: str, said: str) -> None:
    (tweetings / file).write_text(text)
    with pytest.raises(DatasetError, match=said) as error:
        movietweetings.read(tweetings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["ratings.dat", "movies.dat"])
def test_a_missing_or_foreign_movietweetings_file_is_named(tweetings: Path, file: str) -> None:
    (tweetings / file).write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match=f"{file}: expected UTF-8"):
        movietweetings.read(tweetings)
    (tweetings / file).unlink()
    with pytest.raises(DatasetError, match=f"{file}: No such file or directory; expected the official MovieTweetings"):
        movietweetings.read(tweetings)


# ------------------------------------------------------------------ YooChoose


def test_the_usual_excerpt_is_read_together(clicks: Path) -> None:
    dataset = yoochoose.read(clicks)
    assert datas(dataset.catalog) == []
    events = datas(dataset.stream)
    assert [(event["user_id"], event["item_id"], event["time"]) for event in events] == [
        ("1", "214832672", 1396437000000),
        ("3", "214716935", 1396437466940),  # equal times: the order of the files
        ("1", "214832672", 1396437466940),
        ("3", "214832672", 1396438212318),
    ]
    assert {event["action"] for event in events} == {"click"}
    assert len({event["event_id"] for event in events}) == 4
    (clicks / "test.txt").unlink()
    assert (
        len(datas(yoochoose.read(clicks).stream)) == len(datas(yoochoose.read(clicks / "train_full.txt").stream)) == 2
    )


def test_the_challenge_s_own_file(tmp_path: Path) -> None:
    (tmp_path / "yoochoose-clicks.dat").write_text(OFFICIAL)
    events = datas(yoochoose.read(tmp_path).stream)
    assert [(event["user_id"], event["item_id"], event["time"]) for event in events] == [
        ("2", "2146", 1396867800000),
        ("1", "214536502", 1396867869277),
        ("1", "214536500", 1396868049868),
    ]
    assert datas(yoochoose.read(tmp_path / "yoochoose-clicks.dat").stream) == events


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("test.txt", "SessionId\tItemId\tTime\n1\t2\n", r"test\.txt:2: expected session, item and time of a click"),
        ("test.txt", "SessionId\tItemId\tTime\n1\t2\tx\n", r"test\.txt:2: expected session, item and time of a click"),
        (
            "test.txt",
            "SessionId\tItemId\tTime\n1\t2\tnan\n",
            r"test\.txt:2: expected session, item and time of a click",
        ),
        (
            "test.txt",
            "SessionId\tItemId\tTime\n1\t2\tinf\n",
            r"test\.txt:2: expected session, item and time of a click",
        ),
        ("test.txt", "1,yesterday,3,0\n", r"test\.txt:1: expected session, item and time of a click"),
        ("test.txt", "1,2014-04-07T10:51:09\n", r"test\.txt:1: expected session, item and time of a click"),
    ],
)
def test_a_broken_line_of_clicks_is_one_clear_line(clicks: Path, file: str, text: str, said: str) -> None:
    (clicks / file).write_text(text)
    with pytest.raises(DatasetError, match=said) as error:
        yoochoose.read(clicks)
    assert "\n" not in str(error.value)


def test_a_folder_without_clicks_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"yoochoose-clicks\.dat: No such file or directory; expected a folder with"):
        yoochoose.read(tmp_path)
    (tmp_path / "test.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DatasetError, match=r"test\.txt: expected text"):
        yoochoose.read(tmp_path)


# ------------------------------------------------------------------ both


def test_what_a_topic_would_refuse_is_refused_with_its_place(tweetings: Path) -> None:
    check = checker(Settings())
    assert len(datas(movietweetings.read(tweetings, 8, check).stream)) == 3
    with (tweetings / "ratings.dat").open("a") as file:
        file.write("1::a{b}::9::1365029107\n")
    with pytest.raises(DatasetError, match=r"ratings\.dat:5: item_id: expected"):
        movietweetings.read(tweetings, 8, check)


def test_a_format_is_known_by_its_files(tmp_path: Path) -> None:
    signs = {"u.data": "movielens", "ratings.dat": "movietweetings", "test.txt": "yoochoose"}
    for name, form in signs.items():
        folder = tmp_path / form
        folder.mkdir()
        (folder / name).touch()
        assert formats.detect(folder) == form
    (tmp_path / "clicks.jsonl.gz").touch()
    assert formats.detect(tmp_path / "clicks.jsonl.gz") == "jsonl"
    (tmp_path / "yoochoose-clicks.dat").touch()
    assert formats.detect(tmp_path / "yoochoose-clicks.dat") == "yoochoose"
    with pytest.raises(DatasetError, match="found nothing there"):
        formats.detect(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="name the --format"):
        formats.detect(tmp_path / "empty")


@pytest.mark.skipif(not TWEETINGS.is_dir(), reason=f"MovieTweetings is not at {TWEETINGS}")
def test_movietweetings_is_read_whole() -> None:
    _whole(movietweetings.read(TWEETINGS), items=10506, events=50542)


@pytest.mark.skipif(not CLICKS.is_dir(), reason=f"the YooChoose excerpt is not at {CLICKS}")
def test_the_yoochoose_excerpt_is_read_whole() -> None:
    _whole(yoochoose.read(CLICKS), items=0, events=83846)


def _whole(dataset: Dataset, items: int, events: int) -> None:
    found: list[Moment] = list(dataset.stream)
    assert (len(datas(dataset.catalog)), len(found)) == (items, events)
    times = [data["time"] for data in datas(found)]
    assert times == sorted(times)
