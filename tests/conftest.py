"""What every test needs before the first import of torch."""

import os
import sys

import pytest

from tests.claims import run_claimed
from tests.devices import choose

choose(sys.argv[1:], os.environ)
os.environ.setdefault("OMP_NUM_THREADS", "1")  # small tests, and some start two ranks on two cores
os.environ.setdefault("MPLBACKEND", "Agg")

from di4c.torchvision_compat import declare_missing_operators

declare_missing_operators()  # as the registry does, for tests that import a plugin directly


def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Shares the run with other processes where tools/test.sh says so."""
    return run_claimed(session)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips the tests of a GPU where none is seen."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a GPU; `pytest -m gpu` shows it to the tests"))
