"""The stored measurements hold what they were made for, and sharing a base saves a copy when measured again."""

import json
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(TOP))

from tools.research.measure_scale import BASES, STAGES, _saved, cell


def test_the_stored_plans_are_within_15_percent_and_a_copy_is_saved():
    content = json.loads((TOP / "tools/results/memory.json").read_text())
    cells = content["cells"]
    assert set(cells) == {*STAGES, *BASES}
    for name in STAGES:
        assert cells[name]["trained_parameters"] > 100e6
        assert abs(cells[name]["planned_over_measured"] - 1) < 0.15, name
    assert content["saved_over_one_copy"] >= 0.9 and cells["shared-base"]["frozen_parameters"] > 100e6


@pytest.mark.slow
def test_sharing_a_base_of_100_million_parameters_saves_a_copy():
    saved = _saved({name: cell(name) for name in ("shared-base", "lora-on-a-copy")})
    assert saved["saved_over_one_copy"] >= 0.9
