"""`headrace`: the command line. Every mistake is one line on stderr.

Exit codes: 0 done; 1 it could not be done now (broker or store missing, a worker that had to end); 2 a mistake in what
was asked (arguments, settings, files); 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module

import typer

from workers import kernels

# Command -> its module, loaded when it is called: `headrace health` must not wait for numba.
COMMANDS = {
    "worker": "worker",
    "topics": "topics",
    "store": "store",
    "import": "imports",
    "feed": "feed",
    "users": "users",
    "forget": "forget",
    "verify": "verify",
    "offsets": "offsets",
    "dead-letters": "dead_letters",
    "evaluate": "evaluate",
    "demo": "demo",
    "health": "health",
}
OURS = ("workers.", "pipeline.")


def application(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The application with these commands."""
    app = typer.Typer(
        name="headrace",
        help="A streaming recommendation pipeline: events in on Kafka, refreshed feeds out.",
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for name in names:
        module = import_module(f"workers.commands.{COMMANDS[name]}")
        module.register(app)
    return app


def _root() -> None:
    """A callback makes even a single command a named one."""


def main(arguments: list[str] | None = None) -> None:
    """Run a command line and exit."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run a command line; the exit code."""
    kernels.prepare()
    called = arguments[0] if arguments else ""
    app = application([called] if called in COMMANDS else COMMANDS)
    try:
        return app(args=arguments, prog_name="headrace", standalone_mode=False) or 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except Exception as error:
        return _say(error)


def _say(error: Exception) -> int:
    """One line for what a person can mend; anything else is a defect and keeps its traceback."""
    usage = getattr(error, "format_message", None)  # how typer's own errors tell their text
    if usage is not None:
        message, code = f"{usage()} (headrace --help)", 2
    elif str(getattr(error, "message", "")).endswith("AUTHORIZATION_FAILED"):  # how Kafka's client says what is refused
        message, code = f"kafka: this user may not: {error.message} ({error}); docs/security.md has what each may", 1  # type: ignore[attr-defined]
    elif type(error).__module__.startswith(OURS):
        message, code = str(error), 2 if isinstance(error, ValueError) else 1
    else:
        raise error
    print("headrace:", " ".join(message.split()), file=sys.stderr)  # noqa: T201 - the command line's own voice
    return code


if __name__ == "__main__":
    main()
