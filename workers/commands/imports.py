"""`headrace import movielens|movietweetings|yoochoose|jsonl`: a data set into the topics `items` and `events`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from workers.commands.shell import Shell, command
from workers.importers import jsonl, movielens, movietweetings, yoochoose
from workers.importers.dataset import Dataset, fitting
from workers.importers.play import Player, checker
from workers.producer import Producer
from workers.settings import Settings

Rate = Annotated[float | None, typer.Option(min=0.001, help="Events a second; default as fast as it goes.")]
Limit = Annotated[int | None, typer.Option(min=1, help="At most so many events.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Write a data set to the topics.")
    group.command("movielens")(from_movielens)
    group.command("movietweetings")(from_movietweetings)
    group.command("yoochoose")(from_yoochoose)
    group.command("jsonl")(from_jsonl)
    app.add_typer(group, name="import")


@command
def from_movielens(
    shell: Shell,
    path: Annotated[Path, typer.Argument(help="The official MovieLens 100K folder.")],
    min_rating: Annotated[float, typer.Option(help="Ratings from here on become likes, others are left out.")] = 4.0,
    rate: Rate = None,
    limit: Limit = None,
) -> None:
    """Import MovieLens 100K: films as items, ratings as likes, in the order of their times."""
    _import(shell, movielens.read(path, min_rating, checker(shell.settings)), rate, limit)


@command
def from_movietweetings(
    shell: Shell,
    path: Annotated[Path, typer.Argument(help="The official MovieTweetings folder.")],
    min_rating: Annotated[float, typer.Option(help="Ratings (of 10) from here on become likes.")] = 8.0,
    rate: Rate = None,
    limit: Limit = None,
) -> None:
    """Import MovieTweetings: films as items, ratings as likes, in the order of their times."""
    _import(shell, movietweetings.read(path, min_rating, checker(shell.settings)), rate, limit)


@command
def from_yoochoose(
    shell: Shell,
    path: Annotated[Path, typer.Argument(help="yoochoose-clicks.dat, or a folder with it or its usual excerpt.")],
    rate: Rate = None,
    limit: Limit = None,
) -> None:
    """Import YooChoose clicks: sessions as users, in the order of their times."""
    _import(shell, yoochoose.read(path, checker(shell.settings)), rate, limit)


@command
def from_jsonl(
    shell: Shell,
    path: Annotated[Path, typer.Argument(help="Event data objects, one a line; .gz is read too.")],
    items: Annotated[Path | None, typer.Option(metavar="FILE", help="Item data objects, written before.")] = None,
    rate: Rate = None,
    limit: Limit = None,
) -> None:
    """Import JSON lines: data objects as the docs describe them, in the order of the file."""
    _import(shell, jsonl.read(path, items, checker(shell.settings)), rate, limit)


def _import(shell: Shell, dataset: Dataset, rate: float | None, limit: int | None) -> None:
    if limit is not None:
        dataset = dataset.first(limit)
    survey = dataset.survey()  # whatever is wrong is found here, before anything is written
    if dataset.left_out:
        shell.note(f"left out: {dataset.left_out}")
    shift = fitting(survey, now=round(time.time() * 1000)) if shell.settings.clock == "wall" else None
    if shift is not None:
        dataset = shift.apply(dataset)
        shell.note(f"the clock is wall: {shift}")
    started = time.perf_counter()
    bar = sys.stderr.isatty() and not shell.json
    asyncio.run(_write(shell.settings, dataset, rate, survey.items + survey.events, bar=bar))
    seconds = time.perf_counter() - started
    answer = {
        "items": survey.items,
        "events": survey.events,
        "left_out": dataset.left_out,
        "shifted": str(shift) if shift is not None else None,
        "seconds": round(seconds, 3),
    }
    shell.answer(answer, f"{survey.items:,} items and {survey.events:,} events of {dataset.name} in {seconds:.1f} s")


async def _write(settings: Settings, dataset: Dataset, rate: float | None, total: int, *, bar: bool) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    producer = Producer(settings)
    await producer.start()
    try:
        with Progress(*columns, console=Console(stderr=True), disable=not bar, refresh_per_second=4) as progress:
            task = progress.add_task(dataset.name, total=total)
            player = Player(settings, producer, lambda moments, _: progress.advance(task, len(moments)))
            await player.play(dataset.catalog)
            await player.play(dataset.stream, rate)
    finally:
        await producer.stop()
