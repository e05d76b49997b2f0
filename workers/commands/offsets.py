"""`headrace offsets show`: where each lane stands in its topic."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import typer
from rich.table import Table

from workers.commands.shell import Shell, command
from workers.outside.offsets import Standing, standings


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="Where the lanes stand.")
    group.callback()(_root)
    group.command("show")(show)
    app.add_typer(group, name="offsets")


def _root() -> None:
    """A callback makes even a single command a named one."""


@command
def show(shell: Shell) -> int:
    """Show of each partition what the log holds, where its lane stands, and the lag. Exit 1 if a worker would refuse to
    start, or has lost something."""
    found = asyncio.run(standings(shell.settings))
    shell.answer([_row(one) for one in found], _table(found))
    for one in found:
        if one.problem:
            shell.note(f"{one.topic}[{one.partition}]: {one.problem}")
    return 1 if any(one.problem for one in found) else 0


def _row(one: Standing) -> dict[str, object]:
    return {**msgspec.to_builtins(one), "unsent": one.unsent}


def _table(found: Sequence[Standing]) -> Table:
    table = Table("topic", "partition", "log", "next", "lag", "unsent", "owner", box=None)
    for one in found:
        next_ = "-" if one.next is None else str(one.next)
        log = f"{one.begin}..{one.end}"
        unsent = "" if one.sent is None else str(one.unsent)
        table.add_row(one.topic, str(one.partition), log, next_, str(one.lag), unsent, one.owner)
    return table
