"""The only folder that knows Redis: keys and calls, the connection that repeats them, the contract, the functions."""

from workers.store.contract import FunctionsMissing
from workers.store.link import StoreError, StoreRefused, StoreUnavailable
from workers.store.store import Applied, Apply, Claim, FeedWrite, Lost, Position, Store, UserRead, Write

__all__ = [
    "Applied",
    "Apply",
    "Claim",
    "FeedWrite",
    "FunctionsMissing",
    "Lost",
    "Position",
    "Store",
    "StoreError",
    "StoreRefused",
    "StoreUnavailable",
    "UserRead",
    "Write",
]
