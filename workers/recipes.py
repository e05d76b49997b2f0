"""The recipe that the settings name."""

from __future__ import annotations

from pipeline.recipe import RECIPES
from pipeline.retrieval import Recipe
from workers.settings import Settings, SettingsError


def recipe_of(settings: Settings) -> Recipe:
    """What feeds are made by. Raises SettingsError for a name that nobody knows."""
    feed = settings.feed
    if feed.recipe not in RECIPES:
        raise SettingsError(f"settings: feed.recipe: expected one of {', '.join(RECIPES)}, found {feed.recipe!r}")
    return RECIPES[feed.recipe](feed.size, feed.repeats)
