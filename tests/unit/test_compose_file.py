"""docker-compose.yml and Dockerfile, read as text: what containers may do, and what is reachable from outside."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "docker-compose.yml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def blocks(text: str, indent: int) -> dict[str, str]:
    """The mappings at `indent` spaces, by name, with all that stands below them."""
    found = re.split(rf"^ {{{indent}}}([\w-]+):", text, flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


TOP = blocks(COMPOSE, 0)
ANCHORS = {anchor[1]: body for body in TOP.values() if (anchor := re.match(r" &(\w+)\n", body))}
SERVICES = blocks(TOP["services"], 2)


def whole(body: str) -> str:
    """A service with what it merges."""
    return body + "".join(whole(ANCHORS[name]) for name in re.findall(r"<<: \*(\w+)", body))


def test_the_services_are_there() -> None:
    assert {"kafka", "redis", "setup", "embedding", "trainer", "retrieval", "catalog", "demo"} == set(SERVICES)
    assert {"headrace", "worker"} == set(ANCHORS)


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_no_more_rights_than_it_needs(service: str) -> None:
    body = whole(SERVICES[service])
    assert "cap_drop: [ALL]" in body
    assert 'security_opt: ["no-new-privileges:true"]' in body
    assert re.search(r"limits: \{cpus: .*memory: .*pids: ", body)
    assert "privileged" not in body
    assert "docker.sock" not in body
    assert "network_mode" not in body
    if service != "kafka":  # its image writes its configuration when it starts, and names its user itself
        assert "read_only: true" in body
        user = re.search(r"^    user: \"?(\w+)|^  user: \"(\d+):", body, re.MULTILINE)
        assert user is not None
        assert (user[1] or user[2]) not in ("0", "root")


def test_only_loopback_is_published() -> None:
    ports = re.findall(r"^ +ports:\n((?: +- .*\n)+)", COMPOSE, re.MULTILINE)
    published = [line.strip(' -"') for block in ports for line in block.splitlines()]
    assert len(published) == 2
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_the_missing_tls_is_said_where_it_is_missing() -> None:
    environment = ANCHORS["headrace"]
    assert 'HEADRACE_KAFKA_INSECURE: "true"' in environment
    assert 'HEADRACE_STORE_INSECURE: "true"' in environment


def test_the_image_is_not_root_and_takes_only_locked_wheels() -> None:
    final = DOCKERFILE.split("FROM ")[-1]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    installs = re.findall(r"pip install .*", DOCKERFILE)
    assert len(installs) == 3
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)
    assert "PASSWORD" not in DOCKERFILE + COMPOSE
