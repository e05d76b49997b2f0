"""What every command shares: the flags for settings, `--json`, and where answers go."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import msgspec
import structlog
import typer
from rich.console import Console, RenderableType

from workers.settings import Settings, SettingsError, load

P = ParamSpec("P")

_WIDE = 240  # columns of an answer that goes to a file or a pipe: its lines are not to be broken

FLAGS = {  # flag -> the setting that it gives
    "prefix": "prefix",
    "broker": "kafka_bootstrap",
    "store": "store_url",
    "clock": "clock",
}


@dataclass(frozen=True, slots=True)
class Shell:
    """A command's surroundings: settings, and how it answers."""

    settings: Settings
    json: bool  # answer in JSON, an object a line
    config: Path | None  # the settings file that was named
    flags: Mapping[str, Any]  # settings given by flags, by flat name

    @property
    def given(self) -> frozenset[str]:
        """Settings that flags give, by flat name."""
        return frozenset(name for name, value in self.flags.items() if value is not None)

    def on_stream(self, flags: Mapping[str, Any]) -> Settings:
        """The settings with more flags, which win; clock = stream where nothing that is given names one."""
        return load(self.config, flags={**self.flags, **flags}, clock="stream")

    def answer(self, value: Any, *readable: RenderableType) -> None:
        """Answer on stdout: `value` as JSON if that was asked for, else the readable form."""
        if self.json:
            sys.stdout.buffer.write(msgspec.json.encode(value) + b"\n")
            sys.stdout.buffer.flush()
        else:
            terminal = sys.stdout.isatty()
            console = Console(soft_wrap=not terminal, width=None if terminal else _WIDE)
            for part in readable:
                console.print(part, highlight=False)

    def note(self, text: str) -> None:
        """Say something beside the answer, on stderr."""
        Console(stderr=True, soft_wrap=True).print(text, highlight=False, markup=False)


def command(function: Callable[Concatenate[Shell, P], int | None]) -> Callable[..., int | None]:
    """Make `function(shell, ...)` a command with the shared flags beside its own. What it returns is the exit code."""

    @functools.wraps(function)
    def called(**arguments: Any) -> int | None:
        config: Path | None = arguments.pop("config")
        flags = {setting: arguments.pop(flag) for flag, setting in FLAGS.items()}
        flags |= dict(_assignments(arguments.pop("set")))
        shell = Shell(load(config, flags=flags), arguments.pop("json"), config, flags)
        _log(worker=function.__name__ == "worker")
        return function(shell, **arguments)  # type: ignore[call-arg]

    own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]
    shared = list(inspect.signature(_shared, eval_str=True).parameters.values())
    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own + shared]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called


def _shared(
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="Settings file; default headrace.toml.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Prefix of topics and keys.")] = None,
    broker: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Kafka bootstrap servers.")] = None,
    store: Annotated[str | None, typer.Option(metavar="URL", help="Redis or Valkey.")] = None,
    clock: Annotated[str | None, typer.Option(metavar="wall|stream", help="Whose time counts.")] = None,
    set: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Any other setting.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """The flags that every command has."""


def _log(*, worker: bool) -> None:
    """Logs go to stderr. A worker's are for machines, an object a line, unless it runs in a terminal."""
    terminal = sys.stderr.isatty()
    readable = structlog.dev.ConsoleRenderer(colors=terminal)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    if not worker:
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # we say ourselves what cannot be reached
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer() if worker and not terminal else readable,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO if worker else logging.WARNING),
        # Asked anew for each line: a live view may have put itself in the place of stderr.
        logger_factory=lambda *_: structlog.WriteLogger(sys.stderr),
    )


def _assignments(texts: list[str] | None) -> Iterator[tuple[str, str]]:
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise SettingsError(f"settings: --set {text}: expected NAME=VALUE, such as feed_size=20")
        yield name, value
