"""The one way from stored or sent bytes to what the service makes of them, in worker processes or in threads."""

import asyncio
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.decoding.pool import DecodingPool
from models.decoding.tasks import GREY_SIDE, TASKS, Answer
from models.errors import ImageTooLarge, ImageUnreadable, InputError, ParameterInvalid
from models.images import ImageLimits
from models.preprocessing import Preprocessing

THUMBNAIL_SIDE = 256
ANY_SIDE = 32  # where only the size is wanted, the image may be decoded as small as that
BYTES_A_PIXEL = 8  # of an answer, at most: three copies that are hardly packed
REFUSALS = {one.__name__: one for one in (ImageTooLarge, ImageUnreadable, ParameterInvalid)}


@dataclass(frozen=True, slots=True, eq=False)
class Square:
    """The pixels that a network reads of an image, with what the decoder learnt about it."""

    levels: NDArray[np.uint8]  # (S, S, 3)
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
        self._limits = asdict(limits)

    def square(self, data: bytes, preprocessing: Preprocessing, *, wait_s: float = 60.0) -> Square:
        """The square that a network with this preprocessing reads."""
        return _square(*self._run("square", data, _square_parameters(preprocessing), wait_s), preprocessing.image_size)

    async def square_async(self, data: bytes, preprocessing: Preprocessing, *, wait_s: float = 60.0) -> Square:
        """`square` for an event loop, which goes on meanwhile: in a process or else in a thread."""
        if self.pool is None:
            return await asyncio.to_thread(self.square, data, preprocessing, wait_s=wait_s)
        question, body_max = self._question("square", _square_parameters(preprocessing))
        answer = await self.pool.run_async(question, data, body_max=body_max, wait_s=wait_s)
        return _square(*_unless_refused(answer), preprocessing.image_size)

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
        question, body_max = self._question(task, parameters)
        return _unless_refused(self.pool.run(question, data, body_max=body_max, wait_s=wait_s))

    def _question(self, task: str, parameters: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """What a process is asked, and how many bytes its answer may have."""
        body_max = 2**20 + 4 * parameters.get("image_size", 0) ** 2 + BYTES_A_PIXEL * self.limits.pixels_max
        return {"task": task, "limits": self._limits, "parameters": parameters}, body_max


def _unless_refused(answer: Answer) -> Answer:
    facts, _ = answer
    if "error" in facts:
        kind: type[InputError] = REFUSALS[facts["error"]]
        raise kind(facts["detail"])
    return answer


def _square_parameters(preprocessing: Preprocessing) -> dict[str, Any]:
    return {
        "image_size": preprocessing.image_size,
        "fit": preprocessing.fit,
        "interpolation": preprocessing.interpolation,
    }


def _square(facts: dict[str, Any], body: bytes, side: int) -> Square:
    return Square(levels=np.frombuffer(body, np.uint8).reshape(side, side, 3), **facts)
