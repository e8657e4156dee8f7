import errno
import json
import os

import pytest

from di4c.errors import Di4CError
from di4c.evaluation.cells import Cell, CellStore, write_atomically

CELL = Cell("samples", "student", "inf", 2, 0, {"weights": "abc", "samples": 10})


def test_key_is_readable_and_depends_on_every_setting():
    assert CELL.key.startswith("student-inf-2steps-seed0-samples-")
    others = [
        Cell("likelihood", "student", "inf", 2, 0, CELL.settings),
        Cell("samples", "student", 4, 2, 0, CELL.settings),
        Cell("samples", "student", "inf", 2, 1, CELL.settings),
        Cell("samples", "student", "inf", 2, 0, {"weights": "abd", "samples": 10}),
        Cell("samples", "student", "inf", 2, 0, {"weights": "abc", "samples": 11}),
    ]
    assert len({cell.key for cell in [CELL, *others]}) == 6
    reordered = Cell("samples", "student", "inf", 2, 0, {"samples": 10, "weights": "abc"})
    assert reordered.key == CELL.key


def test_round_trip(tmp_path):
    store = CellStore(tmp_path / "cells")
    assert store.find(CELL) is None
    store.save(CELL, {"metrics": {"a": 0.1}})
    assert CellStore(tmp_path / "cells").find(CELL) == {"metrics": {"a": 0.1}}


def test_a_failed_write_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = write_atomically(tmp_path / "x.json", "old")

    def no_space(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(Di4CError, match="x.json: No space left on device"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_the_file_says_which_cell_it_is(tmp_path):
    CellStore(tmp_path).save(CELL, {})
    (file,) = tmp_path.iterdir()
    assert json.loads(file.read_text())["cell"]["settings"]["weights"] == "abc"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Di4CError, match="cannot write .*file/cells"):
        CellStore(tmp_path / "file" / "cells")
