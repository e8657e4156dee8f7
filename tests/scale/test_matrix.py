"""ZeRO stages × ranks × precision × offload × student head: one loss trajectory, or a refusal."""

import itertools
import json
from pathlib import Path

import pytest

from tests.engine.launching import TOP, launch, losses, relative
from tests.scale.conftest import TABLE

AXES = {
    "stage": (0, 1, 2, 3),
    "ranks": (1, 2),
    "precision": ("fp32", "bf16"),
    "offload": (False, True),
    "head": ("token", "late"),
}
EVERY = [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]
COVERING = [
    dict(zip(AXES, values, strict=True))
    for values in (
        (0, 1, "fp32", False, "token"), (0, 1, "fp32", False, "late"), (0, 2, "fp32", False, "late"),
        (1, 1, "bf16", False, "late"), (1, 2, "fp32", True, "token"), (2, 1, "fp32", True, "late"),
        (2, 2, "bf16", False, "token"), (3, 1, "bf16", True, "token"), (3, 2, "fp32", False, "token"),
        (3, 2, "fp32", True, "late"), (0, 2, "bf16", True, "late"),
    )
]  # fmt: skip
"""Every pair of values of two axes that is not refused occurs, but for bf16 at stage 0."""
COVERING_STEPS = 8
"""Of these; all cells are trained for longer, which is slow."""
TOLERANCE = {"fp32": 1e-4, "bf16": 1e-2}


def name_of(cell: dict) -> str:
    return f"{cell['stage']}-{cell['ranks']}-{cell['precision']}-{'offload' if cell['offload'] else 'plain'}-{cell['head']}"


def refused(cell: dict) -> bool:
    return cell["stage"] == 0 and cell["offload"]


def train(cells: list[dict], folder: Path, **options) -> dict[str, dict]:
    """Results by name; cells of one number of ranks share a launch."""
    results = {}
    for ranks in AXES["ranks"]:
        chosen = [cell for cell in cells if cell["ranks"] == ranks]
        jobs = [cell | options | {"folder": str(folder / name_of(cell))} for cell in chosen]
        done, _ = launch(jobs, ranks, timeout=3600, module="tests.scale.cells")
        results |= dict(zip(map(name_of, chosen), done, strict=True))
    return results


def judge(cells: list[dict], folder: Path, **options) -> list[str]:
    """The names of the cells that fail; every cell's outcome goes to the table."""
    results, failed = train(cells, folder, **options), []
    for cell in cells:
        name, reference = name_of(cell), folder / f"0-1-fp32-plain-{cell['head']}"
        outcome = results[name]
        if refused(cell):
            good = outcome.get("kind") == "SpecError"
            told = "refused"
        elif outcome.get("finished"):
            difference = relative(losses(folder / name), losses(reference))
            good, told = difference < TOLERANCE[cell["precision"]], f"{difference:.1e}"
        else:
            good, told = False, outcome["error"]
        TABLE.append({"cell": name, "outcome": told, "as_it_should_be": good})
        if not good:
            failed.append(name)
    return failed


def test_covering_cells_agree(tmp_path):
    assert judge(COVERING, tmp_path, steps=COVERING_STEPS) == []


@pytest.mark.slow
def test_all_cells_agree(tmp_path):
    assert judge(EVERY, tmp_path) == []


def test_the_stored_table_holds_every_cell():
    stored = json.loads((TOP / "tools/results/matrix.json").read_text())
    outcomes = {row["cell"]: row["outcome"] for row in stored["rows"]}
    assert stored["commit"] and list(outcomes) == list(map(name_of, EVERY))
    for cell in EVERY:
        outcome = outcomes[name_of(cell)]
        assert outcome == "refused" if refused(cell) else float(outcome) < TOLERANCE[cell["precision"]], name_of(cell)
