"""The states in memory: what was written last is there, up to a bound; of users without a state nothing."""

from __future__ import annotations

from workers.state_cache import StateCache
from workers.wire.marker import Marker

MARKER = Marker(version=7, time=1000)


def test_what_was_put_last_is_there() -> None:
    cache = StateCache(10)
    assert cache.put(3, ["a", "b"], [b"1", b"2"], {"a": MARKER}) == []
    assert cache.put(3, ["a"], [b"3"], {}) == []
    assert cache.blobs(3) == {"a": b"3", "b": b"2"}
    assert cache.markers(3) == {"a": MARKER}
    assert cache.blobs(4) == {}


def test_of_who_has_no_state_nothing_is_kept() -> None:
    cache = StateCache(10)
    cache.put(3, ["a", "b"], [b"1", b"2"], {})
    assert cache.put(3, ["a", "b"], [b"", b"3"], {"a": MARKER}) == ["a"]
    assert (cache.blobs(3), cache.markers(3)) == ({"b": b"3"}, {})


def test_beyond_its_bound_the_least_recently_written_go_with_their_markers() -> None:
    cache = StateCache(20)
    users = [f"u{i}" for i in range(20)]
    cache.put(0, users, [b"x"] * 20, dict.fromkeys(users, MARKER))
    cache.put(0, ["u0"], [b"y"], {})  # not the oldest any more
    cache.put(1, ["v"], [b"x"], {})
    assert set(users) - set(cache.blobs(0)) == {"u1", "u2", "u3"} == set(users) - set(cache.markers(0))


def test_a_partition_that_is_dropped_makes_room() -> None:
    cache = StateCache(10)
    cache.put(0, [f"u{i}" for i in range(10)], [b"x"] * 10, {})
    cache.drop(0)
    cache.drop(0)
    cache.put(1, [f"u{i}" for i in range(10)], [b"x"] * 10, {})
    assert (len(cache.blobs(0)), len(cache.blobs(1))) == (0, 10)
