"""The tables of README and docs/ are those of the stored results."""

import subprocess
import sys
from pathlib import Path

from tests.documents import PAGES, text_of

ROOT = Path(__file__).parents[1]


def test_every_stored_result_has_its_page():
    """A file of tools/results is linked to from a page, or it is a leftover."""
    told = "".join(text_of(page) for page in PAGES)
    names = {file.name for file in (ROOT / "tools/results").iterdir()} - {"README.md"}
    assert names and not [name for name in names if f"{name})" not in told]


def test_the_tables_are_those_of_the_stored_results():
    done = subprocess.run(
        [sys.executable, ROOT / "tools/research/update_readme.py", "--check"],
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
