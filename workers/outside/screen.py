"""What a person sees in a terminal: a user's history beside their feed, the demo's live view. Data in, rich out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from workers.wire.feed import Feed, FeedItem

Names = Callable[[str], str]  # item id -> title, or the id where nothing better is known

ROWS = 10
REASONS = {  # source or score part -> the words for it
    "sequence": "fits what you do",
    "covisitation": "goes with what you chose",
    "forward": "often comes next",
    "trending": "is trending",
    "trend": "is trending",
    "entry": "a good start",
    "popularity": "is popular",
    "fresh": "is new",
}


@dataclass(frozen=True, slots=True)
class Deed:
    """One thing a user did, as it is shown."""

    action: str
    item: str  # id, or whatever is known of it
    when: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """What the demo shows of itself at one moment."""

    title: str
    events: int
    feeds: int
    events_per_s: float
    feeds_per_s: float
    latency_ms: Mapping[str, float]  # p50, p95, p99
    live: Mapping[str, float]  # recall@10, ndcg@10, events
    user: str = ""
    history: Sequence[Deed] = ()
    feed: Feed | None = None
    before: Sequence[str] = ()  # item ids of the feed before, in order
    names: Names = str
    note: str = ""


def dashboard(figures: Figures) -> RenderableType:
    """The demo's live view."""
    table = Table.grid(padding=(0, 3))
    table.add_row(
        _figure("events", f"{figures.events:,}", f"{figures.events_per_s:,.0f}/s"),
        _figure("feeds", f"{figures.feeds:,}", f"{figures.feeds_per_s:,.0f}/s"),
        _figure("event to feed", *(f"{name} {_ms(value)}" for name, value in figures.latency_ms.items())),
        _figure("served before each event", *(f"{name} {value:.3f}" for name, value in _rates(figures.live))),
    )
    parts: list[RenderableType] = [Panel(table, title=figures.title, title_align="left")]
    if figures.feed is not None:
        parts.append(beside(figures.user, figures.history, figures.feed, figures.names, figures.before))
    if figures.note:
        parts.append(Text(figures.note, style="dim"))
    return Group(*parts)


def line(figures: Figures) -> str:
    """The same in a line, for where there is no terminal."""
    events = f"events {figures.events:,} ({figures.events_per_s:,.0f}/s)"
    feeds = f"feeds {figures.feeds:,} ({figures.feeds_per_s:,.0f}/s)"
    latency = "  ".join(f"{name} {_ms(value)}" for name, value in figures.latency_ms.items())
    live = "  ".join(f"{name} {value:.3f}" for name, value in _rates(figures.live))
    return "  ".join(part for part in (events, feeds, latency, live, figures.note) if part)


def beside(
    user: str, history: Sequence[Deed], feed: Feed, names: Names, before: Sequence[str] = (), *, explain: bool = False
) -> RenderableType:
    """A user's history (newest first) beside their feed, its movements and its reasons."""
    did = Table.grid(padding=(0, 1))
    for deed in list(history)[:ROWS]:
        did.add_row(Text(deed.when, style="dim"), Text(deed.action, style="cyan"), Text(names(deed.item)))
    left = Panel(did, title=f"what {user} did", title_align="left", expand=False)
    right = Panel(listing(feed, names, before, explain=explain), title=title(feed), title_align="left", expand=False)
    return Columns([left, right])


def listing(feed: Feed, names: Names, before: Sequence[str] = (), *, explain: bool = False) -> RenderableType:
    """The feed's items: rank, movement since `before`, title, reason; with `explain` sources and score parts too."""
    if not feed.items:
        return Text("nothing to show yet", style="dim")
    table = Table.grid(padding=(0, 1))
    for no_wrap in (True, True, True, False, False, False)[: 6 if explain else 4]:
        table.add_column(no_wrap=no_wrap)
    for item in feed.items[: None if explain else ROWS]:
        cells = [Text(str(item.rank), style="dim"), movement(item, before), Text(names(item.item_id)), why(item, names)]
        if explain:
            cells += [Text(_pairs(item.sources, "{}#{}")), Text(_pairs(item.parts, "{}={:.2f}"), style="dim")]
        table.add_row(*cells)
    return table


def movement(item: FeedItem, before: Sequence[str]) -> Text:
    """How an item moved since the feed `before`; nothing where there was none."""
    if not before:
        return Text(" ")
    if item.item_id not in before:
        return Text("new", style="green")
    up = list(before).index(item.item_id) + 1 - item.rank
    if up == 0:
        return Text("=", style="dim")
    return Text(f"▲{up}", style="green") if up > 0 else Text(f"▼{-up}", style="red")


def why(item: FeedItem, names: Names) -> Text:
    """The reason in words: what of the user's history it goes back to, else its heaviest part, else its source."""
    if item.because:
        return Text("because of " + " and ".join(names(id_) for id_ in item.because), style="magenta")
    best = max(item.parts, key=lambda part: item.parts[part], default="")
    best = best if best and item.parts[best] > 0 else min(item.sources, key=lambda name: item.sources[name], default="")
    return Text(REASONS.get(best.split("_")[0], best), style="magenta")


def stages(feed: Feed) -> str:
    """What the four stages did, in a line."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in feed.stages.dropped.items()) or "nothing"
    return f"gathered {feed.stages.gathered}, dropped {dropped}, ranked {feed.stages.ranked}"


def title(feed: Feed) -> str:
    """What a feed is, in a few words, and when the event happened that it answers."""
    if not feed.version:
        return "the feed of strangers"
    since = f", as of {feed.cause.time[:16].replace('T', ' ')}" if feed.cause is not None and feed.cause.time else ""
    return f"their feed, version {feed.version}{since}"


def _figure(name: str, *values: str) -> RenderableType:
    return Group(Text(name, style="dim"), Text("  ".join(values) or "-", style="bold"))


def _rates(live: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, value) for name, value in live.items() if name != "events"] if live.get("events") else []


def _ms(value: float) -> str:
    return f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def _pairs(values: Mapping[str, float], form: str) -> str:
    """Two spaces between pairs, none within: a line may break only between them."""
    return "  ".join(form.format(name, value) for name, value in values.items())
