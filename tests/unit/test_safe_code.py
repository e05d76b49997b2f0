"""Nothing that comes in is ever run: no pickle, no YAML objects, no eval, no shell; by ruff's rules and by syntax."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted([*(ROOT / "pipeline").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])
MODULES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml", "xml", "lxml"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen"}
SETTINGS = {"allow_pickle": True, "shell": True}


def risks(tree: ast.AST) -> Iterator[str]:
    """What of a module could run what it is given."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            bare = isinstance(node.func, ast.Name) or name in {"system", "popen"}
            if bare and name in CALLS:
                yield name
            for given in node.keywords:
                if given.arg in SETTINGS and not (isinstance(given.value, ast.Constant) and given.value.value is False):
                    yield str(given.arg)


def test_no_module_can_run_what_it_is_given() -> None:
    assert len(CODE) > 100
    found = {str(file.relative_to(ROOT)): list(risks(ast.parse(file.read_text()))) for file in CODE}
    assert {file: names for file, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from yaml import load", "import xml.etree.ElementTree", "eval('1')", "exec(x)",
        "os.system(x)", "np.load(f, allow_pickle=True)", "run(x, shell=flag)",
    ],
)  # fmt: skip
def test_a_risk_is_found(text: str) -> None:
    assert list(risks(ast.parse(text)))


def test_a_pattern_is_no_risk() -> None:
    assert list(risks(ast.parse("re.compile('x'); run(x, shell=False)"))) == []


def test_ruff_s_security_rules_hold_for_all_code() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in lint["select"]
    assert not [rule for rule in lint["ignore"] if rule.startswith("S") and rule[1:2].isdigit()]
    spared = [
        files for files, rules in lint["per-file-ignores"].items() if any(r == "S" or r[:2] == "S3" for r in rules)
    ]
    assert spared == ["tests/**"]
