"""Freed memory stays with the process."""

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


def faults(**environment: str) -> list:
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
    }
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], env=clean | environment, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the setting is glibc's")
def test_a_step_gets_the_pages_that_the_last_one_freed():
    """Eight tensors of 8 MiB are 16384 pages of 4 KiB, or fewer and larger ones."""
    kept, again = faults()
    users, anew = faults(MALLOC_MMAP_THRESHOLD_="131072")
    assert not users and anew > 0
    if not kept:
        pytest.skip("this C library has no mallopt")
    assert again < anew / 4
