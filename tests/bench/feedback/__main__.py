"""`./dev bench feedback [--study NAME] [--seeds N] [--steps N] [--json]`: what feedback is worth, by true tastes.

Every arm of a study meets the same towns; figures are of the last half of the visits, and differences to the study's
first arm are paired by user, with standard errors over the users of all towns.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial

import numpy as np

from pipeline.arrangers.fatigue import Fatigue
from pipeline.recipe import home
from pipeline.retrieval import Recipe
from pipeline.types import BLOCKS, CONSUMES, F64, I64
from tests.bench.feedback.town import BAD, Arm, Rival, Town, Visit

DAY_MS = 86_400_000
SESSION = 5  # looks at once, a minute apart; the user hides the worst of each but the last
LATER = (0.25, 0.5, 1, 2, 5, 10)  # days after which they look again, in other moods
ALL = ("fatigue", "impressions", "signs", "weights")
FIGURES = ("liked", "wanted", "taken")


def without_fatigue() -> Recipe:
    """The home feed, but for what this measures."""
    whole = home()
    return replace(whole, arrangers=tuple(part for part in whole.arrangers if not isinstance(part, Fatigue)))


def tired(**parameters: object) -> Recipe:
    """The home feed with another fatigue."""
    plain = without_fatigue()
    return replace(plain, arrangers=(*plain.arrangers, Fatigue(**parameters)))  # type: ignore[arg-type]


BASE = Arm(home())
STUDIES: dict[str, dict[str, Arm]] = {
    "weights": {
        "as configured": replace(BASE, graded=True),
        "all the same": replace(BASE, graded=True, weights=(1, 1, 1, 1)),
        "views say nothing": replace(BASE, graded=True, weights=(0, 1, 2, 4)),
        "steeper": replace(BASE, graded=True, weights=(0.1, 1, 4, 10)),
    },
    "signs": {
        "hides are ignored": replace(BASE, hides="ignored"),
        "hides count as clicks": replace(BASE, hides="taken"),
        "hides block": Arm(without_fatigue(), hides="blocked"),
        "hides block and tire": replace(BASE, hides="blocked"),
    },
}
PASSED_OVER = {"impressions say nothing": 1.0, "weight 5": 5.0, "weight 20, as configured": 20.0, "weight 60": 60.0}
FATIGUES: dict[str, Recipe] = {
    "blocked only": without_fatigue(),
    "as configured": home(),
    "creators only": tired(category=0),
    "categories wholly": tired(category=1.0),
    "off for a day, back in two weeks": tired(steps=((1, 1.0), (3, 0.6), (14, 0.3))),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One arm, and how far it is ahead of the first: mean and standard error, a figure each."""

    arm: str
    figures: dict[str, float]
    ahead: dict[str, tuple[float, float]]


def main() -> None:
    """Run the studies."""
    asked = _arguments()
    results: dict[str, list[Line]] = {}
    for study in ALL if asked.study is None else (asked.study,):
        others = {"fatigue": _fatigue, "impressions": _impressions}
        run = others.get(study, partial(_towns, study))
        columns, arms = run(asked.seeds, asked.steps)
        results[study] = list(_compared(columns, arms))
        if not asked.json:
            _print(study, columns, results[study])
    if asked.json:
        print(json.dumps({study: [asdict(line) for line in lines] for study, lines in results.items()}, indent=1))


