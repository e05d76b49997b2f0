"""The only folder that knows Redis: keys and calls, the connection that repeats them, the contract, the functions."""

from workers.store.contract import FunctionsMissing
from workers.store.link import StoreError, StoreRefused, StoreUnavailable
from workers.store.store import (
    Applied,
    Apply,
    BeingRebuilt,
    Claim,
    FeedWrite,
    Lost,
    Position,
    Store,
    UserRead,
    Write,
)
from workers.store.upkeep import NotOurs, Rebuilding

__all__ = [
    "Applied",
    "Apply",
    "BeingRebuilt",
    "Claim",
    "FeedWrite",
    "FunctionsMissing",
    "Lost",
    "NotOurs",
    "Position",
    "Rebuilding",
    "Store",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "UserRead",
    "Write",
]
