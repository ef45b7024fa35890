"""Image files as the network's pixels: every format, size and colour, and what is wrong with a bad one."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.shared import image_decoding
from pipeline.shared.image_decoding import ImageError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
RED = (200, 30, 10)


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def decode(content: bytes) -> np.ndarray:
    return image_decoding.decode(content, 32)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(size: tuple[int, int], data: bytes, depth: int = 8, colours: int = 2, interlaced: int = 0) -> bytes:
    """A PNG whose header claims a size, with these bytes as its pixels."""
    header = struct.pack(">IIBBBBB", *size, depth, colours, 0, 0, interlaced)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def header_of(size: tuple[int, int]) -> bytes:
    """A small PNG whose header claims another size."""
    return png(size, bytes(200))


def problem(content: bytes) -> str:
    """What is wrong with an image."""
    with pytest.raises(ImageError) as caught:
        decode(content)
    return str(caught.value)


def assert_shows(content: bytes, colour: tuple[int, ...], by: int = 6) -> None:
    decoded = decode(content)
    assert decoded.shape == (32, 32, 3)
    assert (np.abs(decoded.astype(int) - colour) <= by).all()


@pytest.mark.parametrize("options", [{"kind": "PNG"}, {"kind": "WEBP", "lossless": True}])
def test_pixels_of_the_networks_size_stay_as_they_are(options: dict[str, Any]) -> None:
    decoded = decode(file(Image.fromarray(PIXELS), **options))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (640, 480), (31, 3000)])
def test_every_format_and_size_gives_the_colour_that_it_shows(kind: str, size: tuple[int, int]) -> None:
    content = file(Image.new("RGB", size, RED), kind)
    assert_shows(content, RED)
    assert image_decoding.decode(content, 48).shape == (48, 48, 3)


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_the_middle_square_is_kept(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "blue")
    image.paste(Image.new("RGB", (32, 32), RED), ((size[0] - 32) // 2, (size[1] - 32) // 2))
    assert_shows(file(image), RED, by=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_are_turned_as_exif_says(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (64, 64), "white")
    upright.paste(Image.new("RGB", (32, 16), "red"))  # above, on the left
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that each one undoes
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    decoded = decode(file(stored, kind, exif=exif)).astype(int)
    assert np.abs(decoded[2:5, 4:12] - (255, 0, 0)).max() <= 40
    assert np.abs(decoded[20:, :] - (255, 255, 255)).max() <= 40


TWO_TAGS, ORIENTATION = b"Exif\0\0II*\0\x08\0\0\0\2\0", struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
MODEL, RESOLUTION = struct.pack("<HHII", 0x0110, 5, 1, 38), struct.pack("<HHII", 0x011A, 2, 8, 38)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's
@pytest.mark.parametrize(
    ("exif", "turned"),
    [
        (TWO_TAGS + MODEL + ORIENTATION + bytes(4) + struct.pack("<II", 1, 2), True),  # as a fraction
        (TWO_TAGS + ORIENTATION + RESOLUTION + bytes(4) + b"72 dpi\0\0", True),  # as text
        (b"Exif\0\0II*\0", False),
        (b"Exif\0\0nothing", False),
    ],
    ids=["model", "resolution", "cut off", "nonsense"],
)
def test_unexpected_exif_refuses_no_photo(exif: bytes, turned: bool) -> None:
    image = Image.new("RGB", (64, 64), "white")
    image.paste(Image.new("RGB", (64, 20), "red"))
    kind = "JPEG" if turned else "PNG"  # of which Pillow refuses to read what is damaged
    decoded = decode(file(image, kind, exif=exif)).astype(int)
    right = decoded[8:24, -6:] if turned else decoded[:6, 8:24]
    assert np.abs(right - (255, 0, 0)).max() <= 40


PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
FRAMES = [Image.new("RGB", (40, 40), colour) for colour in (RED, "blue", "green")]
MORE_FRAMES: dict[str, Any] = {"save_all": True, "append_images": FRAMES[1:], "duration": 50}
GREY = (77, 77, 77)
PALETTE = Image.new("RGB", (40, 40), RED).quantize(4)
COLOURS: dict[str, tuple[bytes, tuple[int, ...]]] = {
    "1 bit": (file(Image.new("1", (40, 40), 1)), (255, 255, 255)),
    "grey": (file(Image.new("L", (40, 40), 77)), GREY),
    "grey, alpha": (file(Image.new("LA", (40, 40), (77, 0))), GREY),
    "16 bits": (file(Image.fromarray(np.full((40, 40), 77 * 257, np.uint16))), GREY),
    "transparent": (file(Image.new("RGBA", (40, 40), (*RED, 0))), RED),
    "palette": (file(PALETTE), RED),
    "palette, alpha": (file(PALETTE, transparency=1), RED),
    "grey jpeg": (file(Image.new("L", (40, 40), 77), "JPEG"), GREY),
    "cmyk jpeg": (file(Image.new("CMYK", (40, 40), (0, 255, 255, 0)), "JPEG"), (255, 0, 0)),
    "profile": (file(Image.new("RGB", (40, 40), RED), icc_profile=PROFILE), RED),
    "animated png": (file(FRAMES[0], "PNG", **MORE_FRAMES), RED),
    "animated webp": (file(FRAMES[0], "WEBP", **MORE_FRAMES), RED),
}


@pytest.mark.parametrize("kind", COLOURS)
def test_every_kind_of_image_becomes_rgb(kind: str) -> None:
    content, colour = COLOURS[kind]
    assert_shows(content, colour, by=6 if "jpeg" in kind or "webp" in kind else 1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_a_cut_off_file_is_an_error(kind: str, part: float) -> None:
    whole = file(Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)), kind)
    assert "damaged" in problem(whole[: int(len(whole) * part)])


KINDS = [(8, 0, 1), (16, 0, 2), (8, 2, 3), (16, 2, 6), (8, 4, 2), (8, 6, 4), (16, 6, 8), (1, 0, 1 / 8)]


@pytest.mark.parametrize(("depth", "colours", "wide"), KINDS)
def test_a_png_without_its_last_row_is_an_error(depth: int, colours: int, wide: float) -> None:
    row = b"\0" + b"\x7f" * int(32 * wide)
    decode(png((32, 32), row * 32, depth, colours))
    for rows in (0, 1, 31):
        assert "damaged or cut off" in problem(png((32, 32), row * rows, depth, colours))


def test_an_interlaced_png_without_its_last_row_is_an_error() -> None:
    """A 5 x 3 image has passes of 1 x 1, 1 x 1, 2 x 0, 1... pixels: of the seven, one is empty."""
    passes = [(1, 1), (1, 1), (0, 0), (1, 1), (3, 1), (2, 2), (5, 1)]
    data = b"".join((b"\0" + b"\x7f" * 3 * columns) * rows for columns, rows in passes)
    assert_shows(png((5, 3), data, interlaced=1), (127, 127, 127))
    assert "damaged or cut off" in problem(png((5, 3), data[:-16], interlaced=1))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_file_is_an_image_error_or_an_image(kind: str) -> None:
    whole = file(Image.fromarray(PIXELS), kind)
    for position in range(0, len(whole), max(1, len(whole) // 200)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        with contextlib.suppress(ImageError):
            assert decode(bytes(damaged)).shape == (32, 32, 3)


OTHERS = [file(Image.fromarray(PIXELS), kind) for kind in ("GIF", "BMP", "TIFF", "TGA", "EPS", "PPM")]


@pytest.mark.parametrize("content", [b"", bytes(100), b"<svg></svg>", b"text", *OTHERS], ids=range(10))
def test_what_is_not_png_jpeg_or_webp_is_an_error(content: bytes) -> None:
    assert "must be a PNG, JPEG or WebP image" in problem(content)


@pytest.mark.parametrize("size", [(10_000, 4_001), (9_500, 9_500), (20_000, 20_000)])
def test_over_forty_megapixels_are_refused_before_they_take_memory(size: tuple[int, int]) -> None:
    """Of a file of a few bytes, as of one that is all there. The last two make Pillow warn and raise."""
    for look in (decode, image_decoding.count_pixels):
        with pytest.raises(ImageError, match="must have at most 40,000,000 pixels; received"):
            look(header_of(size))


def test_forty_megapixels_are_allowed_and_counted_without_being_decoded() -> None:
    assert_shows(file(Image.new("L", (10_000, 4_000), 77), compress_level=1), (77, 77, 77), by=0)
    assert image_decoding.count_pixels(header_of((10_000, 4_000))) == 40_000_000


def test_a_jpeg_of_many_scans_is_refused() -> None:
    """Each costs a pass over all pixels, and takes a few bytes."""
    whole = file(Image.fromarray(PIXELS), "JPEG", progressive=True)
    decode(whole)
    last = whole.rindex(b"\xff\xda")
    assert "at most 100 scans" in problem(whole[:last] + whole[last:-2] * 100 + whole[-2:])


def test_base64_with_and_without_line_breaks() -> None:
    text = image_decoding.encode_base64(PIXELS)
    for sent in (text, "\n".join(text[i : i + 76] for i in range(0, len(text), 76))):
        assert np.array_equal(decode(image_decoding.from_base64(sent)), PIXELS)


@pytest.mark.parametrize("text", ["no base64!", "abc", "é" * 8, "data:image/png;base64,AAAA"])
def test_what_is_not_base64_is_an_error_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ImageError, match="must be base64") as caught:
        image_decoding.from_base64(text)
    assert text not in str(caught.value)
