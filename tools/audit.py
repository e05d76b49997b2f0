#!/usr/bin/env python3
"""Ask advisory services about every version that requirements/*.txt pin: `./dev audit`.

pip-audit asks PyPI's and OSV's. Exit 0: each version was asked about, and nothing is known against it; 1: a known
vulnerability; 3: some could not be asked about, which is no all-clear. (pip-audit itself exits 0 with "no known
vulnerabilities" where a registry answers that it has no advisories of anything.)
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parents[1] / "requirements"
SERVICES = ("pypi", "osv")
CLEAR, VULNERABLE, UNKNOWN = 0, 1, 3
_ASK_WITHIN_S = 600
_SHOWN = 5  # names in a line


def ask(lock: Path, service: str) -> list[dict[str, Any]] | None:
    """What pip-audit says of each dependency of a lock; None = the service does not answer."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
        command += [
            "--requirement",
            str(lock),
            "--vulnerability-service",
            service,
            "--format",
            "json",
            "--output",
            str(out),
        ]
        subprocess.run(command, capture_output=True, timeout=_ASK_WITHIN_S, check=False)  # noqa: S603 - words of ours
        if not out.exists() or not out.read_text():
            return None
        found: list[dict[str, Any]] = json.loads(out.read_text())["dependencies"]
        return found


def judge(lock: str, reports: Iterable[tuple[str, list[dict[str, Any]] | None]]) -> tuple[int, list[str]]:
    """The exit code and what to say of one lock, of the reports by service."""
    known: dict[str, list[dict[str, Any]]] = {}
    names: set[str] = set()
    silent = []
    for service, dependencies in reports:
        if dependencies is None:
            silent.append(service)
        for dependency in dependencies or ():
            names.add(dependency["name"])
            if "skip_reason" not in dependency:
                known.setdefault(dependency["name"], []).extend(dependency["vulns"])
    vulnerable = {name: vulns for name, vulns in known.items() if vulns}
    lines = [
        f"{lock}: {name}: {vuln['id']}, mended in {', '.join(vuln['fix_versions']) or 'no version'}"
        for name, vulns in sorted(vulnerable.items())
        for vuln in vulns
    ]
    lines.append(f"{lock}: asked about {len(known)} versions, {len(vulnerable)} have a known vulnerability")
    unknown = sorted(names - known.keys())
    if silent:
        lines.append(f"{lock}: no answer from {', '.join(silent)}")
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        lines.append(f"{lock}: not known to any service: {', '.join(unknown[:_SHOWN])}{more}: no all-clear")
    if vulnerable:
        return VULNERABLE, lines
    return (CLEAR if known and not unknown else UNKNOWN), lines


def main() -> int:
    """Every lock; the worst of the exit codes."""
    codes = []
    for lock in sorted(REQUIREMENTS.glob("*.txt")):
        code, lines = judge(lock.name, [(service, ask(lock, service)) for service in SERVICES])
        codes.append(code)
        print("\n".join(lines), flush=True)  # noqa: T201 - a command's own voice
    return VULNERABLE if VULNERABLE in codes else max(codes, default=UNKNOWN)


if __name__ == "__main__":
    sys.exit(main())
