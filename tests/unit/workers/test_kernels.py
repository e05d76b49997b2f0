"""The folder of compiled kernels: named by what they are compiled from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import pipeline
from workers import kernels


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline of one file, and a cache of its own."""
    root = tmp_path / "pipeline"
    root.mkdir()
    (root / "one.py").write_text("a = 1")
    monkeypatch.setattr(pipeline, "__path__", [str(root)])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    return root


def test_a_change_anywhere_is_another_folder(sources: Path) -> None:
    first = kernels.keep_compiled()
    assert kernels.keep_compiled() == first
    (sources / "one.py").write_text("a = 2")
    assert kernels.keep_compiled() != first


def test_compiled_or_not(sources: Path) -> None:
    folder = kernels.keep_compiled()
    assert not kernels.compiled()
    (folder / "pipeline_1").mkdir()
    (folder / "pipeline_1" / "kernel.nbi").touch()
    assert kernels.compiled()


def test_a_child_process_chooses_the_same(sources: Path, tmp_path: Path) -> None:
    chosen = kernels.keep_compiled()
    assert os.environ["NUMBA_CACHE_DIR"] == str(chosen)
    assert chosen.parent == tmp_path / "cache"
    assert kernels.keep_compiled() == chosen


def test_folders_unused_for_a_week_go(sources: Path) -> None:
    old = kernels.keep_compiled()
    os.utime(old, (1, 1))
    (sources / "one.py").write_text("a = 2")
    kept = kernels.keep_compiled()
    assert kept.is_dir()
    assert not old.exists()


def test_a_read_only_cache_is_used_as_it_is(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(file))  # no folder can be made below a file
    assert kernels.keep_compiled().parent == file


def test_a_shared_folder_is_used_only_if_it_is_ours_alone(tmp_path: Path) -> None:
    """numba unpickles what it finds: a folder that others may have made, or may write to, is not used."""
    own = kernels._own(tmp_path / "own")
    assert own == tmp_path / "own" == kernels._own(own)
    assert own.stat().st_mode & 0o077 == 0
    own.chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "file").touch()
    for taken in (own, tmp_path / "link", tmp_path / "file"):
        other = kernels._own(taken)
        assert other != taken
        assert other.stat().st_mode & 0o077 == 0
        other.rmdir()
