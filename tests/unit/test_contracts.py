"""The import contracts of pyproject.toml hold, and each is seen to break when it is violated.

Every case plants one import in a copy of the tree and expects exactly the contracts named to break: a contract that
looks at nothing would pass for ever.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = {
    contract["id"]: contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}
# Contracts that one violation breaks, the file that gets the import, and the import.
VIOLATIONS = [
    ({"pipeline-layers"}, "pipeline/types.py", "import pipeline.state"),
    ({"pipeline-layers"}, "pipeline/model/rows.py", "import pipeline.retrieval"),
    ({"pipeline-layers"}, "pipeline/retrieval.py", "import pipeline.recipe"),
    ({"pipeline-layers"}, "pipeline/recipe.py", "import pipeline.evaluation"),
    ({"pipeline-layers"}, "pipeline/nowhere.py", "import pipeline.types"),
    ({"pipeline-layers", "recipe", "parts"}, "pipeline/catalog.py", "import pipeline.sources.fresh"),
    ({"workers-layers"}, "workers/settings.py", "import workers.store"),
    ({"workers-layers"}, "workers/lane.py", "import workers.embedding"),
    ({"workers-layers"}, "workers/wire/item.py", "import workers.kafka"),
    ({"workers-layers"}, "workers/nowhere.py", "import workers.settings"),
    ({"pure"}, "pipeline/state.py", "import json"),
    ({"pure"}, "pipeline/model/sequence.py", "import random"),
    ({"pure"}, "pipeline/retrieval.py", "from time import time"),
    ({"pure"}, "pipeline/learning.py", "import workers.settings"),
    ({"pure", "redis"}, "pipeline/filters/available.py", "import redis"),
    ({"parts", "recipe", "pipeline-layers"}, "pipeline/sources/trending.py", "import pipeline.filters.available"),
    ({"parts"}, "pipeline/sources/trending.py", "import pipeline.sources.fresh"),
    ({"recipe"}, "pipeline/retrieval.py", "import pipeline.sources.fresh"),
    ({"recipe"}, "workers/retrieval.py", "import pipeline.filters.available"),
    ({"faust"}, "workers/lane.py", "import faust"),
    ({"faust"}, "workers/embedding.py", "from mode import Service"),
    ({"redis"}, "workers/embedding.py", "import redis.asyncio"),
    ({"redis"}, "workers/embedded.py", "import hiredis"),
    ({"kafka"}, "workers/embedding.py", "import aiokafka"),
    ({"kafka"}, "workers/store/store.py", "from aiokafka import TopicPartition"),
]


def copy_of_the_tree(to: Path) -> None:
    for package in ("pipeline", "workers"):
        shutil.copytree(ROOT / package, to / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", to)


def broken(tree: Path) -> tuple[int, set[str], str]:
    """Exit code, ids of the broken contracts, and the whole answer."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"]
    answer = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=60, check=False)
    names = set(re.findall(r"^(.+?) BROKEN", answer.stdout, re.MULTILINE))
    return answer.returncode, {key for key, name in CONTRACTS.items() if name in names}, answer.stdout + answer.stderr


def test_every_contract_holds(tmp_path: Path) -> None:
    copy_of_the_tree(tmp_path)
    code, found, answer = broken(tmp_path)
    assert (code, found) == (0, set()), answer
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in answer


@pytest.mark.parametrize(
    ("expected", "file", "planted"), VIOLATIONS, ids=[f"{file}-{line}" for _, file, line in VIOLATIONS]
)
def test_a_violation_breaks_its_contracts(tmp_path: Path, expected: set[str], file: str, planted: str) -> None:
    copy_of_the_tree(tmp_path)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{planted}\n")
    code, found, answer = broken(tmp_path)
    assert (code, found) == (1, expected), answer


def test_every_contract_is_violated_above() -> None:
    assert set().union(*(expected for expected, _, _ in VIOLATIONS)) == set(CONTRACTS)


def test_the_environment_is_read_in_three_files() -> None:
    reads = re.compile(r"\bos\.(environ|getenv)\b|\bfrom os import\b")
    found = {
        str(file.relative_to(ROOT))
        for package in ("pipeline", "workers")
        for file in (ROOT / package).rglob("*.py")
        if reads.search(file.read_text())
    }
    assert found == {"workers/settings.py", "workers/failpoints.py", "workers/kernels.py"}
