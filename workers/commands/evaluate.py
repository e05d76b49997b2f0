"""`headrace evaluate PATH`: how good the feeds would have been, event by event, and better than what."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.prequential import Prequential, Setup
from pipeline.evaluation.report import difference, report
from pipeline.evaluation.stream import Stream
from pipeline.types import POSITIVE
from workers.commands import curves, figures
from workers.commands.shell import Shell, command
from workers.feeds import attributes_of
from workers.importers import formats
from workers.importers.stream import Reading, checker, stream_of
from workers.recipes import recipe_of
from workers.settings import Settings, SettingsError, load
from workers.wire.errors import shown

_NAMED = 3  # actions that a note names
_EVERY = 50  # events between two looks at the progress bar


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate")(evaluate)


@command
def evaluate(
    shell: Shell,
    path: Annotated[Path, typer.Argument(help="A data set's official folder, or events as JSON lines (.jsonl, .gz).")],
    format: Annotated[
        str | None, typer.Option(metavar="|".join(formats.FORMATS), help="Default: by the files' names.")
    ] = None,
    items: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Items as JSON lines, there from their published_at on, else at once."),
    ] = None,
    min_rating: Annotated[
        float | None, typer.Option(help="Ratings from here on are likes, others are left out.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many events.")] = None,
    repeats: Annotated[bool, typer.Option("--repeats", help="Consumed items may be recommended again.")] = False,
    sample: Annotated[str, typer.Option(metavar="1/N", help="Learn from all events, query one in N.")] = "1/1",
    dim: Annotated[int | None, typer.Option(min=4, max=1024, help="Dimension of the embeddings.")] = None,
    recipe: Annotated[str | None, typer.Option(metavar="NAME", help="The parts of the read path.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is drawn.")] = None,
    baselines: Annotated[bool, typer.Option(help="Measure plain methods in the same pass.")] = True,
    dims: Annotated[str | None, typer.Option(metavar="16,32,...", help="Also with these dimensions.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="DIR", help="Write pictures of it (PNG, SVG).")] = None,
    compare: Annotated[
        tuple[Path, Path] | None, typer.Option(metavar="A.toml B.toml", help="Two settings files, event by event.")
    ] = None,
) -> None:
    """Evaluate prequentially: each event is first predicted, then learned from."""
    flags = {"model_dimension": dim, "model_seed": seed, "feed_recipe": recipe, "feed_repeats": repeats or None}
    run = Run(shell, Source(path, format, items, min_rating, limit), flags, _one_in(sample), baselines)
    sizes = _dimensions(dims)
    if compare is not None:
        if plot is not None or sizes:
            raise SettingsError("settings: --compare: expected neither --plot nor --dims beside it")
        answer = run.compared(*compare)
        shell.answer(answer, *figures.compared(answer))
        return
    if plot is not None:
        curves.ready(plot)
    _one(shell, run, sizes, plot)


def _one(shell: Shell, run: Run, sizes: list[int], plot: Path | None) -> None:
    """One run, perhaps with other dimensions beside it and pictures of it."""
    settings = run.settings(shell.config)
    stream, setup = run.stream(settings), run.setup(settings)
    outcomes = run.outcomes(stream, setup)
    answer = report(outcomes, setup)
    by_dimension: dict[str, Any] = {}
    for size in sizes:
        at_size = replace(setup, dimension=size, baselines=False)
        found = answer if size == setup.dimension else report(run.outcomes(stream, at_size), at_size)
        by_dimension[str(size)] = {name: found[name] for name in ("known", "all", "arranged", "us_per_event")}
    if by_dimension:
        answer["by_dimension"] = by_dimension
    for file in curves.draw(plot, outcomes, answer, by_dimension) if plot is not None else ():
        shell.note(f"wrote {file}")
    shell.answer(answer, *figures.tables(answer), *([figures.dimensions(by_dimension)] if by_dimension else []))


@dataclass(frozen=True, slots=True)
class Source:
    """Where the events come from."""

    path: Path
    form: str | None
    items: Path | None
    min_rating: float | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class Run:
    """Evaluates one source, under one or two settings."""

    shell: Shell
    source: Source
    flags: dict[str, Any]  # settings that this command's own flags give
    sample: int
    baselines: bool

    def settings(self, file: Path | None) -> Settings:
        """The settings in `file`; flags win. Raises SettingsError."""
        settings = load(file, flags={**self.shell.flags, **self.flags})
        recipe_of(settings)  # a mistake is said before the events are read
        return settings

    def setup(self, settings: Settings) -> Setup:
        """What is evaluated under `settings`."""
        model, feed = settings.model, settings.feed
        return Setup(
            recipe=recipe_of(settings),
            dimension=model.dimension,
            negatives=model.negatives,
            seed=model.seed,
            unlisted=feed.unlisted,
            sample=self.sample,
            baselines=self.baselines,
            profile=attributes_of,
        )

    def stream(self, settings: Settings) -> Stream:
        """The events, by time. Raises DatasetError."""
        path, source, note = self.source.path, self.source, self.shell.note
        form = formats.named(source.form) if source.form is not None else formats.detect(path)
        dataset = formats.read(path, form, source.min_rating, source.items, checker(settings))
        if dataset.left_out:
            note(f"left out: {dataset.left_out}")
        read = stream_of(dataset if source.limit is None else dataset.first(source.limit), settings)
        for doubt in _doubts(read):
            note(doubt)
        return read.stream

    def outcomes(self, stream: Stream, setup: Setup) -> Outcomes:
        """One pass, with a progress bar on a terminal."""
        bar = sys.stderr.isatty() and not self.shell.json
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), disable=not bar, refresh_per_second=4) as progress:
            task = progress.add_task(f"{self.source.path.name}, k={setup.dimension}", total=len(stream))
            done = _rarely(lambda events: progress.update(task, completed=events), len(stream))
            outcomes = Prequential(stream, setup, time.process_time).run(done)
        if outcomes.reset:
            self.shell.note(f"{outcomes.reset:,} rows of the model were not finite and began anew")
        return outcomes

    def compared(self, a: Path, b: Path) -> dict[str, Any]:
        """Both settings over the same events, and how far B is ahead."""
        runs, reports = [], []
        for file in (a, b):
            settings = self.settings(file)
            setup = self.setup(settings)
            runs.append(self.outcomes(self.stream(settings), setup))
            reports.append(report(runs[-1], setup))
        return {"a": reports[0], "b": reports[1], "difference": difference(*runs)}


def _doubts(read: Reading) -> Iterator[str]:
    """What someone should know of their events who wonders at the figures."""
    stream, n = read.stream, f"{len(read.stream):,}"
    if read.late:
        yield f"{read.late:,} of {n} events stood behind later ones: taken in the order of their times"
    if read.unknown:
        names = ", ".join(f"{shown(name)} {count:,}" for name, count in read.unknown.most_common(_NAMED))
        more = ", ..." if len(read.unknown) > _NAMED else ""
        yield (
            f"{read.unknown.total():,} of {n} events have actions that mean nothing here ({names}{more}) and teach "
            "nothing: settings give them a meaning, [actions.NAME]"
        )
    if len(stream) and not (stream.effect & POSITIVE).any():
        yield f"none of {n} events has an action of a weight above 0: there is nothing to predict"


def _rarely(progress: Callable[[int], None], total: int) -> Callable[[int], None]:
    def done(events: int) -> None:
        if events % _EVERY == 0 or events == total:
            progress(events)

    return done


def _one_in(sample: str) -> int:
    one, slash, n = sample.partition("/")
    if one.strip() != "1" or not slash or not n.strip().isdecimal() or int(n) < 1:
        raise SettingsError(f"settings: --sample: expected 1/N, such as 1/10, found {sample!r}")
    return int(n)


def _dimensions(dims: str | None) -> list[int]:
    """The sizes named, each once, ascending."""
    texts = [text.strip() for text in dims.split(",")] if dims is not None else []
    if not all(text.isdecimal() and 4 <= int(text) <= 1024 for text in texts):
        raise SettingsError(f"settings: --dims: expected numbers of 4 to 1024, such as 16,32,64, found {dims!r}")
    return sorted({int(text) for text in texts})
