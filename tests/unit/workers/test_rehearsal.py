from __future__ import annotations

import subprocess
import sys

import pytest

from pipeline.recipe import RECIPES
from workers.rehearsal import rehearse

# Prints the kernels that are loaded or compiled after a rehearsal, in a process where nothing else did: by a real feed,
# and by what is logged, chosen and learned of it, and feeds by what was learned; or by a trainer's first examples.
SCRIPT = """
import sys
from numba.core.registry import CPUDispatcher
from pipeline.model.ranker import EARNED, WARM
from pipeline.recipe import home
from pipeline.retrieval import build_feeds
from tests.retrieving import K, world
from workers.rehearsal import rehearse
from workers.settings import Model, Settings
from workers.trainer import TrainerCore
from workers.wire.example import encode_example, read_example
from workers.wire.rules import Rules

def loaded():
    modules = [module for name, module in sys.modules.items() if name.startswith("pipeline.")]
    kernels = [value for module in modules for value in vars(module).values() if isinstance(value, CPUDispatcher)]
    return {(kernel.py_func.__qualname__, signature) for kernel in kernels for signature in kernel.signatures}

def choices(here, ranker):
    asked = here.ask()
    feeds = build_feeds(asked, here.catalog, here.model, home())
    served = ranker.served(asked, here.catalog, here.model, range(len(feeds)))
    found = [one.packed().chosen(int(one.rows[0]), {int(one.rows[1])}).sampled(10, 1) for one in served]
    size = len(ranker.layout.columns), len(ranker.layout.contexts)
    return [read_example(encode_example("", one, 0)).choice(*size) for one in found]  # as a trainer reads them

here, ranker = world(5, 3000, 4), home().ranker
here.ask()
made = choices(here, ranker) if "trainer" in sys.argv else []
before = loaded()
if "unrehearsed" not in sys.argv:
    settings = Settings(model=Model(dimension=K))
    TrainerCore(settings, Rules.of(settings)).warm_up() if made else rehearse(home(), K)
    before = loaded()
made = made or choices(here, ranker)
for at in range(WARM + EARNED + 1):
    ranker.take_in(here.model, made[at % len(made)])
if "trainer" not in sys.argv:
    build_feeds(here.ask(), here.catalog, here.model, home())
print(*{name for name, _ in loaded() - before})
"""


def test_the_made_up_user_is_answered() -> None:
    for recipe in RECIPES.values():
        assert rehearse(recipe(), 8) == 1


def loaded_by(*arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=150, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize("role", ["retrieval", "trainer"])
def test_no_kernel_is_left_for_the_first_real_work(role: str) -> None:
    assert loaded_by(role) == []


@pytest.mark.parametrize(("role", "many"), [("retrieval", 6), ("trainer", 4)])
def test_without_a_rehearsal_it_would_wait_for_some(role: str, many: int) -> None:
    assert len(loaded_by(role, "unrehearsed")) >= many
