"""Memory that a batch has freed is there for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

ROUNDS, BLOCKS, SIZE = 20, 12, 2 << 20
# Faults of the rounds after the first: each fills and frees what a dozen large records take.
PROGRAM = f"""
import resource, sys
from workers.allocator import keep_freed_memory
assert sys.argv[1] == "as it is" or keep_freed_memory()
for round in range({ROUNDS} + 1):
    if round == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [bytearray({SIZE}) for _ in range({BLOCKS})]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_freed_memory_is_not_asked_for_again() -> None:
    assert faults("kept") < 100
    assert faults("as it is") > 1000, "this C library keeps it by itself: workers/allocator.py is not needed"
