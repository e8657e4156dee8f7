"""Several pytest processes share a run: each claims a file of tests at a time, until none is left.

TEST_CLAIMS=FOLDER TEST_PLACE=K/N python -m pytest …: the K-th of N. A process that dies leaves the others the files it has not begun.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


def claimed(items: list[pytest.Item], folder: Path, place: int, processes: int) -> Iterator[pytest.Item]:
    """The items of the files that this process gets, in their order; it begins at place/processes of the list."""
    files = [(path, list(group)) for path, group in itertools.groupby(items, lambda item: item.path)]
    start = len(files) * place // processes
    for number, (_, group) in [*enumerate(files)][start:] + [*enumerate(files)][:start]:
        try:
            (folder / str(number)).touch(exist_ok=False)
        except FileExistsError:
            continue
        yield from group


def run_claimed(session: pytest.Session) -> bool | None:
    """For pytest_runtestloop: runs what this process claims; None where nothing is shared."""
    if "TEST_CLAIMS" not in os.environ or session.config.option.collectonly or session.testsfailed:
        return None
    place, processes = map(int, os.environ["TEST_PLACE"].split("/"))
    mine = claimed(session.items, Path(os.environ["TEST_CLAIMS"]), place, processes)
    item = next(mine, None)
    while item is not None:
        following = next(mine, None)  # shared fixtures live on until the last of all
        session.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail or session.shouldstop:
            raise session.Failed(session.shouldfail or session.shouldstop)
        item = following
    return True