def _towns(study: str, seeds: int, steps: int) -> tuple[tuple[str, ...], dict[str, F64]]:
    """(users of all towns, figures) by arm."""
    arms: dict[str, list[F64]] = {}
    for seed in range(1, 1 + seeds):
        for name, arm in STUDIES[study].items():
            visits = Town(seed, arm).run(steps)[steps // 2 :]
            arms.setdefault(name, []).append(_by_user(visits))
            _say(f"{study}: seed {seed}, {name}")
    return FIGURES, _joined(arms)


def _by_user(visits: list[Visit]) -> F64:
    """(users, figures) means; NaN where a user did not come."""
    table = np.array([[getattr(visit, name) for name in FIGURES] for visit in visits])
    return _means(np.array([visit.user for visit in visits]), table)


def _means(user: I64, table: F64) -> F64:
    """(users, columns) of rows that are theirs."""
    n = np.bincount(user, minlength=user.max() + 1)
    with np.errstate(invalid="ignore"):
        return np.stack([np.bincount(user, column) / n for column in table.T], axis=1)


def _impressions(seeds: int, steps: int) -> tuple[tuple[str, ...], dict[str, F64]]:
    """Rankers that learn from the same visits: what the ten are worth that each puts first, of the same candidates."""
    arms: dict[str, list[F64]] = {}
    for seed in range(1, 1 + seeds):
        town = Town(seed, BASE)
        town.rivals = {name: Rival(weight) for name, weight in PASSED_OVER.items()}
        town.run(steps)
        for name, rival in town.rivals.items():
            users, worth = zip(*rival.best[steps // 2 :], strict=True)
            arms.setdefault(name, []).append(_means(np.array(users), np.array(worth)))
        _say(f"impressions: seed {seed}")
    return ("taste", "taste and appeal", "as wanted now, and appeal"), _joined(arms)


def _fatigue(seeds: int, steps: int) -> tuple[tuple[str, ...], dict[str, F64]]:
    """Once a town has learned: sessions in which users hide what is bad, and looks days later."""
    arms: dict[str, list[F64]] = {}
    for seed in range(1, 1 + seeds):
        town = Town(seed, BASE)
        town.run(steps)
        for name, recipe in FATIGUES.items():
            looks = [_session(town, user, recipe) for user in range(len(town.blobs))]
            arms.setdefault(name, []).append(np.array(looks))
            _say(f"fatigue: seed {seed}, {name}")
    return (*(f"look {1 + at}" for at in range(SESSION)), *(f"{days:g} d later" for days in LATER)), _joined(arms)


def _session(town: Town, user: int, recipe: Recipe) -> list[float]:
    """How much the user wants what is fed, look by look, on average of a feed's items."""
    blob, out, moods = town.blobs[user], [], town.moods(10**6)
    bar = float(np.quantile(town.affinity[user], BAD))
    for look in range(SESSION):
        now, wants = town.now + look * 60_000, town.wants(user, moods)
        fed: I64 = town.look(user, blob, now, recipe)
        out.append(float(wants[fed].mean()))
        worst = int(fed[np.argmin(wants[fed])])
        if wants[worst] < bar and look < SESSION - 1:
            blob, _ = town.act(blob, "hide", BLOCKS | CONSUMES, worst, now)
    for at, days in enumerate(LATER):
        wants = town.wants(user, town.moods(10**6 + 1 + at))
        out.append(float(wants[town.look(user, blob, town.now + int(days * DAY_MS), recipe)].mean()))
    return out


def _joined(arms: Mapping[str, list[F64]]) -> dict[str, F64]:
    return {name: np.concatenate(tables) for name, tables in arms.items()}


def _compared(columns: tuple[str, ...], arms: Mapping[str, F64]) -> Iterator[Line]:
    first = next(iter(arms.values()))
    for name, table in arms.items():
        ahead = table - first
        known = np.isfinite(ahead).all(axis=1)
        mean, spread = ahead[known].mean(axis=0), ahead[known].std(axis=0, ddof=1) / math.sqrt(known.sum())
        told = {column: (float(m), float(s)) for column, m, s in zip(columns, mean, spread, strict=True)}
        yield Line(name, dict(zip(columns, np.nanmean(table, axis=0).tolist(), strict=True)), told)


def _print(study: str, columns: tuple[str, ...], lines: list[Line]) -> None:
    print(f"\n| {study} | {' | '.join(columns)} |\n|{'---|' * (1 + len(columns))}")
    for at, line in enumerate(lines):
        ahead = (f"{mean:+.3f} ± {se:.3f}" for mean, se in line.ahead.values())
        print(f"| {line.arm} | {' | '.join(ahead if at else (f'{one:.3f}' for one in line.figures.values()))} |")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev bench feedback", description=__doc__)
    parser.add_argument("--study", choices=ALL, help="only this one")
    parser.add_argument("--seeds", type=int, default=3, help="towns")
    parser.add_argument("--steps", type=int, default=2500, help="visits a town")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
