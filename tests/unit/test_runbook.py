"""docs/runbook.md knows every alarm that the code can raise, and no command that does not exist."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from workers.cli import run

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
QUOTED = set(re.findall(r"`([^`\n]+)`", RUNBOOK))
COMMANDS = sorted(
    {line.split("#")[0].strip() for line in RUNBOOK.splitlines() if line.startswith("headrace ")}
    | {quoted for quoted in QUOTED if quoted.startswith("headrace ")}
)


def alarms() -> Iterator[str]:
    """The first words of everything that is logged as a warning or an error."""
    for file in (ROOT / "workers").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("warning", "error")
                and isinstance(node.args[0] if node.args else None, ast.Constant)
            ):
                yield str(ast.literal_eval(node.args[0]))


def test_every_alarm_has_its_line() -> None:
    """The words before a colon are enough."""
    found = sorted(set(alarms()))
    assert len(found) > 20
    unknown = [words for words in found if not any(words.startswith(quoted) for quoted in QUOTED if len(quoted) > 8)]
    assert unknown == []


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_exists_with_its_options(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` is answered only after all that stands before it was understood."""
    assert run([*shlex.split(line)[1:], "--help"]) == 0, capsys.readouterr().err


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert run(["offsets", "show", "--fast", "--help"]) == 2
    assert run(["offsets", "hide", "--help"]) == 2
    assert len(COMMANDS) > 15
