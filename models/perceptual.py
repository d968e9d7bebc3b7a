"""What pictures look like, apart from any embedding: a 64-bit hash, and copies as programs make them."""

import io

import imagehash
import numpy as np
from PIL import Image

from models.images import ImageLimits, decode_image

HASH_BITS = 64


def perceptual_hash(data: bytes, limits: ImageLimits) -> int:
    """64 bits that hardly change when a picture is packed again, resized or slightly recoloured.

    Each bit says whether one of the 64 lowest frequencies of the cosine transform of a 32 by 32 grey copy is above
    their median.

    Raises:
        ImageUnreadable, ImageTooLarge: as models.images.decode_image.
    """
    bits = imagehash.phash(Image.fromarray(decode_image(data, limits).pixels)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hash_distance(a: int, b: int) -> int:
    """In how many of 64 bits two hashes differ.

    >>> hash_distance(0b1011, 0b0010)
    2
    """
    return (a ^ b).bit_count()


def altered_copies(data: bytes, limits: ImageLimits) -> list[bytes]:
    """The picture as copies of it look: packed as JPEG, at three quarters of its size, a little brighter.

    Raises:
        ImageUnreadable, ImageTooLarge: as models.images.decode_image.
    """
    pixels = decode_image(data, limits).pixels
    image = Image.fromarray(pixels)
    smaller = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)), Image.Resampling.BICUBIC)
    brighter = Image.fromarray(np.minimum(pixels.astype(np.uint16) * 103 // 100, 255).astype(np.uint8))
    return [_encoded(image, "JPEG", quality=75), _encoded(smaller, "PNG"), _encoded(brighter, "JPEG", quality=90)]


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
