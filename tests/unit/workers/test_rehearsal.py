from __future__ import annotations

import subprocess
import sys

from pipeline.recipe import RECIPES
from workers.rehearsal import rehearse

# Prints the kernels that a real feed loads or compiles after a rehearsal, in a process where nothing else did.
SCRIPT = """
import sys
from numba.core.registry import CPUDispatcher
from pipeline.recipe import home
from pipeline.retrieval import build_feeds
from tests.retrieving import K, world
from workers.rehearsal import rehearse

def loaded():
    modules = [module for name, module in sys.modules.items() if name.startswith("pipeline.")]
    kernels = [value for module in modules for value in vars(module).values() if isinstance(value, CPUDispatcher)]
    return {(kernel.py_func.__qualname__, signature) for kernel in kernels for signature in kernel.signatures}

here = world(5, 3000, 4)
asked = here.ask()
if "unrehearsed" not in sys.argv:
    rehearse(home(), K)
before = loaded()
build_feeds(asked, here.catalog, here.model, home())
print(*{name for name, _ in loaded() - before})
"""


def test_the_made_up_user_is_answered() -> None:
    for recipe in RECIPES.values():
        assert rehearse(recipe(), 8) == 1


def loaded_by_a_feed(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=150, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


def test_no_kernel_is_left_for_the_first_real_feed() -> None:
    assert loaded_by_a_feed() == []


def test_without_a_rehearsal_it_would_wait_for_many() -> None:
    assert len(loaded_by_a_feed("unrehearsed")) > 5
