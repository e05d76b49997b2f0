"""The locks under requirements/ hold what pyproject.toml asks for: nobody forgot `./dev lock`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
GROUPS: dict[str, list[str]] = PYPROJECT["dependency-groups"]
CORE: list[str] = PYPROJECT["project"]["dependencies"]
BUILD = [*GROUPS["build"], *PYPROJECT["build-system"]["requires"]]
# Lock -> what `./dev lock` makes it from.
MADE_FROM = {
    "core": CORE,
    "embedded": [*CORE, *EXTRAS["embedded"]],
    "build": BUILD,
    "audit": [*GROUPS["audit"], *BUILD],
    "dev": [*CORE, *EXTRAS["dev"], *BUILD],
    "plots": [*CORE, *EXTRAS["plots"]],
    "peers": [*CORE, *EXTRAS["dev"], *EXTRAS["peers"], *BUILD],
}


def needed(asked: Iterable[str]) -> list[tuple[str, str]]:
    """Name and, where one is asked for, exact version of each requirement; our own extras are what they name."""
    found = []
    for line in asked:
        name, extras, version = re.fullmatch(r"([\w.-]+)(?:\[(.*)\])?(?:==([\w.]+))?.*", line).groups()  # type: ignore[union-attr]
        if name == "headrace":
            found += [one for extra in extras.split(",") for one in needed(EXTRAS[extra])]
        else:
            found.append((name, version or ""))
    return found


def locked(lock: str) -> dict[str, str]:
    """Name -> version."""
    text = (ROOT / f"requirements/{lock}.txt").read_text()
    return dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))


def test_every_lock_is_known() -> None:
    assert {path.stem for path in (ROOT / "requirements").glob("*.txt")} == set(MADE_FROM)


@pytest.mark.parametrize("lock", MADE_FROM)
def test_a_lock_holds_what_is_asked_for(lock: str) -> None:
    pins = locked(lock)
    for name, version in needed(MADE_FROM[lock]):
        assert name in pins, f"requirements/{lock}.txt lacks {name}: run ./dev lock"
        assert pins[name] == (version or pins[name]), f"requirements/{lock}.txt pins another {name}: run ./dev lock"


def test_locks_agree() -> None:
    """Tests run with what is shipped."""
    dev = locked("dev")
    for lock in ("core", "embedded", "build"):
        assert locked(lock).items() <= dev.items()
