"""How the C library keeps memory that was freed: so that the next batch finds it there.

A batch of records is half a megabyte, copied a few times on its way. By default glibc gives such blocks back to the
kernel and asks for them again a moment later, and the kernel hands out zeroed pages one fault at a time: where a fault
is dear (a virtual machine), that costs ten times what compressing the batch costs.
"""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_ names of malloc.h
# The most that glibc itself raises both to, by what is freed; set, they no longer follow it.
_KEPT = 64 * 1024 * 1024  # bytes of freed memory that the process keeps at the end of its heap
_LARGEST = 32 * 1024 * 1024  # bytes: what is larger is still given back at once


def keep_freed_memory() -> bool:
    """Keep what batches are made of. False where there is no glibc: nothing is changed then."""
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _LARGEST)) and bool(mallopt(_TRIM_THRESHOLD, _KEPT))
