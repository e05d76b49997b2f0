"""`./dev bench peers [--json] [--only NAME] [--set NAME] [--limit N]`: Headrace and other libraries in one loop.

Each library gets the events that Headrace gets, in the same order, and is asked before it learns from each. Of each
several settings are tried, on every data set anew; the best are kept, so that the libraries know what Headrace, which
has one configuration for all, does not: what comes out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tests.bench.lanes import machine
from tests.bench.peers.contest import TUNED_ON, Contest, Line, Task, headrace, told
from tests.bench.peers.deeds import deeds_of
from tests.bench.peers.recipes import ENTRIES, Entry
from workers.importers.dataset import DatasetError

TASKS = (
    Task("ml-100k", 5.0, repeats=False),
    Task("movietweetings", 8.0, repeats=False),
    Task("yoochoose100k", None, repeats=True),
)
HEADINGS = ("method", "settings kept", "recall@10", "ndcg@10", "Headrace ahead, recall@10", "learn, µs", "query, µs")
NOTES = (
    "Known users: events of users who had one before. Each event is predicted, then learned from; consumed items are "
    "not in the lists, but with repeats; equal scores share the middle of their ranks; an item that nobody took is a "
    "miss. ± is a standard error clustered by user, of a difference at the same queries.",
    "What a library cannot score (new users and items between its refits) stands behind what it can, by popularity.",
    f"Settings were compared on one query in {TUNED_ON} of the very stream that is measured, on each set anew, and "
    "the best kept: in favour of the libraries. Headrace has one configuration for all sets.",
    "Costs are CPU of one thread. Queries of river and of flurs' FM are scored by one matrix product over the "
    "library's parameters, not by the library's own loop over items, which takes up to a thousand times as long; "
    "Headrace's include candidates from all sources, filters and the ranker.",
    "implicit learns in batches: fitted anew every 1,000 events (neighbours: 500; sooner while there are few), users "
    "folded in at each query, items updated every 50 events. Its BPR and LMF cannot take in a user between fits: left "
    "out. So are flurs' UserKNN (a Python loop over users times items, each event) and its sketches (they need "
    "features of users and items), and river's RandomNormal.",
)


def main() -> None:
    """Run the contest."""
    asked = _arguments()
    chosen = tuple(entry for entry in ENTRIES if asked.only in (None, entry.library))
    missing = sorted({entry.library for entry in chosen if not entry.installed})
    if missing:
        _say(f"not installed, left out: {', '.join(missing)}")
    conditions = f"{machine()}; {_versions(chosen)}; load before: {os.getloadavg()[0]:.1f}; seed {asked.seed}"
    results: dict[str, Any] = {}
    if not asked.json:
        print(conditions)
    for task in TASKS:
        if asked.set in (None, task.folder):
            results[task.folder] = _one(task, asked, chosen)
    if asked.json:
        print(json.dumps({"conditions": conditions, "notes": NOTES, "missing": missing, "sets": results}))
    else:
        print("\n" + "\n".join(f"* {note}" for note in NOTES))


def _one(task: Task, asked: argparse.Namespace, chosen: tuple[Entry, ...]) -> dict[str, Any] | None:
    """One data set: its table, or its object."""
    try:
        stream = task.stream(asked.limit)
    except DatasetError as error:
        _say(f"left out: {error}")
        return None
    _say(f"{task}: {len(stream):,} events")
    ours = headrace(stream, task.repeats, asked.seed)
    deeds = deeds_of(stream, ours.event)
    contest = Contest(deeds, ours, task.repeats, asked.seed, _say, asked.minutes * 60)
    lines = []
    queries = int((deeds.history >= 1).sum())
    if not asked.json:
        print(f"\n**{task}**: {len(deeds):,} events, {queries:,} queries of known users\n")
        print(f"| {' | '.join(HEADINGS)} |\n|{'---|' * len(HEADINGS)}", flush=True)
    for line in contest.lines(chosen):
        lines.append(asdict(line))
        if not asked.json:
            print(f"| {' | '.join(_cells(line))} |", flush=True)
    return {"task": str(task), "events": len(deeds), "queries": queries, "methods": lines}


def _cells(line: Line) -> Iterator[str]:
    """A row of the table."""
    yield f"{line.library}: {line.name}" + (f" ({line.note})" if line.note else "")
    yield told(line.settings) + (f" (of {len(line.tried)})" if len(line.tried) > 1 else "")
    for metric in ("recall@10", "ndcg@10"):
        yield _number(line.figures[metric])
    ahead = line.behind["recall@10"]
    yield "" if line.library == "headrace" and not ahead["mean"] else f"{ahead['mean']:+.4f} ± {ahead['se'] or 0:.4f}"
    for cost in (line.learn_us, line.query_us):
        yield "" if cost is None else f"{cost:,.0f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _versions(chosen: tuple[Entry, ...]) -> str:
    found = []
    for library in dict.fromkeys(entry.library for entry in chosen):
        try:
            found.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            found.append(f"{library} not installed")
    return ", ".join(found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench peers", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--only", choices=sorted({entry.library for entry in ENTRIES}), help="this library only")
    parser.add_argument("--set", choices=[task.folder for task in TASKS], help="this data set only")
    parser.add_argument("--limit", type=int, help="at most so many events of each")
    parser.add_argument("--minutes", type=float, default=15, help="of CPU that one pass may take, then it is stopped")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
