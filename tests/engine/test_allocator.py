"""Freed memory stays with the process, until it is asked for."""

import json
import os
import subprocess
import sys

import pytest

FAULTS = """
import json, resource, torch
from di4c.engine.allocator import keep_freed_memory
torch.set_num_threads(1)
told = keep_freed_memory()
def work():
    held = [torch.ones(2**21) for _ in range(8)]
    return sum(float(x[0]) for x in held)
work(); work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(json.dumps([told, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before]))
"""


def printed(program: str, **environment: str) -> list:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
    }
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean | environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_a_step_gets_the_pages_that_the_last_one_freed():
    """Eight tensors of 8 MiB are 16384 pages of 4 KiB, or fewer and larger ones."""
    kept, again = printed(FAULTS)
    users, anew = printed(FAULTS, MALLOC_MMAP_THRESHOLD_="131072")
    assert not users and anew > 0
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert again < anew / 4


GAPS = """
import json, os, torch
from di4c.engine import allocator
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
told = allocator.keep_freed_memory()
both = [(torch.ones(2**18), torch.ones(64)) for _ in range(200)]
small = [few for many, few in both]
del both
full = resident()
allocator.give_back_unused()
print(json.dumps([told, full - resident()]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_gaps_between_what_is_held_are_given_back():
    """Two hundred tensors of 1 MiB are freed, each between two that stay."""
    kept, given_back = printed(GAPS)
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert given_back > 150 * 2**20
    assert printed(GAPS, MALLOC_TRIM_THRESHOLD_="1073741824")[0] is False
