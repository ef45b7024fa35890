"""Decodes any image file to the square of RGB pixels that a network gets.

Training, the served model, `classify` and the demo page use it. The served model carries a copy of this file,
so it imports nothing of the pipeline.
"""

import base64
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".heic", ".heif")
MAX_PIXELS = 40_000_000
MAX_TRUSTED_PIXELS = 250_000_000  # phones take photographs of 200 megapixels
# Of a JPEG: usual are ten, and 18 for CMYK. A scan takes a few bytes, and .6 ns of CPU time a pixel.
MAX_SCANS = 20
# A marker of a JPEG that has a segment, or ends the image. Codes below 0xC0 and restarts have none.
MARKER = re.compile(rb"\xff([\xc0-\xcf\xd9-\xfe])")
SCAN, END = b"\xda", b"\xd9"
GREY = (128, 128, 128)  # of the bars beside a padded image: the middle, which differs least from any image
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the colour type in a PNG's header


class ImageError(ValueError):
    """What is wrong with an image, in words that follow its name or row."""


def decode(content: bytes, size: int, trusted: bool = False, fit: str = "crop") -> np.ndarray:
    """uint8 (size, size, 3) of the first frame of a PNG, JPEG or WebP file.

    The middle square, or with the fit `pad` the whole image between grey bars, resized bilinearly and turned
    as EXIF says, in 8-bit RGB. A transparent pixel has the colour that its file gives it. A `trusted` file,
    of the person who runs the command and not of a request, may be HEIC too, and larger. Raises ImageError;
    an image of over MAX_PIXELS, or MAX_TRUSTED_PIXELS, is refused by its header, before its pixels take
    memory.
    """
    with _opened(content, trusted) as image:
        if isinstance(image, PngImageFile):
            _check_rows(image, *content[24:26])
        image.draft(None, (2 * size, 2 * size))  # a JPEG is decoded at 1/2, 1/4 or 1/8, while that is larger
        image.load()  # which may change the size of a HEIC
        square = _square(_rgb(image), size, fit)
        turn = TURNS.get(_orientation(image))
    return np.asarray(square if turn is None else square.transpose(turn))


def count_pixels(content: bytes) -> int:
    """The number of pixels that `decode` would decode, by the file's header. Raises ImageError."""
    width, height = dimensions(content)
    return width * height


def dimensions(content: bytes, trusted: bool = False) -> tuple[int, int]:
    """Width and height of the image that `decode` would decode, by the file's header. Raises ImageError."""
    with _opened(content, trusted) as image:
        return image.width, image.height


def count_scans(content: bytes) -> int:
    """The number of scans of a JPEG file's first image, each of which is a pass over all pixels.

    Finds the markers as libjpeg does: segments are skipped by their length. What follows the end of the
    image, such as the video of a motion photo, does not count.
    """
    scans, position = 0, 0
    while found := MARKER.search(content, position):
        if found[1] == END:
            break
        scans += found[1] == SCAN
        position = found.end() + max(2, int.from_bytes(content[found.end() : found.end() + 2]))
    return scans


def from_base64(text: str) -> bytes:
    """The file of a text in base64, with or without line breaks. Raises ImageError."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:  # binascii's, and that of characters beyond ASCII
        raise ImageError(f"must be base64; received other text ({len(text):,} characters)") from error


def encode_base64(pixels: np.ndarray) -> str:
    """uint8 (height, width, 3) as a PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@contextmanager
def _opened(content: bytes, trusted: bool = False) -> Iterator[Image.Image]:
    """An image of which only the header has been read. All that fails in the block is an ImageError."""
    formats, limit = (_trusted_formats(), MAX_TRUSTED_PIXELS) if trusted else (FORMATS, MAX_PIXELS)
    rule = f"must have at most {limit:,} pixels; received"
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            if image.width * image.height > limit:
                raise ImageError(f"{rule} {image.width} x {image.height}")
            if image.format in {"JPEG", "MPO"} and (scans := count_scans(content)) > MAX_SCANS:
                raise ImageError(f"a JPEG must have at most {MAX_SCANS} scans; received {scans}")
            yield image
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{rule} far more") from error
    except UnidentifiedImageError as error:
        kinds = "PNG, JPEG, WebP or HEIC" if trusted else "PNG, JPEG or WebP"
        raise ImageError(f"must be a {kinds} image; received none, or a damaged one") from error
    except Exception as error:  # what Pillow raises depends on where the file is damaged
        raise ImageError("the image is damaged or cut off") from error


def _trusted_formats() -> tuple[str, ...]:
    """Also HEIC, which the packages of the served model do not read. Pillow's own limit gives way to ours."""
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    Image.MAX_IMAGE_PIXELS = None
    return (*FORMATS, "HEIF")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "RGB":
        return image
    return image.convert("RGBA").convert("RGB")  # a palette may have transparent colours


def _square(image: Image.Image, size: int, fit: str) -> Image.Image:
    if fit == "crop":
        return ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
    width, height = (max(1, round(side * size / max(image.size))) for side in image.size)
    square = Image.new("RGB", (size, size), GREY)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


def _orientation(image: Image.Image) -> int:
    """EXIF's orientation, 1 to 8; 1 if EXIF is missing or damaged, which says nothing about the pixels."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # what Pillow raises depends on where EXIF is damaged
        return 1


def _check_rows(image: PngImageFile, depth: int, colours: int) -> None:
    """Raise ImageError if the data of a PNG end before its last row: Pillow would leave the rest black."""
    missing = image.height * (1 + -(-image.width * depth * CHANNELS[colours] // 8))  # more if interlaced
    image.load_prepare()
    inflate = zlib.decompressobj()
    while missing > 0:
        block = image.load_read(2**16)
        if not block:
            raise ImageError("the image is damaged or cut off")
        missing -= len(inflate.decompress(block))
    image.decoderconfig = ()  # or Pillow, which prepares again, would set it twice
