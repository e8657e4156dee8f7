"""Sets pictures of samples side by side under titles: python tools/side_by_side.py "real=REPORT/grids/data.png" … --out PNG"""

import argparse
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from di4c.command_line import command, number, path_argument, positive
from di4c.errors import DataError
from di4c.paths import with_ending

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


def opened_picture(file: Path) -> Image.Image:
    """The picture of a file. Raises DataError where it is none."""
    try:
        return Image.open(file).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{file}: cannot be read as a picture: {error}") from error


@command
def main() -> None:
    arguments = _arguments()
    opened = [(name, opened_picture(file)) for name, file in arguments.pictures]
    if arguments.scale != 1:
        shrunk = lambda picture: [max(1, round(side * arguments.scale)) for side in picture.size]
        opened = [(name, picture.resize(shrunk(picture), Image.Resampling.BOX)) for name, picture in opened]
    out = with_ending(arguments.out, ".png")
    side_by_side(opened, columns=arguments.columns).save(out, optimize=True)
    print(out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=_titled, metavar="TITLE=PNG", help="row by row")
    parser.add_argument("--columns", type=number(1), default=4, metavar="N", help="pictures a row (4)")
    parser.add_argument(
        "--scale",
        type=positive(100),
        default=1.0,
        metavar="X",
        help="shrink the pictures to this share of their size (1)",
    )
    parser.add_argument("--out", required=True, type=path_argument, metavar="PNG", help="the file to write")
    return parser.parse_args()


def _titled(text: str) -> tuple[str, Path]:
    title, _, given = text.partition("=")
    if not given or not path_argument(given).is_file():
        raise argparse.ArgumentTypeError(f"expected TITLE=PNG with a picture that is there, found {text!r}")
    return title, path_argument(given)


if __name__ == "__main__":
    sys.exit(main())
