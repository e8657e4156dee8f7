"""Sets pictures of samples side by side under titles: python tools/side_by_side.py "real=REPORT/grids/data.png" … --out PNG"""

import argparse
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

INK = (35, 39, 47)
GAP = 14


def side_by_side(pictures: list[tuple[str, Image.Image]], *, columns: int) -> Image.Image:
    """One white sheet of the (title, picture) pairs, `columns` a row, all in cells of the largest one's size."""
    font = ImageFont.load_default(size=max(13, pictures[0][1].height // 36))
    title = round(font.size * 1.6)
    width, height = (max(picture.size[axis] for _, picture in pictures) for axis in (0, 1))
    columns = min(columns, len(pictures))
    lines = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, lines * (title + height + GAP) - GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for n, (name, picture) in enumerate(pictures):
        left, top = n % columns * (width + GAP), n // columns * (title + height + GAP)
        pen.text((left + 2, top + title // 2), name, INK, font, anchor="lm")
        sheet.paste(picture, (left, top + title))
    return sheet


def main() -> None:
    arguments = _arguments()
    opened = [(name, Image.open(path).convert("RGB")) for name, path in arguments.pictures]
    if arguments.scale != 1:
        opened = [(name, p.resize([round(side * arguments.scale) for side in p.size], Image.Resampling.BOX)) for name, p in opened]
    side_by_side(opened, columns=arguments.columns).save(arguments.out, optimize=True)
    print(arguments.out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=_titled, metavar="TITLE=PNG", help="row by row")
    parser.add_argument("--columns", type=int, default=4, metavar="N", help="pictures a row (4)")
    parser.add_argument("--scale", type=float, default=1.0, metavar="X", help="shrink the pictures to this share of their size (1)")
    parser.add_argument("--out", required=True, type=Path, metavar="PNG", help="the file to write")
    return parser.parse_args()


def _titled(text: str) -> tuple[str, Path]:
    title, _, path = text.partition("=")
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"expected TITLE=PNG with a picture that is there, found {text!r}")
    return title, Path(path)


if __name__ == "__main__":
    main()
