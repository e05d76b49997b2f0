"""CPU time of the steps of a worker, measured in the worker itself by wrapping the functions that do them."""

from __future__ import annotations

import functools
import inspect
import time
from collections import defaultdict
from collections.abc import Callable
from importlib import import_module
from typing import Any

# Role -> step -> the functions that make it up, as (where the name is looked up, name). An async one counts what the
# process spends while it runs, so the client's own tasks are in it; of a generator the making of what it yields counts.
# Steps do not overlap.
STEPS: dict[str, dict[str, list[tuple[str, str]]]] = {
    "embedding": {
        "poll": [("workers.lane:Lane", "_poll")],
        "decode and validate": [("workers.embedding", "read_events")],
        "read cold states": [("workers.store:Store", "read_many")],
        "advance": [("workers.embedding", "advance")],
        "embed": [("workers.embedding", "compose"), ("workers.embedding", "stamp")],
        "apply": [("workers.positions:StoredPositions", "apply")],
        "produce": [("workers.producer:Producer", "send")],
    },
    "retrieval": {  # a chunk of queries is a call
        "poll": [("workers.lane:Lane", "_poll")],
        "read states": [
            ("workers.retrieval:RetrievalHandler", "_tell"),
            ("workers.retrieval:RetrievalHandler", "_leave"),
        ],
        "make queries": [("workers.feeds:FeedMaker", "_ask")],
        "gather": [("pipeline.retrieval", "gather")],
        "sift": [("pipeline.retrieval", "sift")],
        "rank": [("pipeline.retrieval", "rank")],
        "arrange": [("pipeline.retrieval", "arrange"), ("pipeline.retrieval", "cut")],
        "explain": [("pipeline.retrieval", "explain")],
        "log lists": [("workers.feeds:FeedMaker", "_logged")],
        "encode": [("workers.feeds:FeedMaker", "_made")],
        "store": [("workers.store:Store", "put_feeds")],
        "produce": [("workers.producer:Producer", "send")],
    },
    "trainer": {  # it publishes while it learns: nothing that waits is a step
        "decode": [("workers.trainer", "told_by")],
        "make lessons": [("workers.trainer", "lessons_from")],
        "learn": [("pipeline.learning:Learner", "learn")],
        "make records": [("workers.trainer:TrainerCore", "_outputs")],
    },
}


class Steps:
    """Accumulates seconds of CPU a step."""

    def __init__(self, role: str) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        for step, functions in STEPS.get(role, {}).items():
            for where, name in functions:
                self._wrap(step, where, name)

    def _wrap(self, step: str, where: str, name: str) -> None:
        module, _, owner = where.partition(":")
        holder: Any = import_module(module)
        if owner:
            holder = getattr(holder, owner)
        wrapped: Callable[..., Any] = getattr(holder, name)

        @functools.wraps(wrapped)
        def timed(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            try:
                return wrapped(*args, **kwargs)
            finally:
                self.seconds[step] += time.process_time() - begun

        @functools.wraps(wrapped)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            try:
                return await wrapped(*args, **kwargs)
            finally:
                self.seconds[step] += time.process_time() - begun

        @functools.wraps(wrapped)
        def drawn(*args: Any, **kwargs: Any) -> Any:
            making, end = wrapped(*args, **kwargs), object()
            while True:
                begun = time.process_time()
                try:
                    made = next(making, end)
                finally:
                    self.seconds[step] += time.process_time() - begun
                if made is end:
                    return
                yield made

        if inspect.iscoroutinefunction(wrapped):
            setattr(holder, name, awaited)
        else:
            setattr(holder, name, drawn if inspect.isgeneratorfunction(wrapped) else timed)
