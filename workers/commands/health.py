"""`headrace health`: is the worker of this machine or container alive, is it ready, how far is it behind?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workers.commands.shell import Shell, command
from workers.health import read_health
from workers.settings import SettingsError


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("health")(health)


@command
def health(
    shell: Shell,
    ready: Annotated[bool, typer.Option("--ready", help="Exit 1 too while its lanes have not claimed all.")] = False,
    max_lag: Annotated[
        int | None, typer.Option("--max-lag", metavar="RECORDS", min=0, help="Exit 1 too while it is further behind.")
    ] = None,
) -> int:
    """Exit 0 if a worker here is alive: it writes the health file every second."""
    file = shell.settings.health_file
    if not file:
        raise SettingsError("settings: health_file is not set: set it for the worker and for this command")
    found = read_health(Path(file))
    if found is None:
        shell.answer({"alive": False, "file": file}, f"no sign of life in {file}")
        return 1
    state = "ready" if found.ready else "not ready"
    shell.answer(
        {"alive": True, "ready": found.ready, "lag": found.lag, "file": file}, f"alive, {state}, lag {found.lag}"
    )
    wanted = (found.ready or not ready) and (max_lag is None or found.lag <= max_lag)
    return 0 if wanted else 1
