"""A contact sheet of small images."""

import math

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAGE = (226, 229, 235)
INK = (70, 76, 88)
GAP = 4


def image_grid(pixels: np.ndarray, labels: np.ndarray | None = None, scale: int = 4) -> Image.Image:
    """A picture of the images [n, h, w] or [n, h, w, 3] (uint8), each pixel enlarged to scale × scale.

    Without labels the sheet is about square. With labels [n] each class that occurs has its own rows, its number in the
    margin; images without a label (−1) come first, under a dash.
    """
    rows = _rows(len(pixels)) if labels is None else _rows_by_class(labels)
    columns = max((len(indices) for _, indices in rows), default=1)
    height, width = (side * scale + GAP for side in pixels.shape[1:3])
    margin = 0 if labels is None else max(20, height // 2)
    sheet = Image.new("RGB", (margin + columns * width + GAP, max(len(rows), 1) * height + GAP), PAGE)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=max(11, min(22, height // 2)))
    for row, (name, indices) in enumerate(rows):
        top = GAP + row * height
        if labels is not None:
            pen.text((margin // 2 + 1, top + (height - GAP) // 2), name, INK, font, anchor="mm")
        for column, index in enumerate(indices):
            tile = Image.fromarray(pixels[index]).resize((width - GAP, height - GAP), Image.Resampling.NEAREST)
            sheet.paste(tile.convert("RGB"), (margin + GAP + column * width - (GAP if margin else 0), top))
    return sheet


def _rows(num: int) -> list[tuple[str, np.ndarray]]:
    columns = math.ceil(math.sqrt(num))
    return [("", np.arange(start, min(start + columns, num))) for start in range(0, num, max(columns, 1))]


def _rows_by_class(labels: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(class name, its images) a row; a class with many images is wrapped, so that the sheet stays about square."""
    groups = [(label, np.flatnonzero(labels == label)) for label in np.unique(labels)]
    longest = max((len(indices) for _, indices in groups), default=1)
    columns = max(10, math.ceil(math.sqrt(len(labels))))
    rows = []
    for label, indices in groups:
        for start in range(0, len(indices), min(columns, longest)):
            name = ("–" if label < 0 else str(label)) if start == 0 else ""
            rows.append((name, indices[start : start + columns]))
    return rows
