"""The one opener of images: any file that Pillow reads, in its right tones and the right way up."""

from pathlib import Path

import numpy as np
from PIL import Image

from di4c.errors import DataError
from di4c_plugins.datasets.reading import open_plain, reading

BITS_PER_SAMPLE, PHOTOMETRIC, WHITE_IS_ZERO = 258, 262, 0
"""Tags of a TIFF."""
ORIENTATION = 274
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What makes an image of EXIF's orientation upright."""
REMEDY = "convert it to a PNG or JPEG of 8 bits a channel"


Crop = tuple[float, float, float]
"""(share, x, y) of a square: its side as a share of the largest one's, and how far right and down it lies, 0 to 1."""
CENTRAL: Crop = (1.0, 0.5, 0.5)


def read_square(file: Path, shape: tuple[int, int, int], crop: Crop = CENTRAL) -> np.ndarray:
    """A square of the image, the central one unless told, scaled to the shape (C, H, W): [C, H, W] uint8. DataError if the file is no image.

    Pixels of 9 to 16 bits keep their 8 leading ones, by the depth that the file declares; those of 32 bits, which declare
    no white, are refused. Transparent parts lie on white. EXIF's orientation is applied. Of an animation or of several
    pages it is the first one.
    """
    channels, height, width = shape
    with reading(file, "an image"), open_plain(file) as opened, Image.open(opened) as image:
        colour = in_channels(image, channels, file)
    share, x, y = crop
    side = max(round(min(colour.size) * share), 1)
    left, top = int((colour.width - side) * x), int((colour.height - side) * y)
    scaled = colour.resize((width, height), Image.Resampling.BOX if side >= width else Image.Resampling.BICUBIC,
                           box=(left, top, left + side, top + side))  # fmt: skip
    pixels = np.asarray(scaled)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def in_channels(image: Image.Image, channels: int, source: object) -> Image.Image:
    """The image in 1 (grey) or 3 channels of 8 bits, upright and opaque. DataError where its tones cannot be told."""
    image = on_white(eight_bits(upright(image), image, source))
    return image.convert("L" if channels == 1 else "RGB")


def upright(image: Image.Image) -> Image.Image:
    """The image as EXIF's orientation says that it is to be seen."""
    image.load()  # Pillow turns a TIFF by itself here, and takes the tag away; PNGs may tell it behind their pixels
    turn = TURNS.get(image.getexif().get(ORIENTATION))
    return image if turn is None else image.transpose(turn)


def eight_bits(image: Image.Image, declared: Image.Image, source: object) -> Image.Image:
    """The image with 8 bits a channel; `declared`: the image as opened, which knows its file's format and tags."""
    tags = getattr(declared, "tag_v2", {})
    if image.mode.startswith("I;16") or (image.mode == "I" and declared.format in ("PNG", "PPM")):
        depth = tags.get(BITS_PER_SAMPLE, (16,))[0]
        tones = np.asarray(image).astype(np.int64) >> (depth - 8)
        if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
            tones = 255 - tones
        grey = Image.fromarray(tones.clip(0, 255).astype(np.uint8))
        clear = image.info.get("transparency")
        if clear is not None:
            grey.putalpha(Image.fromarray(np.where(np.asarray(image) == clear, 0, 255).astype(np.uint8)))
        return grey
    if image.mode[0] in "IF":
        raise DataError(f"{source}: pixels of mode {image.mode} (32 bits, or signed) declare no white; {REMEDY}")
    return image


def on_white(image: Image.Image) -> Image.Image:
    """The image with its transparent parts on white; as it is, if it has none."""
    if image.mode not in ("LA", "La", "PA", "RGBA", "RGBa") and "transparency" not in image.info:
        return image
    colours = image.convert("RGBA")
    if colours.getextrema()[3][0] == 255:
        return image
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), colours).convert("RGB")
