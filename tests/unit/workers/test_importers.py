"""Importers: what a data set becomes, and that a broken one is one clear line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from workers.importers import jsonl, movielens
from workers.importers.dataset import WINDOW_MS, Dataset, DatasetError, Moment, Shift, fitting
from workers.settings import Settings
from workers.wire.times import DAY_MS, parse_time

GENRES = "unknown|0\nAction|1\nFilm-Noir|2\n\n"
FILMS = (
    "1|Amélie (1997)|01-Jan-1997||http://a|0|1|1\n2|Kolya (1996)|24-Jan-1997||http://b|0|0|1\n267|unknown||||1|0|0\n"
)
RATINGS = "196\t1\t5\t881250949\n22\t2\t3\t878887116\n22\t1\t4\t878887116\n7\t2\t4\t881250949\n"

OFFICIAL = Path(Settings().data) / "ml-100k"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as MovieLens publishes it, small."""
    (tmp_path / "u.genre").write_text(GENRES)
    (tmp_path / "u.item").write_bytes(FILMS.encode("latin-1"))
    (tmp_path / "u.data").write_text(RATINGS)
    return tmp_path


def test_movielens_films_become_titled_items(folder: Path) -> None:
    films = [data for kind, data in movielens.read(folder).catalog if kind == "item"]
    assert films == [
        {
            "item_id": "1",
            "title": "Amélie (1997)",
            "categories": ["Action", "Film-Noir"],
            "published_at": "1997-01-01T00:00:00Z",
        },
        {
            "item_id": "2",
            "title": "Kolya (1996)",
            "categories": ["Film-Noir"],
            "published_at": "1997-01-24T00:00:00Z",
        },
        {"item_id": "267", "title": "unknown", "categories": []},
    ]


def test_movielens_ratings_become_likes_in_the_order_of_their_times(folder: Path) -> None:
    dataset = movielens.read(folder)
    likes = [data for kind, data in dataset.stream if kind == "event"]
    assert [(like["user_id"], like["item_id"], like["value"], like["time"]) for like in likes] == [
        ("22", "1", 4, 878887116000),
        ("196", "1", 5, 881250949000),  # equal times: the order of the file
        ("7", "2", 4, 881250949000),
    ]
    assert {like["action"] for like in likes} == {"like"}
    assert len({like["event_id"] for like in likes}) == 3


def test_movielens_says_what_it_leaves_out(folder: Path) -> None:
    assert movielens.read(folder).left_out == "1 of 4 ratings below 4"
    assert movielens.read(folder, min_rating=5).left_out == "3 of 4 ratings below 5"
    everything = movielens.read(folder, min_rating=1)
    assert (everything.left_out, len(list(everything.stream))) == ("", 4)


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("u.data", "196\t1\t5\n", r"u\.data:1: expected 4 fields .* found 3"),
        ("u.data", "196\t1\t5\t1\n196\t1\tfive\t1\n", r"u\.data:2: expected a whole number, found 'five'"),
        ("u.item", "1|A\n", r"u\.item:1: expected 8 fields .* found 2"),
        ("u.item", "1|A|1995-01-01||x|0|1|1\n", r"u\.item:1: expected a release date such as 01-Jan-1995"),
        ("u.genre", "Action|1\n", r"u\.genre: expected genres numbered from 0"),
    ],
)
def test_a_broken_movielens_folder_is_one_clear_line(folder: Path, file: str, text: str, said: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(DatasetError, match=said) as error:
        movielens.read(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", ["u.data", "u.item", "u.genre"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(DatasetError, match=f"{file}: No such file or directory; expected the official MovieLens"):
        movielens.read(folder)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"MovieLens 100K is not at {OFFICIAL}")
def test_the_official_folder_is_read_whole() -> None:
    dataset = movielens.read(OFFICIAL)
    films = [data for _, data in dataset.catalog]
    likes = [data for _, data in dataset.stream]
    assert (len(films), len(likes)) == (1682, 55375)
    assert dataset.left_out == "44,625 of 100,000 ratings below 4"
    assert films[0]["title"] == "Toy Story (1995)"
    times = [like["time"] for like in likes]
    assert times == sorted(times)


def test_jsonl_gives_lines_in_order_again_and_again(tmp_path: Path) -> None:
    events = tmp_path / "e.jsonl"
    events.write_text('{"user_id":"a","action":"view","item_id":"x"}\n\n{"user_id":"b","action":"profile"}')
    items = tmp_path / "i.jsonl.gz"
    items.write_bytes(gzip.compress(b'{"item_id":"x","title":"X"}\n'))
    dataset = jsonl.read(events, items)
    for _ in range(2):
        assert [data["user_id"] for _, data in dataset.stream] == ["a", "b"]
        assert list(dataset.catalog) == [("item", {"item_id": "x", "title": "X"})]


@pytest.mark.parametrize("line", [b"{", b"[]", b"3", b'"text"', b"null", b"\xff\xfe", b"[" * 100_000])
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: bytes) -> None:
    events = tmp_path / "e.jsonl"
    events.write_bytes(b"{}\n" + line + b"\n")
    with pytest.raises(DatasetError, match=r"e\.jsonl:2: expected a JSON object") as error:
        list(jsonl.read(events).stream)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"not gzip", gzip.compress(b"{}\n" * 999)[:-9]])
