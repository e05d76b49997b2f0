"""A seeded synthetic world of titled items, users with tastes, sessions and trends: the data that ships as code."""

from workers.world.world import World

__all__ = ["World"]
