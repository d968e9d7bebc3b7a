"""Images to vectors: what an embedding is, and the object that computes it."""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from models.backbones.engine import BATCH_MAX, BATCH_SIZES, POOLED, Engine, FeaturePooling, stage_output
from models.backbones.record import STAGES
from models.decoding.decoder import Decoder, Square
from models.errors import FingerprintMismatch, ParameterInvalid
from models.images import DECODER_RULES, ImageLimits
from models.preprocessing import Fit, Preprocessing
from models.runtime import COMPARABLE, RuntimeRecord, library_versions, processor_name

_WEIGHTS = re.compile(r"embedded|stand-in|torchvision|file:.+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class EmbeddingSpec:
    """What a user may choose about an embedding; `image_size` None means what the weights were made for."""

    backbone: str = "resnet18"
    weights: str = "embedded"  # embedded | stand-in | torchvision | file:<path>
    stages: tuple[int, ...] = (4,)
    image_size: int | None = None
    fit: Fit = "squash"
    pooling: FeaturePooling = "mean"

    def __post_init__(self) -> None:
        if not _WEIGHTS.fullmatch(self.weights):
            raise ParameterInvalid(
                f"`weights` of an embedding must be embedded, stand-in, torchvision or file:<path>; got {self.weights}."
            )
        if not self.stages or tuple(sorted(set(self.stages))) != tuple(self.stages) or set(self.stages) - set(STAGES):
            raise ParameterInvalid(
                f"`stages` of an embedding must be some of 1, 2, 3, 4, ascending, each once; got {self.stages}."
            )
        if self.pooling not in get_args(FeaturePooling):
            raise ParameterInvalid(
                f"`pooling` of an embedding must be one of {', '.join(get_args(FeaturePooling))}; got {self.pooling}."
            )


@dataclass(frozen=True, slots=True)
class EmbeddingIdentity:
    """Everything that decides a vector apart from rounding; vectors are compared only where this is equal."""

    backbone: str
    weights: str  # label: where they came from; not part of the fingerprint, the digest is
    weights_sha256: str  # of the tensors, not of the file that held them
    stages: tuple[int, ...]
    preprocessing: Preprocessing
    pooling: FeaturePooling
    fingerprint: str = field(init=False)
    """SHA-256 in hex over the canonical JSON of what decides a vector."""

    def __post_init__(self) -> None:
        # Once, since every request asks for it.
        object.__setattr__(self, "fingerprint", _canonical_sha256(self._decisive()))

    def describe(self) -> dict[str, object]:
        """The identity with its fingerprint and label, as plain JSON values."""
        return {**self._decisive(), "weights": self.weights, "fingerprint": self.fingerprint}

    def _decisive(self) -> dict[str, object]:
        return {
            "backbone": self.backbone,
            "weights_sha256": self.weights_sha256,
            "stages": list(self.stages),
            "pooling": self.pooling,
            "preprocessing": self.preprocessing.describe(),
            "decoder_rules": DECODER_RULES,
        }


@dataclass(frozen=True, slots=True, eq=False)
class PreparedImage:
    """One image ready for the network, with what the decoder learnt about it; the full raster is not kept."""

    tensor: NDArray[np.float32]  # (3, S, S), read-only
    width: int  # pixels, after the EXIF turn
    height: int
    format: str
    preparation: str  # digest of decoder rules and preprocessing: which embedder may read it


class Embedder:
    """A frozen backbone with its preprocessing; safe for many threads, and nothing about it ever changes."""

    def __init__(
        self,
        identity: EmbeddingIdentity,
        engine: Engine,
        stage_widths: Sequence[int],
        comparable_with: str = COMPARABLE,
    ) -> None:
        self.identity = identity
        self.width = sum(stage_widths[stage - 1] for stage in identity.stages)
        self.runtime = RuntimeRecord(
            engine=engine.name,
            precision=engine.precision,
            threads=engine.threads,
            versions=library_versions(),
            hints=engine.hints,
            processor=processor_name(),
            comparable_with=comparable_with,
        )
        self.engine = engine
        self._preparation = _canonical_sha256(
            {"preprocessing": identity.preprocessing.describe(), "decoder_rules": DECODER_RULES}
        )

    def prepare(self, data: bytes, limits: ImageLimits) -> PreparedImage:
        """One image decoded in this thread and preprocessed, ready for embed() and maps().

        Raises:
            ImageTooLarge, ImageUnreadable: as models.images.decode_image.
        """
        return self.prepared(Decoder(limits).square(data, self.identity.preprocessing))

    def prepared(self, square: Square) -> PreparedImage:
        """One image that was decoded for this embedder's preprocessing, ready for embed() and maps()."""
        return PreparedImage(
            tensor=square.pixels,
            width=square.width,
            height=square.height,
            format=square.format,
            preparation=self._preparation,
        )

    def as_prepared(self, pixels: NDArray[np.float32]) -> list[PreparedImage]:
        """Pixels that are as the network is fed already, ready for embed() and maps().

        Shapes: pixels (n, 3, S, S) -> n images.

        Raises:
            FingerprintMismatch: the pixels are not of this network's size.
        """
        side = self.identity.preprocessing.image_size
        if pixels.shape[1:] != (3, side, side):
            raise FingerprintMismatch(
                f"`pixels` for embedding {self.identity.fingerprint[:12]} must be (n, 3, {side}, {side}); "
                f"got {pixels.shape}."
            )
        return [PreparedImage(one, side, side, "pixels", self._preparation) for one in pixels]

    def embed(self, prepared: Sequence[PreparedImage]) -> NDArray[np.float32]:
        """Global averages of the selected stages, or their square roots, one row an image, in the order given.

        Shapes: n images -> (n, width).
        Promise: at one padded batch size a row has the same bits whatever its mates and its place; between
            sizes it differs by at most 1e-5 relative in float32, and in int8 by a few roundings to the next level.

        Raises:
            FingerprintMismatch: an image was prepared for another preprocessing.
        """
        self.check(prepared)
        vectors = np.empty((len(prepared), self.width), dtype=np.float32)
        for start, stop, batch in self._batches(prepared):
            vectors[start:stop] = self.engine.run(batch, (POOLED,))[POOLED][: stop - start]
        return vectors

    def maps(self, prepared: Sequence[PreparedImage], stages: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        """Feature maps of the stages asked for, whether or not they are pooled.

        Shapes: n images -> (n, h, w, channels) for each stage; h = w = S/4, S/8, S/16, S/32 rounded up.
        Memory: at 224 px an image's stage 1 of a bottleneck network alone is 3.2 MB.

        Raises:
            ParameterInvalid: a stage is not from 1 to 4, or none is given.
            FingerprintMismatch: an image was prepared for another preprocessing.
        """
        if not stages or set(stages) - set(STAGES):
            raise ParameterInvalid(f"`stages` of feature maps must be some of 1, 2, 3, 4; got {tuple(stages)}.")
        self.check(prepared)
        names = tuple(stage_output(stage) for stage in stages)
        if not prepared:
            # An empty answer still has the shape of the maps.
            probe = self.engine.run(self._empty_batch(1), names)
            return {stage: probe[stage_output(stage)][:0] for stage in stages}
        parts: dict[int, list[NDArray[np.float32]]] = {stage: [] for stage in stages}
        for start, stop, batch in self._batches(prepared):
            found = self.engine.run(batch, names)
            for stage in parts:
                parts[stage].append(found[stage_output(stage)][: stop - start])
        return {stage: np.concatenate(arrays) for stage, arrays in parts.items()}

    def check(self, prepared: Sequence[PreparedImage]) -> None:
        """Nothing, where every image was prepared for this embedder.

        Raises:
            FingerprintMismatch: an image was prepared for another preprocessing.
        """
        for image in prepared:
            if image.preparation != self._preparation:
                raise FingerprintMismatch(
                    f"`preparation` of an image must be that of embedding {self.identity.fingerprint[:12]}; "
                    f"got {image.preparation[:12]}, made for another preprocessing."
                )

    def _batches(self, prepared: Sequence[PreparedImage]) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
        start = 0
        while start < len(prepared):
            size = padded_size(len(prepared) - start)
            stop = min(start + size, len(prepared))
            batch = self._empty_batch(size)
            # Copied by Python: numpy would give way to other threads at every image, and the network would wait.
            target, place = batch.data.cast("B"), 0
            for image in prepared[start:stop]:
                tensor = np.ascontiguousarray(image.tensor, np.float32).data.cast("B")
                target[place : place + len(tensor)] = tensor
                place += len(tensor)
            yield start, stop, batch
            start = stop

    def _empty_batch(self, size: int) -> NDArray[np.float32]:
        side = self.identity.preprocessing.image_size
        return np.zeros((size, 3, side, side), dtype=np.float32)


def padded_size(waiting: int) -> int:
    """Batch size to run next for this many images.

    The next larger size where at least three quarters of it would be filled, else the next smaller one:
    padding a batch of 9 to 16 would cost almost twice what 8 and 1 cost.

    >>> [padded_size(n) for n in (1, 2, 3, 5, 7, 9, 12, 16, 40)]
    [1, 2, 4, 4, 8, 8, 16, 16, 16]
    """
    if waiting >= BATCH_MAX:
        return BATCH_MAX
    larger = min(size for size in BATCH_SIZES if size >= waiting)
    return larger if 4 * waiting >= 3 * larger else larger // 2


def _canonical_sha256(facts: dict[str, object]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
