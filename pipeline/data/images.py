"""Any image file as the 32x32 RGB pixels that a network sees.

The served model carries this file with it, so it imports nothing of the pipeline.
"""

import base64
import io

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

SIZE = (32, 32)
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 50_000_000


class ImageError(ValueError):
    """What is wrong with an image, in words that follow its name or row."""


def decode(content: bytes) -> np.ndarray:
    """uint8 (32, 32, 3) of the first frame of a PNG, JPEG or WebP file.

    As `upright_rgb` makes it, its middle square resized. Raises ImageError; one of over 50 megapixels
    is refused by its header, before its pixels take memory.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(
                    f"at most {MAX_PIXELS:,} pixels are allowed; received {image.width} x {image.height}"
                )
            square = ImageOps.fit(upright_rgb(image), SIZE, Image.Resampling.BILINEAR)
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"at most {MAX_PIXELS:,} pixels are allowed; received far more") from error
    except UnidentifiedImageError as error:
        raise ImageError("a PNG, JPEG or WebP image is allowed; received none, or a damaged one") from error
    except Exception as error:  # what Pillow raises depends on where the file is damaged
        raise ImageError("the image is damaged or cut off") from error
    return np.asarray(square)


def decode_base64(text: str) -> np.ndarray:
    """As `decode`, of the file in base64, with or without line breaks."""
    try:
        content = base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:  # binascii's, and that of characters beyond ASCII
        raise ImageError(f"base64 is allowed; received {len(text):,} characters of another kind") from error
    return decode(content)


def encode_base64(pixels: np.ndarray) -> str:
    """uint8 (height, width, 3) as a PNG in base64."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def upright_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB, turned as EXIF says. A transparent pixel has the colour that its file gives it."""
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith("I"):  # 16 bits, which Pillow would clip
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode == "RGB":
        return image
    return image.convert("RGBA").convert("RGB")  # a palette may have transparent colours
