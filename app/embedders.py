"""Embedders by specification: loaded on first use, shared by all collections that agree on one."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.collection_state import CollectionState
from app.limits import remaining_s
from app.observe import stage
from app.settings import Settings
from models.backbones.choice import EngineChoice, PrecisionName, check_engine
from models.backbones.embedder import Embedder, PreparedImage
from models.backbones.loader import EmbeddingSpec, default_weights, load_embedder
from models.backbones.torch_engine import TorchEngine
from models.batching import BatchingEmbedder
from models.decoding.decoder import Decoder
from models.decoding.pool import DecodingPool
from models.errors import FingerprintMismatch, InputError, ModelsError, RuntimeMismatch
from models.images import ImageLimits
from models.projection import Projection
from models.runtime import COMPARABLE

EMBEDDERS_KEPT = 4


@dataclass(frozen=True, slots=True)
class CollectionEmbedder:
    """What computes a collection's vectors: its network, and the projection behind it where there is one."""

    network: BatchingEmbedder
    projection: Projection | None

    @property
    def embedder(self) -> Embedder:
        """The network, for preparing images."""
        return self.network.embedder

    def projected(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """The collection's vectors (n, width), from the network's."""
        return vectors if self.projection is None else self.projection.apply(vectors)


class Embedders:
    """Loads embedders and runs images through them; safe for threads."""

    def __init__(self, settings: Settings, threads: int, observe: Callable[[int, float], None] | None = None) -> None:
        """`observe` is told the size of each batch and the seconds it took.

        Raises EngineUnusable: the engine that the settings name cannot run on this machine.
        """
        self.limits = ImageLimits(
            bytes_max=settings.image_limit_bytes,
            pixels_max=settings.image_limit_pixels,
            side_max=settings.image_limit_side_pixels,
            frames_max=settings.image_limit_frames,
        )
        pool, decoders = None, settings.decode_workers or threads
        if settings.decoding == "processes":
            pool = DecodingPool(
                decoders,
                settings.decode_limit_memory_bytes,
                settings.decode_limit_s,
                niceness=settings.inference_niceness,
            )
        self.decoder = Decoder(self.limits, pool)
        self._folder = settings.data / "weights"
        self._threads = threads
        self._observe = observe
        self._choice = EngineChoice(
            settings.engine, settings.precision, settings.data / "cache", settings.inference_niceness
        )
        check_engine(self._choice)
        self._queue_images = settings.queue_limit_images
        self._deadline_s = settings.deadline_s
        self._loaded: dict[tuple[EmbeddingSpec, EngineChoice], BatchingEmbedder] = {}
        self._loading: dict[tuple[EmbeddingSpec, EngineChoice], threading.Lock] = {}
        self._lock = threading.Lock()
        self._decoders = ThreadPoolExecutor(max_workers=decoders, thread_name_prefix="decode")
        self.default_weights = default_weights() if settings.weights == "default" else settings.weights
        self.default_backbone = settings.backbone
        self.default_image_size = settings.image_size
        self.default_pooling = settings.pooling

    def specification(self, embedding: dict[str, Any]) -> EmbeddingSpec:
        """The specification that collection settings or a stored row describe."""
        return EmbeddingSpec(**{**embedding, "stages": tuple(embedding["stages"])})

    def get(self, specification: EmbeddingSpec) -> BatchingEmbedder:
        """The embedder of this specification; the least recently used of too many is closed.

        Raises WeightsMissing, WeightsDamaged, ParameterInvalid.
        """
        return self._get(specification, self._choice)

    def stored(self, embedding: dict[str, Any], fingerprint: str) -> BatchingEmbedder:
        """The network that a stored embedding describes, which must still be the one its vectors were made with.

        The fingerprint is that of the network's own vectors, before any projection.

        Raises FingerprintMismatch where the weights are others now: their vectors would be compared with those of
        another network. WeightsMissing, WeightsDamaged, ParameterInvalid: as `get`.
        """
        embedder = self.get(self.specification(embedding))
        now = embedder.embedder.identity.fingerprint
        if now != fingerprint:
            raise FingerprintMismatch(
                f"The weights `{embedding['weights']}` are no longer those that this collection's vectors were made "
                f"with: the fingerprint of its embedding must be {fingerprint[:16]}; got {now[:16]}. Put the earlier "
                "weights back, or make a new collection."
            )
        return embedder

    def of(self, state: CollectionState) -> CollectionEmbedder:
        """What computes vectors that may be compared with a collection's: the usual runtime, else the one they need.

        Raises:
            RuntimeMismatch: none fits, or the stored vectors do not even fit one another.
            FingerprintMismatch, WeightsMissing, WeightsDamaged, ParameterInvalid: as `stored`.
        """
        names = set(state.runtimes.values())
        return CollectionEmbedder(self.comparable(state.embedding, state.base_fingerprint, names), state.projection)

    def comparable(self, embedding: dict[str, Any], fingerprint: str, names: set[str]) -> BatchingEmbedder:
        """The network of a stored embedding whose vectors may be compared with all of these names.

        Raises as `of`.
        """
        specification = self.specification(embedding)
        embedder = self.stored(embedding, fingerprint)
        if not names or names == {embedder.embedder.runtime.comparable_with}:
            return embedder
        if len(names) == 1:
            precision: PrecisionName = "float32" if names == {COMPARABLE} else "int8"
            other = self._get(specification, replace(self._choice, precision=precision))
            if names == {other.embedder.runtime.comparable_with}:
                return other
        raise RuntimeMismatch(
            f"`vectors` of a collection must be comparable with {embedder.embedder.runtime.comparable_with}, which is "
            f"what this service computes now; got {', '.join(sorted(names))}. Set ODDITY_PRECISION as it was when the "
            "images were added, or add them again to a new collection."
        )

    def with_gradients(self, state: CollectionState) -> TorchEngine:
        """The network of a collection as torch computes it in float32 on the processor, whatever serves.

        Raises FingerprintMismatch, WeightsMissing, WeightsDamaged: as `stored`.
        """
        self.stored(state.embedding, state.base_fingerprint)  # the same weights
        choice = replace(self._choice, engine="torch", precision="float32")
        engine = self._get(self.specification(state.embedding), choice).embedder.engine
        assert isinstance(engine, TorchEngine)
        return engine

    def _get(self, specification: EmbeddingSpec, choice: EngineChoice) -> BatchingEmbedder:
        key = (specification, choice)
        with self._lock:
            if (embedder := self._used(key)) is not None:
                return embedder
            loading = self._loading.setdefault(key, threading.Lock())
        with loading:  # seconds, in which other networks go on
            with self._lock:
                if (embedder := self._used(key)) is not None:
                    return embedder
            embedder = BatchingEmbedder(
                load_embedder(specification, weights_folder=self._folder, threads=self._threads, choice=choice),
                queue_images_max=self._queue_images,
                observe=self._observe,
            )
            with self._lock:
                self._loaded[key] = embedder
                while len(self._loaded) > EMBEDDERS_KEPT:
                    self._loaded.pop(next(iter(self._loaded))).close()
            return embedder

    def _used(self, key: tuple[EmbeddingSpec, EngineChoice]) -> BatchingEmbedder | None:
        """The embedder of this key where it is loaded, now the newest; to be called under the lock."""
        embedder = self._loaded.pop(key, None)
        if embedder is not None:
            self._loaded[key] = embedder
        return embedder

    def get_default(self) -> BatchingEmbedder:
        """The embedder that new collections get unless they ask for another."""
        return self.get(
            EmbeddingSpec(
                backbone=self.default_backbone,
                weights=self.default_weights,
                image_size=self.default_image_size,
                pooling=self.default_pooling,
            )
        )

    def prepare(self, embedder: Embedder, images: Sequence[bytes]) -> list[PreparedImage | ModelsError]:
        """Each image decoded and preprocessed, or the error that it meets; in order.

        Raises DeadlinePassed, DecoderUnavailable: the same images may be prepared a moment later.
        """
        preprocessing = embedder.identity.preprocessing
        wait_s = remaining_s(self._deadline_s)  # asked here: the threads below know of no request

        def one(data: bytes) -> PreparedImage | ModelsError:
            try:
                square = self.decoder.square(data, preprocessing, wait_s=wait_s)
            except InputError as error:
                return _alone(error)
            return embedder.prepared(square)

        with stage("decode"):
            return [one(images[0])] if len(images) == 1 else list(self._decoders.map(one, images))

    async def prepare_one_async(self, embedder: Embedder, image: bytes) -> PreparedImage:
        """One image decoded and preprocessed, while the event loop goes on. Raises as `prepare_one`."""
        with stage("decode"):
            wait_s = remaining_s(self._deadline_s)
            square = await self.decoder.square_async(image, embedder.identity.preprocessing, wait_s=wait_s)
            return embedder.prepared(square)

    def prepare_one(self, embedder: Embedder, image: bytes) -> PreparedImage:
        """One image decoded and preprocessed. Raises InputError, DeadlinePassed, DecoderUnavailable."""
        (prepared,) = self.prepare(embedder, [image])
        if isinstance(prepared, ModelsError):
            raise prepared
        return prepared

    def embed(self, embedder: BatchingEmbedder, prepared: Sequence[PreparedImage]) -> NDArray[np.float32]:
        """The network's vectors (n, width) of prepared images, batched together with other requests'."""
        with stage("embed"):
            return embedder.submit(list(prepared), deadline_s=remaining_s(self._deadline_s))

    async def embed_async(self, embedder: BatchingEmbedder, prepared: Sequence[PreparedImage]) -> NDArray[np.float32]:
        """The same, while the event loop goes on."""
        with stage("embed"):
            return await embedder.submit_async(list(prepared), deadline_s=remaining_s(self._deadline_s))

    def images_waiting(self) -> int:
        """Images that wait for a network."""
        with self._lock:
            return sum(embedder.images_waiting() for embedder in self._loaded.values())

    def close(self) -> None:
        """Finish what was accepted and stop the workers."""
        with self._lock:
            for embedder in self._loaded.values():
                embedder.close()
            self._loaded.clear()
        self._decoders.shutdown()
        self.decoder.close()


def _alone(error: ModelsError) -> ModelsError:
    """An error that is kept, without what it came from.

    Tracebacks hold the frames that are to hold the error: a circle, with the bytes of the image in it, which would lie
    in memory until Python looks for such circles.
    """
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)
