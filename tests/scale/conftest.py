"""Prints the matrix's table after the tests, and with --matrix-out FILE stores it."""

import os
import platform
from pathlib import Path

from di4c.engine.run_folder import code_commit
from di4c.evaluation.table import write_json

TABLE: list[dict] = []
"""A row a cell: its name, what became of it and whether that is as it should be."""


def pytest_addoption(parser):
    parser.addoption("--matrix-out", type=Path, help="JSON file for the table of tests/scale/test_matrix.py")


def pytest_terminal_summary(terminalreporter, config):
    if not TABLE:
        return
    terminalreporter.section("scale matrix: largest relative difference from the fp32 losses of stage 0 on one rank")
    for row in TABLE:
        terminalreporter.write_line(f"{row['cell']:32} {row['outcome']}{'' if row['as_it_should_be'] else '   FAILED'}")
    if path := config.getoption("--matrix-out"):
        machine = f"{os.cpu_count()} CPUs, {platform.machine()}"
        write_json(path, TABLE, about=ABOUT, commit=code_commit(), machine=machine)


ABOUT = (
    "Largest relative difference of a cell's losses over 30 steps (seed 0) from those of fp32 at stage 0 on one rank, same head; the "
    "bounds are 1e-4 for fp32, 1e-2 for bf16; refused: DeepSpeed cannot, and a SpecError says so. "
    "pytest -q tests/scale/test_matrix.py -k all_cells --matrix-out tools/results/matrix.json"
)
