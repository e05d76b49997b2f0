"""What a person sees: movements, reasons, and nothing that breaks where there is nothing to show."""

from __future__ import annotations

from msgspec.structs import replace
from rich.console import Console, RenderableType

from workers.outside import screen
from workers.outside.screen import Deed, Figures
from workers.wire.feed import Feed, FeedCause, FeedItem, FeedModel, FeedStages

TITLES = {"a": "Alpha", "b": "Beta", "c": "Gamma"}
FEED = Feed(
    feed_id="f",
    user_id="u",
    version=7,
    revision=1,
    count=3,
    generated_at="",
    expires_at="",
    cause=FeedCause("e", "", ""),
    model=FeedModel(1, 2),
    recipe="home",
    items=[
        FeedItem("a", 1, 2.0, {"covisitation": 1}, ["c"], {"covisitation": 1.5}, 1.0),
        FeedItem("b", 2, 1.0, {"trending_6h": 3}, [], {"trend": 0.5, "popularity": 0.1}, 1.0),
        FeedItem("x", 3, 0.5, {"fresh": 2}, [], {}, 1.0),
    ],
    stages=FeedStages(50, {"consumed": 4, "unsafe": 1}, 45, 800),
)


def name(item_id: str) -> str:
    return TITLES.get(item_id, item_id)


def drawn(part: RenderableType, width: int = 140) -> str:
    console = Console(width=width, record=True, force_terminal=False, file=None)
    with console.capture() as captured:
        console.print(part)
    return captured.get()


def test_movements_are_told_against_the_feed_before() -> None:
    before = ["b", "a", "q"]
    assert [screen.movement(item, before).plain for item in FEED.items] == ["▲1", "▼1", "new"]
    assert screen.movement(FEED.items[0], ["a"]).plain == "="
    assert screen.movement(FEED.items[0], []).plain.strip() == ""


def test_reasons_name_history_first_then_the_heaviest_part_then_the_source() -> None:
    assert [screen.why(item, name).plain for item in FEED.items] == ["because of Gamma", "is trending", "is new"]
    assert screen.why(replace(FEED.items[2], sources={}), name).plain == ""


def test_history_stands_beside_the_feed() -> None:
    text = drawn(screen.beside("u", [Deed("like", "c", "10:00")], FEED, name, ["b", "a"], explain=True))
    for part in ("what u did", "like", "Gamma", "Alpha", "▲1", "covisitation#1", "covisitation=1.50"):
        assert part in text
    line = next(line for line in text.splitlines() if "Alpha" in line)
    assert "Gamma" in line  # side by side, not one below the other


def test_what_belongs_together_is_not_broken_at_any_width() -> None:
    """Titles stay on their line, and a source with its rank; an answer without items says so."""
    long = replace(FEED.items[0], sources={"sequence": 12, "covisitation": 1, "forward": 20, "trending_6h": 85})
    text = drawn(screen.listing(replace(FEED, items=[long]), lambda _: "Alpha and Omega", explain=True), 80)
    for part in ("Alpha and Omega", "sequence#12", "covisitation#1", "forward#20", "trending_6h#85"):
        assert part in text
    assert drawn(screen.listing(replace(FEED, items=[]), name)).strip() == "nothing to show yet"


def test_markup_in_titles_is_text() -> None:
    assert "[bold]" in drawn(screen.listing(FEED, lambda item_id: f"[bold]{item_id}"))


def test_the_stages_are_a_line() -> None:
    assert screen.stages(FEED) == "gathered 50, dropped 4 consumed, 1 unsafe, ranked 45"


def test_the_feed_of_strangers_is_called_so() -> None:
    assert screen.title(replace(FEED, version=0, cause=None)) == "the feed of strangers"
    cause = FeedCause("e", "2026-11-22T05:10:11.123Z", "events/0/6")
    assert screen.title(replace(FEED, cause=cause)) == "their feed, version 7, as of 2026-11-22 05:10"


def test_the_dashboard_shows_figures_with_and_without_a_user() -> None:
    bare = Figures("Demo", 0, 0, 0.0, 0.0, {}, {}, note="loading")
    assert "loading" in drawn(screen.dashboard(bare))
    live = {"recall@10": 0.1234, "ndcg@10": 0.05, "events": 10.0}
    full = Figures(
        "Demo", 1234, 1200, 99.6, 98.0, {"p50": 3.14, "p99": 250.0}, live, "u", [Deed("like", "c")], FEED, ["b"], name
    )
    text = drawn(screen.dashboard(full))
    for part in ("1,234", "100/s", "p50 3.1 ms", "p99 250 ms", "recall@10 0.123", "what u did", "Alpha"):
        assert part in text
    assert screen.line(full) == (
        "events 1,234 (100/s)  feeds 1,200 (98/s)  p50 3.1 ms  p99 250 ms  recall@10 0.123  ndcg@10 0.050"
    )
