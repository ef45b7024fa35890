"""Image files as the network's pixels: every format, size and colour, and what is wrong with a bad one."""

import contextlib
import io
import struct
import time
import zlib
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import ExifTags, Image, ImageCms

from pipeline.shared import image_decoding
from pipeline.shared.image_decoding import ImageError

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
RED = (200, 30, 10)
BLUE = (0, 0, 255)


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def decode(content: bytes, trusted: bool = False) -> np.ndarray:
    return image_decoding.decode(content, 32, trusted)


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


def problem(content: bytes, trusted: bool = False) -> str:
    """What is wrong with an image."""
    with pytest.raises(ImageError) as caught:
        decode(content, trusted)
    return str(caught.value)


def assert_shows(content: bytes, colour: tuple[int, ...], by: int = 6, trusted: bool = False) -> None:
    decoded = decode(content, trusted)
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


@pytest.mark.parametrize(("size", "bar"), [((64, 32), 8), ((400, 300), 4), ((300, 400), 4)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_padded_image_is_whole_between_grey_bars(size: tuple[int, int], bar: int, kind: str) -> None:
    """Its first quarter is blue, which a crop would cut."""
    image, (width, height) = Image.new("RGB", size, RED), size
    image.paste(BLUE, (0, 0, width // 4, height) if width > height else (0, 0, width, height // 4))
    decoded = image_decoding.decode(file(image, kind), 32, fit="pad").astype(int)
    if height > width:
        decoded = decoded.transpose(1, 0, 2)  # so the bars are above and below
    assert (decoded[:bar] == 128).all()
    assert (decoded[32 - bar :] == 128).all()
    shown = decoded[bar : 32 - bar]
    assert np.abs(shown[:, :6] - BLUE).max() <= 12
    assert np.abs(shown[:, 11:] - RED).max() <= 12


def test_a_very_narrow_image_can_be_padded() -> None:
    decoded = image_decoding.decode(file(Image.new("RGB", (3000, 9), RED)), 32, fit="pad")
    assert (decoded[15] == RED).all()
    assert (np.delete(decoded, 15, axis=0) == 128).all()


def test_a_turned_image_is_padded_where_it_is_narrow() -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = file(Image.new("RGB", (64, 32), RED), "JPEG", exif=exif)
    decoded = image_decoding.decode(content, 32, fit="pad").astype(int)
    assert (decoded[:, :8] == 128).all()
    assert np.abs(decoded[:, 8:24] - RED).max() <= 6
    assert np.array_equal(image_decoding.decode(file(Image.fromarray(PIXELS)), 32, fit="pad"), PIXELS)


def test_a_large_jpeg_is_decoded_at_a_part_of_its_size_and_looks_the_same() -> None:
    """A photograph of smooth colours, of 3 megapixels, which lie about as decoded in full."""
    rows, columns = np.mgrid[0:1500, 0:2000] / 400
    photo = np.stack([np.sin(rows), np.cos(columns), np.sin(rows * columns)], axis=-1) * 100 + 128
    image = Image.fromarray(photo.astype(np.uint8))
    in_full = decode(file(image)).astype(int)
    assert np.abs(decode(file(image, "JPEG", quality=95)) - in_full).max() <= 6
    with Image.open(io.BytesIO(file(image, "JPEG"))) as opened:
        opened.draft(None, (64, 64))
        assert opened.size == (250, 188)  # an eighth


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


@pytest.mark.parametrize("size", [(8_000, 6_000), (16_000, 3_900)], ids=["48 megapixels", "panorama"])
def test_photographs_of_a_phone_are_read_from_a_persons_own_files(size: tuple[int, int]) -> None:
    content = file(Image.new("L", size, 77), "JPEG")
    assert "must have at most 40,000,000 pixels; received " in problem(content)
    assert_shows(content, GREY, trusted=True)


def test_own_files_may_have_250_megapixels_whatever_pillow_allows() -> None:
    assert "damaged or cut off" in problem(header_of((16_320, 12_240)), trusted=True)
    assert "must have at most 250,000,000 pixels; received 2" in problem(
        header_of((20_000, 20_000)), trusted=True
    )


def half_red(kind: str, **options: Any) -> bytes:
    """A file of 96 x 64 pixels, the left half of which is red."""
    image = Image.new("RGB", (96, 64), "white")
    image.paste(Image.new("RGB", (48, 64), "red"))
    return file(image, kind, **options)


def test_heic_is_read_from_a_persons_own_files_and_turned_but_not_from_a_request() -> None:
    pillow_heif.register_heif_opener()
    exif = Image.Exif()
    upright = half_red("HEIF")
    exif[0x0112] = 6
    turned = half_red("HEIF", exif=exif.tobytes())
    assert (np.abs(decode(upright, trusted=True).astype(int)[:, :14] - (255, 0, 0)) <= 40).all()
    assert (np.abs(decode(turned, trusted=True).astype(int)[:14] - (255, 0, 0)) <= 40).all()
    assert problem(upright).startswith("must be a PNG, JPEG or WebP image; received ")
    for cut in (50, len(upright) // 2, len(upright) - 40):
        assert "damaged" in problem(upright[:cut], trusted=True)


# JPEG: the number of scans

PROGRESSIVE = file(Image.fromarray(PIXELS), "JPEG", progressive=True)
NOISE = Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8))
SOI_AND_SCANS = b"\xff\xd8\xff" + b"\xff\xda\0\2" * 99


def with_scans(content: bytes, count: int, before: bytes = b"") -> bytes:
    """A JPEG with `count` more scans, its last one repeated, each of which follows some bytes."""
    end = content.index(b"\xff\xd9")
    last = content.rindex(b"\xff\xda", 0, end)
    return content[:end] + (before + content[last:end]) * count + content[end:]


def mpo(**options: Any) -> bytes:
    """Two images in one file, as phones write them, the first of 10 scans."""
    images = {"save_all": True, "append_images": [Image.fromarray(PIXELS)]}
    return file(Image.fromarray(PIXELS), "MPO", progressive=True, **images, **options)


@pytest.mark.parametrize(
    ("content", "scans"),
    [
        (file(NOISE, "JPEG"), 1),
        (file(NOISE, "JPEG", progressive=True), 10),
        (file(NOISE.convert("CMYK"), "JPEG", progressive=True), 18),
        (file(NOISE, "JPEG", restart_marker_blocks=1), 1),
        (file(NOISE, "JPEG", comment=SOI_AND_SCANS), 1),
        (mpo(), 10),
        (file(NOISE, "JPEG") + bytes(9) + SOI_AND_SCANS, 1),  # a motion photo: a video is behind the image
        (mpo() + SOI_AND_SCANS, 10),
    ],
    ids=["baseline", "progressive", "cmyk", "restarts", "comment", "mpo", "video", "mpo and video"],
)
def test_an_honest_jpeg_has_few_scans(content: bytes, scans: int) -> None:
    assert image_decoding.count_scans(content) == scans
    decode(content)


HIDDEN = [b"", b"\xff\xff", b"\xff\xd0\xff\x01", b"\0\0\xff\0", b"\xff\xfe\0\4\xff\xd9"]


@pytest.mark.parametrize("before", HIDDEN, ids=["plain", "fill", "restart", "garbage", "comment"])
@pytest.mark.parametrize("content", [PROGRESSIVE, mpo()], ids=["jpeg", "mpo"])
def test_a_jpeg_of_more_than_twenty_scans_is_refused(content: bytes, before: bytes) -> None:
    """Each costs a pass over all pixels, and takes a few bytes. libjpeg finds them behind anything."""
    decode(with_scans(content, 10, before))
    assert problem(with_scans(content, 11, before)) == "a JPEG must have at most 20 scans; received 21"


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\xfe\0\2", b"\xff\xd0", b"\xff\0", b"\xff\xda"])
def test_scans_are_counted_in_a_time_that_grows_with_the_file(filling: bytes) -> None:
    content = PROGRESSIVE[:-2] + filling * (2**20 // len(filling))
    begun = time.process_time()
    image_decoding.count_scans(content)
    assert time.process_time() - begun < 2


def test_base64_with_and_without_line_breaks() -> None:
    text = image_decoding.encode_base64(PIXELS)
    for sent in (text, "\n".join(text[i : i + 76] for i in range(0, len(text), 76))):
        assert np.array_equal(decode(image_decoding.from_base64(sent)), PIXELS)


@pytest.mark.parametrize("text", ["no base64!", "abc", "é" * 8, "data:image/png;base64,AAAA"])
def test_what_is_not_base64_is_an_error_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ImageError, match="must be base64") as caught:
        image_decoding.from_base64(text)
    assert text not in str(caught.value)
