"""What is done with encoded bytes, which may come from anybody: each task is one image in, facts and bytes out.

The tasks run in worker processes (`models.decoding.worker`) or in the thread that asks; the same code either way, so
the same bits. This module and what it imports is all that a worker loads: no torch, no FAISS, no service.
"""

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from models.images import ImageLimits, decode_image, decode_raster, thumbnail
from models.preprocessing import Preprocessing

GREY_SIDE = 32
Answer = tuple[dict[str, Any], bytes]
Task = Callable[[bytes, ImageLimits, dict[str, Any]], Answer]


def square(data: bytes, limits: ImageLimits, parameters: dict[str, Any]) -> Answer:
    """The square as a network reads it, (3, S, S) float32, and facts about the image."""
    preprocessing = _preprocessing(**{name: _frozen(value) for name, value in parameters.items()})
    raster = decode_raster(data, limits, preprocessing.image_size)
    pixels = preprocessing.apply_image(raster.image)
    return {"width": raster.width, "height": raster.height, "format": raster.format}, pixels.tobytes()


def size(data: bytes, limits: ImageLimits, parameters: dict[str, Any]) -> Answer:
    """Width and height of the upright image, decoded as small as `side` allows."""
    raster = decode_raster(data, limits, parameters["side"])
    return {"width": raster.width, "height": raster.height}, b""


def pixel_sha256(data: bytes, limits: ImageLimits, _parameters: dict[str, Any]) -> Answer:
    """The hash of size and pixels at full scale."""
    return {"pixel_sha256": decode_raster(data, limits).pixel_sha256()}, b""


def small_copy(data: bytes, limits: ImageLimits, parameters: dict[str, Any]) -> Answer:
    """The thumbnail as WebP."""
    return {}, thumbnail(data, limits, parameters["side"])


def grey(data: bytes, limits: ImageLimits, _parameters: dict[str, Any]) -> Answer:
    """A grey copy of 32 by 32 pixels, as perceptual hashes read it."""
    image = decode_raster(data, limits).image.convert("L")
    return {}, image.resize((GREY_SIDE, GREY_SIDE), Image.Resampling.LANCZOS).tobytes()


def altered_copies(data: bytes, limits: ImageLimits, _parameters: dict[str, Any]) -> Answer:
    """The picture as copies of it look: packed as JPEG, at three quarters of its size, a little brighter."""
    pixels = decode_image(data, limits).pixels
    image = Image.fromarray(pixels)
    smaller = image.resize((max(1, image.width * 3 // 4), max(1, image.height * 3 // 4)), Image.Resampling.BICUBIC)
    brighter = Image.fromarray(np.minimum(pixels.astype(np.uint16) * 103 // 100, 255).astype(np.uint8))
    copies = [_encoded(image, "JPEG", quality=75), _encoded(smaller, "PNG"), _encoded(brighter, "JPEG", quality=90)]
    return {"bytes": [len(one) for one in copies]}, b"".join(copies)


@lru_cache(maxsize=16)
def _preprocessing(**facts: Any) -> Preprocessing:
    """Kept with its table from one image to the next."""
    return Preprocessing(**facts)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # JSON knows no tuples


def _encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


TASKS: dict[str, Task] = {one.__name__: one for one in (square, size, pixel_sha256, small_copy, grey, altered_copies)}
