"""`headrace evaluate`: one object, the same each time; comparisons, dimensions, pictures; mistakes in one line."""

from __future__ import annotations

import gzip
import json
import logging
import os
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog

from workers.cli import run
from workers.importers import jsonl
from workers.importers.stream import stream_of
from workers.settings import load

DATA = Path(load().data)
KEYS = [
    "events", "queries", "seed", "recipe", "dimension", "sample", "known", "all", "arranged", "baselines", "by_history",
    "by_item_age", "repeats", "first_time", "by_source", "coverage", "gini", "us_per_event",
]  # fmt: skip
BASELINES = [
    "popularity", "trending_15min", "trending_6h", "trending_3d", "trending_30d", "covisitation", "sequence",
]  # fmt: skip


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings but those of the test; logging as it was before."""
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("HEADRACE_"):
            monkeypatch.delenv(name)
    level = logging.getLogger("aiokafka").level
    yield
    logging.getLogger("aiokafka").setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def events(tmp_path: Path) -> str:
    """A small stream as JSON lines."""
    rng = np.random.default_rng(4)
    users, steps = rng.integers(12, size=250), rng.integers(6, size=250)
    lines = [
        {"user_id": f"u{user}", "item_id": f"i{(3 * user + step) % 30}", "action": "click", "time": 10**12 + 1000 * at}
        for at, (user, step) in enumerate(zip(users.tolist(), steps.tolist(), strict=True))
    ]
    (tmp_path / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return "events.jsonl"


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(["evaluate", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_two_runs_with_one_seed_print_the_same_but_for_the_timings(
    events: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = []
    for _ in range(2):
        assert run(["evaluate", events, "--dim", "8", "--seed", "3", "--repeats", "--json"]) == 0
        texts.append(capsys.readouterr().out)
    one, other = (json.loads(text) for text in texts)
    assert list(one) == KEYS
    assert list(one["baselines"]) == BASELINES
    cost = one.pop("us_per_event")
    assert set(cost) == set(other.pop("us_per_event")) == {"learn", "query"}
    assert min(cost.values()) > 0
    assert one == other
    assert (one["events"], one["queries"], one["dimension"], one["seed"], one["sample"]) == (250, 250, 8, 3, 1)
    assert one["known"]["n"] + 12 == one["all"]["n"] == 250
    assert one["repeats"]["n"] + one["first_time"]["n"] == one["known"]["n"]
    assert one["repeats"]["n"] > 50
    assert 0 < one["known"]["ndcg@10"] < one["known"]["recall@10"] < one["known"]["recall@20"] <= 1
    assert one["known"]["se"]["recall@10"] > 0
    assert answer(capsys, events, "--dim", "8", "--seed", "4", "--repeats")["known"] != one["known"]


def test_gzip_limit_and_items(events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress((tmp_path / events).read_bytes()))
    (tmp_path / "items.jsonl").write_text('{"item_id":"i3","available":false}\n{"item_id":"never"}\n')
    plain = answer(capsys, events, "--limit", "100", "--dim", "8", "--no-baselines")
    zipped = answer(capsys, "e.jsonl.gz", "--limit", "100", "--dim", "8", "--no-baselines")
    assert plain["known"] == zipped["known"]
    assert (plain["events"], plain["baselines"]) == (100, {})
    listed = answer(capsys, "e.jsonl.gz", "--items", "items.jsonl", "--limit", "100", "--dim", "8")
    assert listed["known"] != plain["known"]  # i3 is not to be had
    assert listed["coverage"] < plain["coverage"]  # "never" counts, and is not shown


def test_items_enter_when_they_were_published(tmp_path: Path) -> None:
    """News: what is not written yet is no candidate. Events out of order do not move anything."""
    times = [3, 1, 2, 4]
    events = [{"user_id": "u", "item_id": "i", "action": "click", "time": 10**12 + time} for time in times]
    dates = {"at 3": 3, "late": 9, "undated": None, "old": -5, "at 1": 1}
    items = [{"item_id": name.replace(" ", "-"), "published_at": at and 10**12 + at} for name, at in dates.items()]
    for name, lines in (("e.jsonl", events), ("i.jsonl", items)):
        (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = stream_of(jsonl.read(tmp_path / "e.jsonl", tmp_path / "i.jsonl"), load())
    assert read.stream.time.tolist() == [10**12 + time for time in sorted(times)]
    found = [(at, entry.item_id) for at, entry in read.stream.arrivals]
    assert found == [(0, "undated"), (0, "old"), (0, "at-1"), (2, "at-3"), (4, "late")]


def test_a_sample_is_said(events: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, events, "--sample", "1/5", "--dim", "8")
    assert found["sample"] == 5
    assert 25 < found["queries"] < 75
    assert run(["evaluate", events, "--sample", "1/5", "--dim", "8"]) == 0
    out = capsys.readouterr().out
    assert "one event in 5 was queried, all were learned from" in out
    for word in ("ranked", "as arranged", "baseline trending_3d", "never seen", "16-31", "covisitation", "coverage"):
        assert word in out


def test_a_bar_shows_progress_on_a_terminal_alone(
    events: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ["evaluate", events, "--limit", "20", "--dim", "4"]
    assert run(plain) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert run([*plain, "--json"]) == 0
    assert capsys.readouterr().err == ""
    assert run(plain) == 0
    assert "20/20" in capsys.readouterr().err


def test_events_out_of_order_are_sorted_and_said(
    events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (tmp_path / events).read_text().splitlines(keepends=True)
    (tmp_path / "turned.jsonl").write_text("".join([lines[1], lines[0], *lines[2:]]))
    sorted_ = answer(capsys, events, "--dim", "8")
    assert run(["evaluate", "turned.jsonl", "--dim", "8", "--json"]) == 0
    out, err = capsys.readouterr()
    assert err == "1 of 250 events stood behind later ones: taken in the order of their times\n"
    assert json.loads(out)["known"] == sorted_["known"]


@pytest.mark.parametrize("text", ["", "\n", '{"user_id":"u","action":"click","item_id":"i","time":1000000000000}'])
def test_a_stream_of_nothing_has_no_figures(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "few.jsonl").write_text(text)
    found = answer(capsys, "few.jsonl")
    assert found["known"] == {
        "n": 0, "recall@10": None, "recall@20": None, "ndcg@10": None, "mrr": None,
        "se": {"recall@10": None, "ndcg@10": None},
    }  # fmt: skip
    assert run(["evaluate", "few.jsonl"]) == 0


def test_events_that_mean_nothing_are_said(events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a newcomer meets whose actions have names of their own: a note, not figures of nothing without a word."""
    lines = [json.loads(line) for line in (tmp_path / events).read_text().splitlines()]
    for at, line in enumerate(lines):
        line["action"] = "open" if at < 150 else "buy" if at < 220 else "play"
    write = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "own.jsonl").write_text(
        write + '{"user_id":"u1","item_id":"i1","action":"rate","value":1,"time":1000000999999}'
    )
    assert run(["evaluate", "own.jsonl", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "250 of 251 events have actions that mean nothing here ('open' 150, 'buy' 70, 'play' 30)" in err
    assert "none of 251 events has an action of a weight above 0" in err
    assert json.loads(out)["queries"] == 0
    (tmp_path / "own.toml").write_text("[actions.buy]\ncode = 40\nweight = 1.0\n")
    assert run(["evaluate", "own.jsonl", "--config", "own.toml", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "180 of 251 events have actions that mean nothing here ('open' 150, 'play' 30)" in err
    assert "nothing to predict" not in err
    assert json.loads(out)["queries"] == 70


def test_a_settings_file_is_compared_with_another(
    events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.toml").write_text("[model]\ndimension = 8\n")
    (tmp_path / "b.toml").write_text("[model]\ndimension = 8\n[feed]\nrepeats = true\n")
    same = answer(capsys, events, "--compare", "a.toml", "a.toml")
    assert same["difference"]["known"]["recall@10"] == {"mean": 0, "se": 0}
    found = answer(capsys, events, "--compare", "a.toml", "b.toml")
    assert set(found) == {"a", "b", "difference"}
    assert list(found["a"]) == list(found["b"]) == KEYS
    ahead = found["difference"]["known"]["recall@10"]
    assert ahead["mean"] == pytest.approx(found["b"]["known"]["recall@10"] - found["a"]["known"]["recall@10"])
    assert ahead["mean"] > 2 * ahead["se"] > 0
    assert found["difference"]["repeats"]["n"] == found["b"]["repeats"]["n"]
    assert run(["evaluate", events, "--compare", "a.toml", "b.toml"]) == 0
    assert "B - A: first_time" in capsys.readouterr().out


def test_dimensions_are_measured_beside(events: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, events, "--dim", "8", "--dims", "16,4,8")
    assert found["dimension"] == 8
    assert list(found["by_dimension"]) == ["4", "8", "16"]
    assert found["by_dimension"]["8"]["known"] == found["known"]
    assert found["by_dimension"]["4"]["known"] == answer(capsys, events, "--dim", "4")["known"]
    assert run(["evaluate", events, "--dims", "4"]) == 0
    assert "by dimension" in capsys.readouterr().out


@pytest.mark.skipif(find_spec("matplotlib") is None, reason="matplotlib (the extra `plots`) is not installed")
def test_pictures_are_the_same_each_time(events: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in ("one", "two"):
        assert run(["evaluate", events, "--dim", "8", "--dims", "4,8", "--plot", folder, "--json"]) == 0
    names = [f"{name}.{kind}" for name in ("learning_curve", "recall_by_dimension", "recall_by_history")
             for kind in ("png", "svg")]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert f"wrote one/{names[0]}" in capsys.readouterr().err


def test_without_matplotlib_the_extra_is_named_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run(["evaluate", "absent.jsonl", "--plot", "pictures"]) == 2
    assert "pip install 'headrace[plots]'" in capsys.readouterr().err
    assert not (tmp_path / "pictures").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "Missing argument"),
        ("absent.jsonl", "absent.jsonl: expected a file of JSON lines or the folder of a data set"),
        (".", "name the --format"),
        ("good.jsonl --format movies", "expected one of movielens"),
        ("good.jsonl --format movielens", "expected the official MovieLens 100K folder"),
        (". --format movietweetings", "movies.dat: No such file or directory; expected the official MovieTweetings"),
        (". --format yoochoose", "yoochoose-clicks.dat: No such file or directory; expected a folder with"),
        ("good.jsonl --min-rating 4", "expected ratings for --min-rating, found jsonl"),
        ("good.jsonl --sample 10", "--sample: expected 1/N"),
        ("good.jsonl --sample 1/0", "--sample: expected 1/N"),
        ("good.jsonl --sample 2/3", "--sample: expected 1/N"),
        ("good.jsonl --dim 3", "--dim"),
        ("good.jsonl --dims 16,3", "--dims: expected numbers of 4 to 1024"),
        ("good.jsonl --dims x", "--dims: expected numbers of 4 to 1024"),
        ("good.jsonl --limit 0", "--limit"),
        ("good.jsonl --recipe lunch", "feed.recipe: expected one of home"),
        ("good.jsonl --compare a.toml", "--compare"),
        ("good.jsonl --compare a.toml b.toml --dims 16", "--compare: expected neither"),
        ("good.jsonl --compare absent.toml b.toml", "cannot read absent.toml"),
        ("good.jsonl --items absent.jsonl", "absent.jsonl: No such file"),
        ("bad.jsonl", "bad.jsonl:2: expected a JSON object"),
        ("timeless.jsonl", "timeless.jsonl:1: time: expected the time of the event, found none"),
        ("itemless.jsonl", "itemless.jsonl:1: item_id: expected with action 'click', found none"),
        ("nobody.jsonl", "nobody.jsonl:1: event: Object missing required field `user_id`"),
    ],
)
def test_a_mistake_is_one_line_and_exit_2(
    arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = '{"user_id":"u","action":"click","item_id":"i","time":1000000000000}\n'
    files = {
        "good.jsonl": good,
        "bad.jsonl": good + "{nonsense\n",
        "timeless.jsonl": '{"user_id":"u","action":"click","item_id":"i"}',
        "itemless.jsonl": '{"user_id":"u","action":"click","time":1000000000000}',
        "nobody.jsonl": '{"action":"click","item_id":"i","time":1000000000000}',
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert run(["evaluate", *arguments.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("headrace: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize(
    ("folder", "flags"),
    [
        ("ml-100k", ["--min-rating", "5"]),
        ("movietweetings", []),
        ("yoochoose100k", ["--repeats"]),
    ],
)
def test_the_real_sets(folder: str, flags: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = (root / DATA / folder).resolve()
    if not path.is_dir():
        pytest.skip(f"the data set is not at {path}")
    found = answer(capsys, str(path), *flags, "--limit", "400", "--dim", "16")
    assert (found["events"], found["queries"]) == (400, 400)
    assert found["known"]["n"] > 40
    assert found["known"]["recall@10"] > 0
