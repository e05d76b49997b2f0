"""`./dev` on machines that lack something: one clear line each. And that both scripts pass shellcheck where it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = ("sh", "cat", "cksum", "dirname")
OLD = "exit 1"  # an interpreter that fails the version check
BARE = f'case "$2" in *ensurepip*) exit 1 ;; esac; exec {sys.executable} "$@"'  # one without venv


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a fresh clone has of the script's needs, and an empty PATH beside it."""
    (tmp_path / "requirements").mkdir()
    (tmp_path / "bin").mkdir()
    for name in ("dev", "pyproject.toml", "requirements/dev.txt", "requirements/audit.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(shutil.which(tool) or tool)
    return tmp_path


def dev(clone: Path, *words: str, **environ: str) -> tuple[int, list[str]]:
    """Exit code, and the last line said."""
    done = subprocess.run(
        [clone / "dev", *words],
        env={"PATH": str(clone / "bin"), "HOME": os.environ.get("HOME", "/"), **environ},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr.splitlines()[-1:]


def python(clone: Path, script: str) -> None:
    file = clone / "bin" / "python3"
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


def test_no_python(clone: Path) -> None:
    said = "dev: no Python >= 3.11 found; install one or name it: PYTHON=/path/to/python ./dev ..."
    assert dev(clone, "setup") == (1, [said])


def test_an_old_python(clone: Path) -> None:
    python(clone, OLD)
    said = "dev: no Python >= 3.11 found; install one or name it: PYTHON=/path/to/python ./dev ..."
    assert dev(clone, "test") == (1, [said])


def test_a_named_python_that_is_none(clone: Path) -> None:
    assert dev(clone, "setup", PYTHON="python9") == (1, ["dev: PYTHON=python9 is not a Python >= 3.11"])


def test_a_python_without_venv(clone: Path) -> None:
    python(clone, BARE)
    said = "dev: python3 has no venv module; install it (Debian, Ubuntu: apt-get install python3-venv)"
    assert dev(clone, "setup") == (1, [said])


def test_an_unknown_target(clone: Path) -> None:
    assert dev(clone, "demoo") == (1, ["dev: unknown target: demoo"])


def test_an_unknown_benchmark(clone: Path) -> None:
    ready(clone)
    said = "dev: bench: name one of tests/bench, e.g. ./dev bench lanes"
    assert dev(clone, "bench") == (1, [said])
    assert dev(clone, "bench", "nothing") == (1, [said])


def test_no_docker(clone: Path) -> None:
    assert dev(clone, "up") == (1, ["dev: docker with Compose v2 is needed for this target"])


def test_a_lock_that_changed_is_noticed(clone: Path) -> None:
    ready(clone)
    assert dev(clone, "setup") == (0, [])  # nothing to do, nothing said
    with (clone / "requirements" / "dev.txt").open("a") as lock:
        lock.write("# changed\n")
    assert dev(clone, "setup")[0] == 1  # it would install, and there is no Python


@pytest.mark.parametrize(
    ("words", "compiled"),
    [("", True), ("--require-real", True), ("--all", True), ("--all --require-real", True), ("-k some", False)],
)
def test_the_whole_suite_finds_its_kernels_compiled(clone: Path, words: str, compiled: bool) -> None:
    """As CI calls it, too: compiling takes longer on a busy machine than a test may."""
    ready(clone)
    headrace = clone / ".venv" / "bin" / "headrace"
    headrace.write_text("#!/bin/sh\n: >compiled\n")
    headrace.chmod(0o755)
    dev(clone, "test", *words.split())
    assert (clone / "compiled").exists() == compiled


UNASKED = "dev: check: advisories not asked about every locked version, see above; the rest is green"


@pytest.mark.parametrize(("audit", "code", "said"), [(0, 0, []), (1, 1, []), (3, 0, [UNASKED])])
def test_a_check_ends_with_the_advisories(clone: Path, audit: int, code: int, said: list[str]) -> None:
    ready(clone)
    for name in ("python", "ruff", "mypy", "lint-imports"):
        says(clone / ".venv", name, 0)
    ready(clone, ".venv-audit", "audit.txt")
    says(clone / ".venv-audit", "python", audit)
    assert dev(clone, "check") == (code, said)


def test_a_check_goes_without_advisories_where_their_tool_cannot_be_had(clone: Path) -> None:
    ready(clone)
    for name in ("python", "ruff", "mypy", "lint-imports"):
        says(clone / ".venv", name, 0)
    assert dev(clone, "check") == (0, [UNASKED])


def test_a_check_that_failed_is_no_matter_of_advisories(clone: Path) -> None:
    ready(clone)
    for name in ("ruff", "mypy", "lint-imports"):
        says(clone / ".venv", name, 0)
    assert dev(clone, "check") == (1, [])  # the tests


def ready(clone: Path, venv: str = ".venv", lock: str = "dev.txt") -> None:
    """An environment as `setup` leaves it: the stamp says what it was made from."""
    (clone / venv / "bin").mkdir(parents=True)
    (clone / venv / "pyvenv.cfg").write_text("version = 3.11\n")
    says(clone / venv, "python", 1)
    files = [clone / "requirements" / lock, clone / "pyproject.toml", clone / venv / "pyvenv.cfg"]
    sums = subprocess.run(["cksum", *files], capture_output=True, text=True, check=True).stdout
    (clone / venv / ".stamp").write_text(f"{clone} \n{sums}")


def says(venv: Path, command: str, code: int) -> None:
    """A command of an environment that only exits with `code`."""
    file = venv / "bin" / command
    file.write_text(f"#!/bin/sh\nexit {code}\n")
    file.chmod(0o755)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("script", ["dev", ".ci/run"])
def test_shellcheck(script: str) -> None:
    done = subprocess.run(["shellcheck", ROOT / script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
