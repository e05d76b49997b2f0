"""`headrace demo`: the whole path live, on an embedded broker and store or on given ones."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from rich.console import Console
from rich.live import Live

from workers import embedded
from workers.commands.shell import Shell, command
from workers.demo.demo import Plan, Show, flawless, play
from workers.importers import movielens
from workers.importers.dataset import Again, Dataset
from workers.importers.play import checker
from workers.outside import screen
from workers.recipes import recipe_of
from workers.settings import Settings
from workers.world.world import World

LINES_EVERY_S = 5.0  # where there is no terminal
FRAMES_EVERY_S = 0.25
ENDLESS = 1 << 62  # events


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


@command
def demo(
    shell: Shell,
    events: Annotated[int | None, typer.Option(min=1, help="Play so many events; default all there are.")] = None,
    rate: Annotated[float, typer.Option(min=0.1, help="Events a second.")] = 100.0,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Replay MovieLens 100K from this folder.")] = None,
    seed: Annotated[int, typer.Option(help="Of the synthetic world, which is played without --data.")] = 1,
    leave: Annotated[bool, typer.Option("--exit", help="End when all is played and answered.")] = False,
    external: Annotated[
        bool, typer.Option("--external", help="Use the broker and store of the settings, not embedded ones.")
    ] = False,
    workers: Annotated[bool, typer.Option(help="Run the roles here; without: play to workers that run.")] = True,
) -> int:
    """Play a synthetic world, or real ratings, through every role, and watch feeds follow events.

    Events keep the times of the data (clock = stream); under --clock wall they happen now, as they do with --no-workers
    unless the settings name a clock. Starts a broker and a store of its own unless --external, --broker or --store is
    given. Exit 1 if anything was lost, refused or left behind.
    """
    recipe_of(shell.settings)  # a mistake is said before a broker is started
    own = not (external or shell.given & {"kafka_bootstrap", "store_url"})
    with embedded.pair() if own else contextlib.nullcontext() as pair:
        settings = shell.on_stream(pair.flags()) if pair is not None else _apart(shell, workers=workers)
        dataset = _dataset(settings, data, seed)
        if not own:
            shell.note(f"prefix {settings.prefix}")
        plan = Plan(
            title=f"Headrace: {dataset.name}",
            dataset=dataset.first(events) if events is not None else dataset,
            rate=rate,
            host=workers,
            stay=not leave,
            broker=f"{'embedded ' if own else ''}{settings.kafka.bootstrap}",
        )
        with _display(shell) as (show, every_s), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            report = runner.run(play(settings, plan, show, every_s))
    shell.answer(report, *_readable(report))
    return 0 if flawless(report) else 1


def _apart(shell: Shell, *, workers: bool) -> Settings:
    """Settings for a given broker and store: a prefix of its own a run, unless one is given or workers run there.

    Workers that run there have their clock already: the one of the settings, as they have them.
    """
    if not workers:
        return shell.settings
    if shell.settings.prefix != Settings().prefix or "prefix" in shell.given:
        return shell.on_stream({})
    return shell.on_stream({"prefix": f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"})


def _dataset(settings: Settings, data: Path | None, seed: int) -> Dataset:
    """What to play. Under clock = wall it happens now, whenever it happened."""
    if data is not None:
        dataset = movielens.read(data, check=checker(settings))
    else:
        world = World(seed)
        dataset = Dataset(
            f"a synthetic world (seed {seed})",
            catalog=[("item", item) for item in world.items()],
            stream=Again(lambda: world.stream(ENDLESS)),
        )
    return dataset.now() if settings.clock == "wall" else dataset


@contextlib.contextmanager
def _display(shell: Shell) -> Iterator[tuple[Show | None, float]]:
    """Where figures go and how often: a live view in a terminal, lines elsewhere, nowhere with --json."""
    console = Console()
    if shell.json:
        yield None, FRAMES_EVERY_S
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda figures: live.update(screen.dashboard(figures), refresh=True), FRAMES_EVERY_S
    else:
        yield lambda figures: print(screen.line(figures), flush=True), LINES_EVERY_S  # noqa: T201


def _readable(report: dict[str, Any]) -> list[str]:
    latency = "  ".join(f"{name} {ms:g} ms" for name, ms in report["event_to_feed_ms"].items())
    live = report["live"]
    rates = "  ".join(f"{name} {live[name]:.3f}" for name in ("recall@10", "ndcg@10") if name in live)
    counts = "{events:,} events of {users:,} users, {items:,} items: {feeds:,} feeds"
    return [
        counts.format(**report),
        f"event to feed: {latency}",
        f"served before each event: {rates} ({live.get('events', 0):,} events)",
        "dead letters {dead_letters}, lag {lag}, stale users {stale_users}, unannounced {unannounced}".format(**report),
        f"on {report['broker']} and {report['store']}",
    ]
