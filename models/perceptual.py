"""What pictures look like, apart from any embedding: a 64-bit hash."""

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_BITS = 64


def perceptual_hash(grey: NDArray[np.uint8]) -> int:
    """64 bits that hardly change when a picture is packed again, resized or slightly recoloured.

    Each bit says whether one of the 64 lowest frequencies of the cosine transform of a 32 by 32 grey copy is above
    their median.

    Shapes: (32, 32) uint8, as `models.decoding.decoder.Decoder.grey` makes it.
    """
    bits = imagehash.phash(Image.fromarray(grey)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def hash_distance(a: int, b: int) -> int:
    """In how many of 64 bits two hashes differ.

    >>> hash_distance(0b1011, 0b0010)
    2
    """
    return (a ^ b).bit_count()
