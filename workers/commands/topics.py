"""`headrace topics apply|show`: the topics of a prefix, made and compared with their declaration."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import typer
from rich.table import Table

from workers import topics
from workers.commands.shell import Shell, command


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The topics of a prefix.")
    group.command("apply")(apply)
    group.command("show")(show)
    app.add_typer(group, name="topics")


@command
def apply(shell: Shell) -> int:
    """Create the missing topics and report how all compare with their declaration; what exists is not changed."""
    created, standings = asyncio.run(topics.apply(shell.settings))
    shell.note(f"created {len(created)} of {len(standings)} topics")
    return _answer(shell, standings)


@command
def show(shell: Shell) -> int:
    """Compare the topics with their declaration. Exit 1 if one is missing or differs."""
    return _answer(shell, asyncio.run(topics.show(shell.settings)))


def _answer(shell: Shell, standings: list[topics.Standing]) -> int:
    table = Table("topic", "partitions", "cleanup", "found", box=None)
    for standing in standings:
        topic = standing.topic
        table.add_row(topic.name, str(topic.partitions), topic.config["cleanup.policy"], "\n".join(_found(standing)))
    shell.answer([_row(standing) for standing in standings], table)
    return 0 if all(standing.exists and not standing.differences for standing in standings) else 1


def _found(standing: topics.Standing) -> Iterable[str]:
    if not standing.exists:
        return ["missing"]
    return standing.differences or ["as declared"]


def _row(standing: topics.Standing) -> dict[str, object]:
    topic = standing.topic
    return {
        "topic": topic.name,
        "partitions": topic.partitions,
        "config": dict(topic.config),
        "exists": standing.exists,
        "differences": standing.differences,
    }
