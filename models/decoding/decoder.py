"""The one way from stored or sent bytes to what the service makes of them, in worker processes or in threads."""

import asyncio
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.decoding.pool import DecodingPool
from models.decoding.tasks import GREY_SIDE, TASKS, Answer
from models.errors import ImageCrashed, ImageTooLarge, ImageUnreadable, InputError, ParameterInvalid
from models.images import ImageLimits
from models.preprocessing import Preprocessing

THUMBNAIL_SIDE = 256
ANY_SIDE = 32  # where only the size is wanted, the image may be decoded as small as that
BYTES_A_PIXEL = 8  # of an answer, at most: three copies that are hardly packed
SQUARE_BYTES_A_PIXEL = 12  # three channels of float32
REFUSALS = {one.__name__: one for one in (ImageTooLarge, ImageUnreadable, ParameterInvalid)}


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    """The pixels of an image as a network reads them, with what the decoder learnt about it."""

    pixels: NDArray[np.float32]  # (3, S, S), normalised, read-only
    width: int  # pixels of the whole image, after the EXIF turn
    height: int
    format: str


class Decoder:
    """Decodes under limits; safe for threads. Without a pool, the calling thread decodes.

    Every method raises ImageTooLarge and ImageUnreadable as models.images.decode_image does, and with a pool
    ImageCrashed, ImageTooSlow, DeadlinePassed and DecoderUnavailable as models.decoding.pool does. `wait_s` is how long
    to wait for a free process.
    """

    def __init__(self, limits: ImageLimits, pool: DecodingPool | None = None) -> None:
        self.limits = limits
        self.pool = pool

    def square(self, data: bytes, preprocessing: Preprocessing, *, wait_s: float = 60.0) -> Square:
        """The square that a network with this preprocessing reads."""
        if self.pool is None:
            answer = TASKS["square"](data, self.limits, asdict(preprocessing))
        else:
            question, body_max = _square_question(self.limits, preprocessing)
            answer = self.pool.run(question, data, body_max=body_max, wait_s=wait_s)
        return _square(answer, preprocessing)

    async def square_async(self, data: bytes, preprocessing: Preprocessing, *, wait_s: float = 60.0) -> Square:
        """`square` for an event loop, which goes on meanwhile: in a process or else in a thread."""
        if self.pool is None:
            return await asyncio.to_thread(self.square, data, preprocessing, wait_s=wait_s)
        question, body_max = _square_question(self.limits, preprocessing)
        answer = await self.pool.run_async(question, data, body_max=body_max, wait_s=wait_s)
        return _square(answer, preprocessing)

    def size(self, data: bytes, *, wait_s: float = 60.0) -> tuple[int, int]:
        """Width and height of the upright image."""
        facts, _ = self._run("size", data, {"side": ANY_SIDE}, wait_s)
        return facts["width"], facts["height"]

    def pixel_sha256(self, data: bytes, *, wait_s: float = 60.0) -> str:
        """The hash of size and pixels, in hex: equal for equal pictures, however they were encoded.

        Of the full scale, so that a large JPEG takes several times as long as for `square`.
        """
        digest: str = self._run("pixel_sha256", data, {}, wait_s)[0]["pixel_sha256"]
        return digest

    def thumbnail(self, data: bytes, *, wait_s: float = 60.0) -> bytes:
        """WebP bytes of the upright image, its longer side at most 256 pixels; never enlarged."""
        return self._run("small_copy", data, {"side": THUMBNAIL_SIDE}, wait_s)[1]

    def grey(self, data: bytes, *, wait_s: float = 60.0) -> NDArray[np.uint8]:
        """A grey copy, (32, 32) uint8, for `models.perceptual.perceptual_hash`."""
        body = self._run("grey", data, {}, wait_s)[1]
        return np.frombuffer(body, np.uint8).reshape(GREY_SIDE, GREY_SIDE)

    def altered_copies(self, data: bytes, *, wait_s: float = 60.0) -> list[bytes]:
        """The picture as copies of it look: packed as JPEG, at three quarters of its size, a little brighter."""
        facts, body = self._run("altered_copies", data, {}, wait_s)
        copies, start = [], 0
        for size in facts["bytes"]:
            copies.append(body[start : start + size])
            start += size
        return copies

    def close(self) -> None:
        """End the processes, if there are any."""
        if self.pool is not None:
            self.pool.close()

    def _run(self, task: str, data: bytes, parameters: dict[str, Any], wait_s: float) -> Answer:
        if self.pool is None:
            return TASKS[task](data, self.limits, parameters)
        question, body_max = _question(task, self.limits, parameters)
        return _unless_refused(self.pool.run(question, data, body_max=body_max, wait_s=wait_s))


def _question(task: str, limits: ImageLimits, parameters: dict[str, Any]) -> tuple[bytes, int]:
    """What a process is asked, and how many bytes its answer may have."""
    body_max = 2**20 + SQUARE_BYTES_A_PIXEL * parameters.get("image_size", 0) ** 2 + BYTES_A_PIXEL * limits.pixels_max
    return json.dumps({"task": task, "limits": asdict(limits), "parameters": parameters}).encode(), body_max


@lru_cache(maxsize=16)  # every request asks it
def _square_question(limits: ImageLimits, preprocessing: Preprocessing) -> tuple[bytes, int]:
    return _question("square", limits, asdict(preprocessing))


def _unless_refused(answer: Answer) -> Answer:
    facts, _ = answer
    if "error" in facts:
        kind: type[InputError] = REFUSALS[facts["error"]]
        raise kind(facts["detail"])
    return answer


def _square(answer: Answer, preprocessing: Preprocessing) -> Square:
    """What a process answered, which an image may have taken over.

    Raises ImageCrashed: it is no square that this preprocessing could make.
    """
    facts, body = _unless_refused(answer)
    side = preprocessing.image_size
    if len(body) == SQUARE_BYTES_A_PIXEL * side * side:
        pixels = np.frombuffer(body, np.float32).reshape(3, side, side)
        lowest, highest = preprocessing.bounds
        if lowest <= pixels.min() and pixels.max() <= highest:  # false of what is no number, too
            return Square(pixels=pixels, **facts)
    raise ImageCrashed("`image` must be one that decodes; got one whose pixels come out as no picture has them.")
