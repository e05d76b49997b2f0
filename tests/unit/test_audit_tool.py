"""What `./dev audit` makes of pip-audit's reports: an all-clear only where each version was asked about."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "tools" / "audit.py"
FINE = {"name": "numpy", "version": "2.1", "vulns": []}
BAD = {"name": "jinja2", "version": "2.0", "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}]}
SKIPPED = {"name": "numpy", "skip_reason": "Dependency not found on PyPI and could not be audited: numpy (2.1)"}
Report = list[dict[str, Any]] | None


@pytest.fixture(scope="module")
def audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("pypi", "osv", "code", "said"),
    [
        ([FINE], [FINE], 0, "asked about 1 versions, 0 have a known vulnerability"),
        ([FINE], None, 0, "no answer from osv"),
        ([SKIPPED], [FINE], 0, "asked about 1 versions"),
        ([FINE, BAD], None, 1, "jinja2: PYSEC-2019-217, mended in 2.10.1"),
        ([SKIPPED], [BAD], 1, "numpy: no all-clear"),
        ([SKIPPED], None, 3, "not known to any service: numpy: no all-clear"),
        ([FINE, {**SKIPPED, "name": "left"}], None, 3, "not known to any service: left"),
        (None, None, 3, "no answer from pypi, osv"),
    ],
)
def test_the_verdict(audit: Any, pypi: Report, osv: Report, code: int, said: str) -> None:
    found, lines = audit.judge("core.txt", [("pypi", pypi), ("osv", osv)])
    assert found == code
    assert any(said in line for line in lines), lines
    assert all(line.startswith("core.txt: ") for line in lines)
