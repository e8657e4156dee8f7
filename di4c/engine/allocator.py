"""The C library's allocator, set for tensors that are made and freed every step."""

import ctypes
import os
import sys

LARGEST_IN_HEAP = 2**25
"""Bytes from which on a tensor is mapped by itself, glibc's upper limit for the value that it adapts."""
LARGEST_KEPT = 2**30
"""Freed bytes at the heap's end that are not given back."""

_USERS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES")
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_kept = False


def keep_freed_memory() -> bool:
    """Lets glibc keep up to a GiB of freed memory instead of giving it back and faulting it in, page by page, at every step.

    The peak stays what it was. Does nothing where the environment sets the allocator, or where it is not glibc's; says whether it did
    something. Source: mallopt(3).
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in _USERS):
        return False
    global _kept
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    _kept = mallopt is not None and bool(
        mallopt(_M_MMAP_THRESHOLD, LARGEST_IN_HEAP) and mallopt(_M_TRIM_THRESHOLD, LARGEST_KEPT)
    )
    return _kept


def give_back_unused() -> None:
    """Gives back what `keep_freed_memory` has kept, now and then, as tensors of ever other sizes leave gaps that none of them fits.

    The process grows more slowly then; pages that are in part in use stay. Source: malloc_trim(3).
    """
    if _kept:
        ctypes.CDLL(None).malloc_trim(0)
