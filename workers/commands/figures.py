"""The figures of an evaluation, as tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

METRICS = ("recall@10", "recall@20", "ndcg@10", "mrr")
Report = Mapping[str, Any]  # as pipeline.evaluation.report gives it


def tables(report: Report) -> Iterator[Table | Text]:
    """All figures of one run."""
    yield Text(_headline(report))
    yield _quality(report)
    yield _groups("by history: positive events of the user before", report["by_history"])
    yield _groups("by the item's age: time since it was first seen", report["by_item_age"])
    yield _sources(report["by_source"])
    yield Text(_footer(report))


def dimensions(by_dimension: Mapping[str, Report]) -> Table:
    """Quality and cost of each dimension."""
    table = Table("dimension", *_headers(), "learn, µs", "query, µs", title="by dimension")
    for name, found in by_dimension.items():
        cost = found["us_per_event"]
        table.add_row(name, *_cells(found["known"]), _plain(cost["learn"], 0), _plain(cost["query"], 0))
    return table


def compared(answer: Report) -> Iterator[Table | Text]:
    """Two runs side by side, and how far the second is ahead."""
    yield Text(_headline(answer["a"]))
    table = Table("", *_headers(), title="known users: A, B, and B ahead of A at the same queries")
    for name in ("a", "b"):
        table.add_row(name.upper(), *_cells(answer[name]["known"]))
    for name, found in answer["difference"].items():
        table.add_row(f"B - A: {name}", *_differences(found))
    yield table


def _headline(report: Report) -> str:
    asked = f"{report['queries']:,} queries"
    if report["sample"] > 1:
        asked += f" (a fixed sample: one event in {report['sample']} was queried, all were learned from)"
    made = f"recipe {report['recipe']}, dimension {report['dimension']}, seed {report['seed']}"
    return f"{report['events']:,} events, {asked}; {made}"


def _quality(report: Report) -> Table:
    title = "known users, if not said otherwise; ± standard error clustered by user"
    table = Table("", "ahead of it", *_headers(), title=title)
    rows = {"ranked": "known", "ranked, with strangers": "all", "as arranged": "arranged"}
    rows |= {"repeats": "repeats", "first-time items": "first_time"}
    for name, key in rows.items():
        table.add_row(name, "", *_cells(report[key]))
    table.add_section()
    for name, found in report["baselines"].items():
        ahead = found["behind"]["recall@10"]
        table.add_row(f"baseline {name}", _number(ahead["mean"], ahead["se"], sign=True), *_cells(found))
    return table


def _groups(title: str, groups: Mapping[str, Report]) -> Table:
    table = Table("", *_headers(), title=title)
    for name, found in groups.items():
        table.add_row(name, *_cells(found))
    return table


def _sources(by_source: Mapping[str, Report]) -> Table:
    title = "by source: how often it proposed what was chosen, had a share in a hit@10, was alone behind one"
    table = Table("", "proposed", "hits", "alone", title=title)
    for name, found in by_source.items():
        table.add_row(name, *(_plain(found[key]) for key in ("proposed", "hits", "alone")))
    return table


def _footer(report: Report) -> str:
    cost = report["us_per_event"]
    return (
        f"coverage {_plain(report['coverage'])} of the catalogue, gini {_plain(report['gini'])}; "
        f"learn {_plain(cost['learn'], 0)} µs an event, query {_plain(cost['query'], 0)} µs"
    )


def _headers() -> tuple[str, ...]:
    return ("queries", *METRICS)


def _cells(found: Report) -> list[str]:
    """As `_headers` says."""
    return [f"{found['n']:,}", *(_number(found[metric], found["se"].get(metric)) for metric in METRICS)]


def _differences(found: Report) -> list[str]:
    means = (_number(found[metric]["mean"], found[metric]["se"], sign=True) for metric in METRICS)
    return [f"{found['n']:,}", *means]


def _number(value: float | None, error: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:{'+' if sign else ''}.4f}" + (f" ± {error:.4f}" if error is not None else "")


def _plain(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
