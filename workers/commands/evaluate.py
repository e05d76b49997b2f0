"""`headrace evaluate PATH`: how good the feeds would have been, event by event, and better than what."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from msgspec.structs import replace
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.evaluation.prequential import Outcomes, Prequential, Setup
from pipeline.evaluation.report import report
from pipeline.evaluation.stream import Stream
from pipeline.recipe import RECIPES
from workers.commands.shell import Shell, command
from workers.feeds import attributes_of
from workers.importers import formats
from workers.importers.stream import check, stream_of
from workers.settings import Settings, SettingsError

_EVERY = 50  # events between two looks at the progress bar


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


@command
def evaluate(
    shell: Shell,
    path: Annotated[Path, typer.Argument(help="A data set's official folder, or events as JSON lines (.jsonl, .gz).")],
    format: Annotated[str | None, typer.Option(metavar="|".join(formats.FORMATS), help="Default: found out.")] = None,
    items: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Items as JSON lines, there from the start.")
    ] = None,
    min_rating: Annotated[float | None, typer.Option(help="Ratings from here on are likes, others left out.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many events.")] = None,
    repeats: Annotated[bool, typer.Option("--repeats", help="Items may be recommended again.")] = False,
    sample: Annotated[str, typer.Option(metavar="1/N", help="Train on all events, query one in N.")] = "1/1",
    dim: Annotated[int | None, typer.Option(min=4, max=1024, help="Dimension of the embeddings.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Parts of the read path, by name.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    baselines: Annotated[bool, typer.Option(help="Measure plain methods in the same pass.")] = True,
) -> None:
    """Evaluate prequentially: query, compare with what came, learn, event by event."""
    settings = _settings(shell.settings, dim, recipe, seed, repeats=repeats)
    setup = _setup(settings, sample, baselines=baselines)
    stream = _stream(shell, path, format, items, min_rating, limit)
    outcomes = _run(stream, setup, path.name, bar=sys.stderr.isatty() and not shell.json)
    answer = report(outcomes, setup)
    shell.answer(answer, *_tables(answer))


def _settings(settings: Settings, dim: int | None, recipe: str | None, seed: int | None, *, repeats: bool) -> Settings:
    model, feed = settings.model, settings.feed
    return replace(
        settings,
        model=replace(
            model,
            dimension=model.dimension if dim is None else dim,
            seed=model.seed if seed is None else seed,
        ),
        feed=replace(feed, recipe=feed.recipe if recipe is None else recipe, repeats=feed.repeats or repeats),
    )


def _setup(settings: Settings, sample: str, *, baselines: bool) -> Setup:
    model, feed = settings.model, settings.feed
    if feed.recipe not in RECIPES:
        raise SettingsError(f"settings: --recipe: expected one of {', '.join(RECIPES)}, found {feed.recipe!r}")
    one, slash, n = sample.partition("/")
    if one != "1" or not slash or not n.isdecimal() or int(n) < 1:
        raise SettingsError(f"settings: --sample: expected 1/N such as 1/10, found {sample!r}")
    return Setup(
        recipe=RECIPES[feed.recipe](feed.size, feed.repeats),
        dimension=model.dimension,
        negatives=model.negatives,
        seed=model.seed,
        unlisted=feed.unlisted,
        sample=int(n),
        baselines=baselines,
        profile=attributes_of,
    )


def _stream(
    shell: Shell, path: Path, form: str | None, items: Path | None, min_rating: float | None, limit: int | None
) -> Stream:
    if form is not None and form not in formats.FORMATS:
        raise SettingsError(f"settings: --format: expected one of {', '.join(formats.FORMATS)}, found {form!r}")
    named = next((name for name in formats.FORMATS if name == form), None) or formats.detect(path)
    dataset = formats.read(path, named, min_rating, items, check)
    if dataset.left_out:
        shell.note(f"left out: {dataset.left_out}")
    stream, late = stream_of(dataset if limit is None else dataset.first(limit), shell.settings)
    if late:
        shell.note(
            f"{late:,} of {len(stream):,} events stood behind later ones: sorted by time, equal times as they stood"
        )
    return stream


def _run(stream: Stream, setup: Setup, name: str, *, bar: bool) -> Outcomes:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not bar, refresh_per_second=4) as progress:
        task = progress.add_task(name, total=len(stream))

        def done(events: int) -> None:
            if events % _EVERY == 0 or events == len(stream):
                progress.update(task, completed=events)

        return Prequential(stream, setup, time.perf_counter).run(done)


def _tables(answer: dict[str, Any]) -> list[Table]:
    table = Table("", "queries", "recall@10", "recall@20", "ndcg@10", "mrr", title="known users, if not said otherwise")
    rows = {"ranked": answer["known"], "ranked, all users": answer["all"], "arranged": answer["arranged"]}
    rows |= {f"baseline: {name}": figures for name, figures in answer["baselines"].items()}
    rows |= {"repeats": answer["repeats"], "first time": answer["first_time"]}
    for name, figures in rows.items():
        cells = [
            _number(figures[metric], figures["se"].get(metric))
            for metric in ("recall@10", "recall@20", "ndcg@10", "mrr")
        ]
        table.add_row(name, f"{figures['n']:,}", *cells)
    return [table]


def _number(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" + (f" ± {error:.4f}" if error is not None else "")
