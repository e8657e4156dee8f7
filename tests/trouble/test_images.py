"""One opener of images: tones, orientation, transparency, and what cannot be read."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from di4c.errors import DataError
from di4c_plugins.datasets.image_file import in_channels, read_square

RAMP = (np.arange(64).reshape(8, 8) * 1024).astype(np.uint16)
"""0 to 64 512, as 16 bits."""
LEADING = (RAMP >> 8).astype(np.uint8)
SHAPE = (1, 8, 8)


def save_png(path):
    Image.fromarray(RAMP).save(path.with_suffix(".png"))
    return path.with_suffix(".png")


def save_tiff(path, order="<u2", **tags):
    Image.fromarray(RAMP.astype(order)).save(path.with_suffix(".tif"), **tags)
    return path.with_suffix(".tif")


def save_pgm(path, white=65535):
    values = RAMP >> (16 - white.bit_length())
    path.with_suffix(".pgm").write_bytes(b"P5 8 8 %d\n" % white + values.astype(">u2").tobytes())
    return path.with_suffix(".pgm")


DEEP = {
    "png": (save_png, LEADING),
    "tiff, little end first": (save_tiff, LEADING),
    "tiff, big end first": (lambda path: save_tiff(path, ">u2"), LEADING),
    "tiff whose zero is white": (lambda path: save_tiff(path, tiffinfo={262: 0}), 255 - LEADING),
    "pgm": (save_pgm, LEADING),
    "pgm of 10 bits": (lambda path: save_pgm(path, 1023), LEADING),
}


@pytest.mark.parametrize("name", DEEP)
def test_trouble_02_deep_pixels_are_scaled_by_their_depth(tmp_path, name):
    save, wanted = DEEP[name]
    file = save(tmp_path / "x")
    found = read_square(file, SHAPE)[0].astype(int)
    assert np.abs(found - wanted).max() <= 1, found
    assert (read_square(file, (3, 8, 8)) == found).all()


def test_trouble_02_twelve_bits_are_scaled_by_twelve(tmp_path):
    """A TIFF of 12-bit pixels, two of them in three bytes; the head is written by hand."""
    values = (np.arange(64) * 64).reshape(8, 8)
    pairs = values.reshape(-1, 2)
    triples = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1)
    packed = triples.astype(np.uint8).tobytes()
    tags = [(256, 4, 8), (257, 4, 8), (258, 3, 12), (259, 3, 1), (262, 3, 1)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, 8), (279, 4, len(packed))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    head = b"II*\x00" + struct.pack("<I", 8 + len(packed))
    (tmp_path / "x.tif").write_bytes(head + packed + struct.pack("<H", len(tags)) + entries + bytes(4))
    assert (read_square(tmp_path / "x.tif", SHAPE)[0] == values >> 4).all()


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_trouble_02_pixels_without_a_declared_white_are_refused(tmp_path, kind):
    Image.fromarray(RAMP.astype(kind)).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif: pixels of mode [IF]"):
        read_square(tmp_path / "x.tif", SHAPE)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LA", "PA", "RGBa"])
@pytest.mark.parametrize("channels", [1, 3])
def test_trouble_02_every_mode_keeps_white_white(mode, channels):
    image = Image.new("RGB", (4, 4), "white")
    for step in {"RGBa": ("RGBA", "RGBa"), "PA": ("LA", "PA")}.get(mode, (mode,)):
        image = image.convert(step)
    assert (np.asarray(in_channels(image, channels, "x")) == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_trouble_02_transparent_parts_lie_on_white(tmp_path, channels):
    clear = Image.new("RGBA", (4, 4), (9, 9, 9, 0))
    palette = Image.new("P", (4, 4), 3)
    palette.putpalette([0] * 768)
    palette.info["transparency"] = 3
    for image in (clear, clear.convert("LA"), palette):
        assert (np.asarray(in_channels(image, channels, "x")) == 255).all()
    half = np.asarray(in_channels(Image.new("RGBA", (1, 1), (0, 0, 0, 128)), 1, "x"))
    assert abs(int(half[0, 0]) - 127) <= 1
    opaque = np.random.default_rng(0).integers(0, 256, (4, 4, 4), dtype=np.uint8)
    opaque[..., 3] = 255
    found = np.asarray(in_channels(Image.fromarray(opaque), 3, "x"))
    assert (found == opaque[..., :3]).all()


STORED = {
    2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90", 7: "TRANSVERSE",
    8: "ROTATE_270",
}  # fmt: skip
"""How a camera stores what was upright, by EXIF's orientation."""


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_trouble_12_images_stand_upright(tmp_path, orientation, suffix):
    quarters = np.array([[240, 160], [80, 0]], dtype=np.uint8)
    upright = Image.fromarray(quarters.repeat(16, 0).repeat(16, 1))
    turned = STORED.get(orientation)
    image = upright if turned is None else upright.transpose(Image.Transpose[turned])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.convert("RGB").save(tmp_path / f"x{suffix}", exif=exif)
    found = read_square(tmp_path / f"x{suffix}", (1, 2, 2))[0]
    assert np.abs(found.astype(int) - quarters).max() < 20, found


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_trouble_02_a_grey_that_is_declared_transparent_lies_on_white(tmp_path, kind):
    tones = (LEADING if kind is np.uint8 else RAMP).astype(kind)
    Image.fromarray(tones).save(tmp_path / "x.png", transparency=int(tones[0, 1]))
    found = read_square(tmp_path / "x.png", SHAPE)[0]
    wanted = LEADING.copy()
    wanted[0, 1] = 255
    assert np.abs(found.astype(int) - wanted).max() <= 1, found


def test_of_an_animation_the_first_picture_is_read(tmp_path):
    first, second = (Image.new("RGB", (4, 4), colour) for colour in ("white", "black"))
    for name in ("x.gif", "x.png", "x.webp", "x.tif"):
        first.save(tmp_path / name, save_all=True, append_images=[second])
        assert read_square(tmp_path / name, (3, 4, 4)).min() > 250, name


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_trouble_26_garbage_after_the_pixels_names_the_file(tmp_path):
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    pixels = zlib.compress(b"".join(b"\0" + bytes(8) for _ in range(8)))
    (tmp_path / "x.png").write_bytes(head + chunk(b"IDAT", pixels) + b"garbage that is no chunk")
    try:
        assert (read_square(tmp_path / "x.png", SHAPE) == 0).all()
    except DataError as error:
        assert "x.png: cannot be read as an image" in str(error)


def test_trouble_26_an_image_too_large_is_refused_by_name(tmp_path):
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    (tmp_path / "x.png").write_bytes(head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"x\.png: cannot be read as an image \(DecompressionBombError"):
        read_square(tmp_path / "x.png", SHAPE)
