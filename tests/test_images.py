"""Any image file becomes the pixels that it shows, or an error that says what is wrong with it."""

import base64
import contextlib
import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.data import images
from pipeline.data.images import ImageError
from pipeline.data.sources import _read_image as read_training_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
RED = (200, 30, 10)


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    written = io.BytesIO()
    image.save(written, kind, **options)
    return written.getvalue()


def close_to(pixels: np.ndarray, colour: tuple[int, int, int], by: int = 6) -> bool:
    return bool((np.abs(pixels.astype(int) - colour) <= by).all())


@pytest.mark.parametrize("options", [{"kind": "PNG"}, {"kind": "WEBP", "lossless": True}])
def test_pixels_of_the_networks_size_stay_as_they_are(options: dict[str, Any]) -> None:
    decoded = images.decode(file(Image.fromarray(PIXELS), **options))
    assert decoded.dtype == np.uint8
    assert np.array_equal(decoded, PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [(1, 1), (32, 32), (640, 480), (31, 3000)])
def test_every_format_and_size_gives_the_colour_that_it_shows(kind: str, size: tuple[int, int]) -> None:
    decoded = images.decode(file(Image.new("RGB", size, RED), kind))
    assert decoded.shape == (32, 32, 3)
    assert close_to(decoded, RED)


@pytest.mark.parametrize("size", [(96, 32), (32, 96)])
def test_the_middle_square_is_kept(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size, "blue")
    left, top = ((side - 32) // 2 for side in size)
    image.paste(Image.new("RGB", (32, 32), RED), (left, top))
    assert close_to(images.decode(file(image)), RED, by=0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_images_are_turned_as_exif_says(orientation: int, kind: str) -> None:
    upright = Image.new("RGB", (64, 64), "white")
    upright.paste(Image.new("RGB", (32, 16), "red"))  # above, on the left
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that each one undoes
    stored = upright if orientation == 1 else upright.transpose(Image.Transpose(back[orientation]))
    decoded = images.decode(file(stored, kind, exif=exif)).astype(int)
    assert close_to(decoded[2:5, 4:12], (255, 0, 0), by=40)
    assert close_to(decoded[20:, :], (255, 255, 255), by=40)


def palette() -> Image.Image:
    return Image.new("RGB", (40, 40), RED).quantize(4)


def transparent_palette() -> Image.Image:
    image = palette()
    image.info["transparency"] = 1
    return image


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (lambda: Image.new("1", (40, 40), 1), (255, 255, 255)),
        (lambda: Image.new("L", (40, 40), 77), (77, 77, 77)),
        (lambda: Image.new("LA", (40, 40), (77, 0)), (77, 77, 77)),
        (lambda: Image.fromarray(np.full((40, 40), 77 * 257, np.uint16)), (77, 77, 77)),
        (lambda: Image.new("RGBA", (40, 40), (*RED, 0)), RED),
        (lambda: Image.new("RGBA", (40, 40), (*RED, 128)), RED),
        (palette, RED),
        (transparent_palette, RED),
    ],
    ids=["1 bit", "grey", "grey, alpha", "16 bits", "transparent", "half transparent", "palette", "P, alpha"],
)
def test_every_kind_of_png_becomes_rgb(
    image: Callable[[], Image.Image], colour: tuple[int, int, int]
) -> None:
    assert close_to(images.decode(file(image())), colour, by=1)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_become_rgb(mode: str) -> None:
    image = Image.new("RGB", (40, 40), RED).convert(mode)
    assert close_to(images.decode(file(image, "JPEG")), image.convert("RGB").getpixel((0, 0)))  # type: ignore[arg-type]


def test_colour_profile_and_text_do_not_matter() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert close_to(images.decode(file(Image.new("RGB", (9, 9), RED), icc_profile=profile)), RED, by=0)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (40, 40), colour) for colour in (RED, "blue", "green")]
    animated = file(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
    assert close_to(images.decode(animated), RED)


def test_square_images_are_made_as_training_makes_them(tmp_path: Any) -> None:
    """Of `data.source: directory`, so that a model sees in service what it learnt from."""
    for number, mode in enumerate(("RGB", "RGBA", "L", "P", "CMYK")):
        noise = Image.fromarray(RNG.integers(0, 256, (77, 77, 3), dtype=np.uint8)).convert(mode)
        path = tmp_path / f"{number}.{'jpg' if mode == 'CMYK' else 'png'}"
        noise.save(path)
        assert np.array_equal(images.decode(path.read_bytes()), read_training_image(path)), mode


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("part", [0.02, 0.3, 0.9])
def test_a_cut_off_file_is_an_error(kind: str, part: float) -> None:
    whole = file(Image.fromarray(RNG.integers(0, 256, (200, 200, 3), dtype=np.uint8)), kind)
    with pytest.raises(ImageError, match="damaged"):
        images.decode(whole[: int(len(whole) * part)])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_damaged_file_is_an_image_error_or_an_image(kind: str) -> None:
    whole = file(Image.fromarray(PIXELS), kind)
    for position in range(0, len(whole), max(1, len(whole) // 200)):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        with contextlib.suppress(ImageError):
            assert images.decode(bytes(damaged)).shape == (32, 32, 3)


@pytest.mark.parametrize(
    "content", [b"", b"\x00" * 100, b"GIF89a" + b"\x00" * 50, b"<svg></svg>", b"not an image"]
)
def test_what_is_no_image_is_an_error(content: bytes) -> None:
    with pytest.raises(ImageError, match="a PNG, JPEG or WebP image is allowed"):
        images.decode(content)


def test_other_formats_are_refused() -> None:
    for kind in ("GIF", "BMP", "TIFF", "PPM"):
        with pytest.raises(ImageError, match="a PNG, JPEG or WebP image is allowed"):
            images.decode(file(Image.fromarray(PIXELS), kind))


@pytest.mark.parametrize("size", [(10_000, 5_001), (9_500, 9_500), (20_000, 20_000)])
def test_over_fifty_megapixels_are_refused_before_they_take_memory(size: tuple[int, int]) -> None:
    """Of a file of a few kilobytes, as of one that is all there. The last two make Pillow warn and raise."""
    content = header_of(size)
    with pytest.raises(ImageError, match="at most 50,000,000 pixels are allowed; received"):
        images.decode(content)


def test_fifty_megapixels_are_allowed() -> None:
    content = file(Image.new("L", (10_000, 5_000), 77), compress_level=1)
    assert close_to(images.decode(content), (77, 77, 77), by=0)


def header_of(size: tuple[int, int]) -> bytes:
    """A small PNG whose header claims another size."""
    content = bytearray(file(Image.new("L", (8, 8))))
    content[16:24] = struct.pack(">II", *size)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_base64_with_and_without_line_breaks() -> None:
    text = images.encode_base64(PIXELS)
    assert np.array_equal(images.decode_base64(text), PIXELS)
    assert np.array_equal(
        images.decode_base64("\n".join(text[i : i + 76] for i in range(0, len(text), 76))), PIXELS
    )


@pytest.mark.parametrize("text", ["no base64!", "abc", "é" * 8, "data:image/png;base64,AAAA"])
def test_what_is_not_base64_is_an_error_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ImageError, match="base64 is allowed") as caught:
        images.decode_base64(text)
    assert text not in str(caught.value)


def test_base64_of_no_image_is_an_error() -> None:
    with pytest.raises(ImageError, match="a PNG, JPEG or WebP image is allowed"):
        images.decode_base64(base64.b64encode(b"hello").decode())
