"""Whether a stored vector is still the one that was stored: neither database notices a bit that flips in a value."""

import zlib
from typing import Any

from app.errors import BytesDamaged

HALF = 0xFFFFFFFF


def vector_checksum(image_pk: int, vector: bytes) -> int:
    """32 bits of the vector and of the image it belongs to."""
    return zlib.crc32(vector, image_pk & HALF)


def checksum_of_row(context: Any) -> int:
    """What is stored beside a vector when its row is inserted."""
    row = context.get_current_parameters()
    return vector_checksum(row["image_pk"], row["vector"])


def is_intact(image_pk: int, vector: bytes, checksum: int | None, width: int) -> bool:
    """Whether these bytes are the vector that was stored; one from before there were checksums is believed."""
    return len(vector) == 4 * width and (checksum is None or zlib.crc32(vector, image_pk & HALF) == checksum)


def damaged(image_id: str) -> BytesDamaged:
    """What a caller is told who needs a vector that is damaged."""
    return BytesDamaged(
        f"The stored vector of image `{image_id}` is damaged, and it is left out of searches. Send the image again.",
        "vector_damaged",
    )
