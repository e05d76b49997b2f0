"""`headrace health`: is the worker of this machine or container alive?"""

from __future__ import annotations

from pathlib import Path

import typer

from workers.commands.shell import Shell, command
from workers.health import alive
from workers.settings import SettingsError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("health")(health)


@command
def health(shell: Shell) -> int:
    """Exit 0 if a worker here is alive: it touches the health file every second."""
    file = shell.settings.health_file
    if not file:
        raise SettingsError("settings: health_file is not set: set it for the worker and for this command")
    living = alive(Path(file))
    shell.answer({"alive": living, "file": file}, "alive" if living else f"no sign of life in {file}")
    return 0 if living else 1
