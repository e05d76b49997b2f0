"""`headrace worker ROLE`: run one role, or all of them in one process."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from workers import roles
from workers.commands.shell import Shell, command


class Role(StrEnum):
    """What a worker can be."""

    EMBEDDING = "embedding"
    TRAINER = "trainer"
    RETRIEVAL = "retrieval"
    CATALOG = "catalog"
    ALL = "all"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("worker")(worker)


@command
def worker(
    shell: Shell,
    role: Annotated[Role, typer.Argument(help="The role; `all` runs the four in one process.")],
    accept_loss: Annotated[
        bool, typer.Option("--accept-loss", help="Go on where the log no longer holds events that were never applied.")
    ] = False,
) -> None:
    """Run a worker until SIGTERM or Ctrl-C."""
    roles.run(shell.settings, roles.ROLES if role is Role.ALL else [role.value], accept_loss=accept_loss)