def test_broken_gzip_is_named(tmp_path: Path, content: bytes) -> None:
    events = tmp_path / "e.jsonl.gz"
    events.write_bytes(content)
    with pytest.raises(DatasetError, match=r"e\.jsonl\.gz: is not whole gzip"):
        list(jsonl.read(events).stream)


def test_a_missing_jsonl_file_is_named_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"absent\.jsonl: No such file"):
        jsonl.read(tmp_path / "absent.jsonl")
    (tmp_path / "e.jsonl").touch()
    with pytest.raises(DatasetError, match=r"absent\.gz: No such file"):
        jsonl.read(tmp_path / "e.jsonl", tmp_path / "absent.gz")


NOW = 20_000 * DAY_MS


def events_at(*times: int | str) -> Dataset:
    return Dataset("test", catalog=(), stream=[("event", {"user_id": "u", "time": time}) for time in times])


def times_of(dataset: Dataset) -> list[int]:
    return [parse_time(data["time"]) for _, data in dataset.stream]


def test_old_times_are_moved_and_compressed_into_the_window() -> None:
    dataset = events_at(10_100 * DAY_MS, 10_200 * DAY_MS, 10_300 * DAY_MS)
    shift = fitting(dataset.survey(), NOW)
    assert shift is not None
    assert times_of(shift.apply(dataset)) == [NOW - WINDOW_MS, NOW - WINDOW_MS // 2, NOW]


def test_a_short_span_is_moved_but_not_stretched() -> None:
    dataset = events_at("2001-09-09T01:46:40Z", "2001-09-09T01:47:40Z")
    shift = fitting(dataset.survey(), NOW)
    assert shift is not None
    assert shift.factor == 1.0
    assert times_of(shift.apply(dataset)) == [NOW - 60_000, NOW]


def test_times_of_items_move_with_the_events() -> None:
    shift = Shift(first=10_000 * DAY_MS, last=10_010 * DAY_MS, now=NOW)
    item = {"item_id": "i", "published_at": 9_000 * DAY_MS, "expires_at": None}
    moved = shift.apply(Dataset("test", catalog=[("item", item)], stream=()))
    assert [data for _, data in moved.catalog] == [{**item, "published_at": "2021-12-29T00:00:00.000Z"}]


def test_live_times_and_events_without_a_time_stay() -> None:
    assert fitting(events_at(NOW - DAY_MS, NOW).survey(), NOW) is None
    assert fitting(Dataset("test", catalog=(), stream=[("event", {"user_id": "u"})]).survey(), NOW) is None
    assert fitting(events_at(NOW - DAY_MS, NOW + 1).survey(), NOW) is not None


def test_a_shift_says_what_it_does() -> None:
    assert str(Shift(10_100 * DAY_MS, 10_158 * DAY_MS, NOW)) == (
        "1997-08-27 to 1997-10-24 is written as 2024-09-05 to 2024-10-04, 2 times as dense"
    )


def test_the_first_events_come_with_the_items_before_them() -> None:
    stream: list[Moment] = [
        ("event", {"n": 1}),
        ("item", {"n": 2}),
        ("event", {"n": 3}),
        ("item", {"n": 4}),
        ("event", {"n": 5}),
    ]
    first = Dataset("test", catalog=[("item", {})], stream=stream).first(2)
    assert [data["n"] for _, data in first.stream] == [1, 2, 3, 4]
    assert (first.survey().items, first.survey().events) == (3, 2)
