"""Where compiled kernels are kept, so that only the first start on a machine waits for the compiler.

numba takes a cached kernel as fresh while the kernel's own file is unchanged. Ours call each other across files, so a
change in one would leave stale callers behind. Hence the folder is named by a hash of all of `pipeline`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
import time
from pathlib import Path

import pipeline

_VARIABLE = "NUMBA_CACHE_DIR"
_NAME = "kernels-"
_UNUSED_S = 7 * 86_400


def prepare() -> None:
    """What must be said before NumPy and numba are imported; called first by every entry point.

    One BLAS thread: more make the small products of a worker eight times slower.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    keep_compiled()


def keep_compiled() -> Path:
    """Choose the folder, to be called before numba is imported; `NUMBA_CACHE_DIR` names its parent where it is set."""
    folder = _parent() / f"{_NAME}{_digest()}"
    os.environ[_VARIABLE] = str(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        _drop_unused(folder.parent)
    except OSError:  # read-only, as in an image whose kernels were compiled when it was built
        pass
    return folder


def compiled() -> bool:
    """Whether the folder that was chosen holds kernels already."""
    return any(Path(os.environ.get(_VARIABLE, "")).rglob("*.nbi"))


def _parent() -> Path:
    given = os.environ.get(_VARIABLE)
    if given:
        here = Path(given)
        return here.parent if here.name.startswith(_NAME) else here  # a parent process has chosen already
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(home) / "headrace"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return _own(Path(tempfile.gettempdir()) / f"headrace-{os.geteuid()}")
    return cache


def _own(folder: Path) -> Path:
    """`folder`, where anyone may have made it before: ours alone, or else a new one.

    numba unpickles what it finds, so that whoever writes there runs code as us.
    """
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return Path(tempfile.mkdtemp(prefix="headrace-"))
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return folder if ours else Path(tempfile.mkdtemp(prefix="headrace-"))


def _digest() -> str:
    root = Path(pipeline.__path__[0])
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def _drop_unused(parent: Path) -> None:
    for old in parent.glob(f"{_NAME}*"):
        if time.time() - old.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(old, ignore_errors=True)
