"""Sample pictures under titles on one sheet."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

TOOL = Path(__file__).parents[2] / "tools/side_by_side.py"


def test_every_picture_is_on_the_sheet_row_by_row(tmp_path):
    colours = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
    for name, colour in colours.items():
        Image.new("RGB", (60, 40), colour).save(tmp_path / f"{name}.png")
    command = [sys.executable, TOOL, *(f"{name}={tmp_path / name}.png" for name in colours), "--columns", "2",
               "--scale", "0.5", "--out", tmp_path / "sheet.png"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    where = {name: np.argwhere((sheet == colour).all(-1)) for name, colour in colours.items()}
    assert all(len(places) == 30 * 20 for places in where.values())
    assert (where["red"][0] == where["green"][0] * [1, 0] + [0, where["red"][0][1]]).all()
    assert where["blue"][0][0] > where["red"][-1][0] and where["blue"][0][1] == where["red"][0][1]


def test_a_picture_that_is_not_there_is_told(tmp_path):
    command = [sys.executable, TOOL, "real=nowhere.png", "--out", tmp_path / "sheet.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "nowhere.png" in done.stderr and not (tmp_path / "sheet.png").exists()
