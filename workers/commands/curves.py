"""The figures of an evaluation, as pictures: PNG and SVG, by matplotlib, which comes with the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.evaluation.baselines import NAMES
from pipeline.evaluation.outcomes import Outcomes
from pipeline.evaluation.report import learning_curve
from workers.commands.figures import Report

METRIC = "recall@10"
SIZE = (7.0, 4.2)  # inches
DPI = 150
INK, ACCENT, GREYS = "#222222", "#0b6e99", ("#777777", "#b0a070", "#7a9e7e", "#b07a8c")
COMPARED = 3  # baselines in a picture: the best
ENOUGH = 500  # queries a point of the learning curve
POINTS = (4, 40)  # of it, at least and at most


class PlotsError(ValueError):
    """Pictures cannot be made; the message is one line."""


def ready(folder: Path) -> None:
    """Raise PlotsError unless pictures can be made in `folder`; it is made."""
    try:
        import_module("matplotlib")
    except ImportError:
        raise PlotsError(
            "--plot: expected matplotlib, found none; install the extra: pip install 'headrace[plots]'"
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PlotsError(f"--plot: {folder}: {error.strerror}; expected a folder to write to") from None


def draw(folder: Path, outcomes: Outcomes, report: Report, by_dimension: Mapping[str, Report]) -> list[Path]:
    """Write the pictures; the files. Raises PlotsError."""
    pictures = {"learning_curve": _learning(outcomes, report), "recall_by_history": _history(report)}
    if by_dimension:
        pictures["recall_by_dimension"] = _dimensions(by_dimension)
    return [path for name, picture in pictures.items() for path in _written(folder / name, picture)]


def _written(stem: Path, picture: Any) -> list[Path]:
    with import_module("matplotlib").rc_context({"svg.hashsalt": "headrace"}):  # the same bytes for the same figures
        for path in (files := [stem.with_suffix(".png"), stem.with_suffix(".svg")]):
            try:
                picture.savefig(path, dpi=DPI, metadata={"Date": None} if path.suffix == ".svg" else None)
            except OSError as error:
                raise PlotsError(f"--plot: {path}: {error.strerror}") from None
    return files


def _learning(outcomes: Outcomes, report: Report) -> Any:
    """Recall over the stream, beside the best baselines."""
    picture, axes = _blank("Recall@10 over the stream, known users", "events")
    points = min(max(report["known"]["n"] // ENOUGH, POINTS[0]), POINTS[1])
    baselines = report["baselines"]
    best = sorted(baselines, key=lambda name: -(baselines[name][METRIC] or 0.0))[:COMPARED]
    for name, colour in zip(best, GREYS, strict=False):
        column = outcomes.baselines[:, NAMES.index(name)]
        axes.plot(*learning_curve(outcomes, column, METRIC, points), color=colour, linewidth=1.2, label=name)
    ranked = learning_curve(outcomes, outcomes.rank, METRIC, points)
    axes.plot(*ranked, color=ACCENT, linewidth=2.2, label=f"recipe {report['recipe']}")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=9)
    return picture


def _history(report: Report) -> Any:
    """Recall by how much is known of the user."""
    picture, axes = _blank("Recall@10 by history length, ± two standard errors", "positive events of the user before")
    groups = {name: found for name, found in report["by_history"].items() if found["n"]}
    _points(axes, {f"{name}\nn={found['n']:,}": found for name, found in groups.items()}, line=False)
    return picture


def _dimensions(by_dimension: Mapping[str, Report]) -> Any:
    """Recall by the dimension of the embeddings."""
    picture, axes = _blank("Recall@10 by dimension, known users, ± two standard errors", "dimension of the embeddings")
    _points(axes, {name: found["known"] for name, found in by_dimension.items()}, line=True)
    return picture


def _points(axes: Any, groups: Mapping[str, Report], *, line: bool) -> None:
    """A point a group, with twice its standard error."""
    values = [found[METRIC] or 0.0 for found in groups.values()]
    spread = [2 * (found["se"][METRIC] or 0.0) for found in groups.values()]
    places = range(len(groups))
    axes.errorbar(places, values, yerr=spread, fmt="o-" if line else "o", color=ACCENT, capsize=3, linewidth=1.5)
    axes.set_xticks(list(places), list(groups), fontsize=9)
    axes.set_ylim(bottom=0)


def _blank(title: str, below: str) -> tuple[Any, Any]:
    picture = import_module("matplotlib.figure").Figure(figsize=SIZE, layout="constrained")
    axes = picture.subplots()
    axes.set_title(title, loc="left", color=INK, fontsize=11)
    axes.set_xlabel(below, color=INK, fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    return picture, axes
