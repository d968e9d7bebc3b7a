"""What methods are given of images, computed as it is asked for: pixels as they are, maps stage by stage."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from models.backbones.embedder import Embedder
from models.backbones.record import STAGES
from models.contract import Inputs
from models.projection import Projection

BATCH_IMAGES = 64
"""Most images in one `Inputs` of a reference."""

Maps = dict[int, NDArray[np.float32]]


class EmbedderBackbone:
    """The backbone of an embedder for pixels that a method has changed; implements `models.contract.Backbone`.

    Its vectors are those of the collection: where that has a projection, they have gone through it.
    """

    def __init__(self, embedder: Embedder, projection: Projection | None = None) -> None:
        self._embedder = embedder
        self._projection = projection

    @property
    def width(self) -> int:
        """D, features of a vector."""
        return self._embedder.width if self._projection is None else self._projection.width

    @property
    def mean(self) -> tuple[float, float, float]:
        """What was subtracted from each channel."""
        return self._embedder.identity.preprocessing.mean

    @property
    def std(self) -> tuple[float, float, float]:
        """What divided each channel."""
        return self._embedder.identity.preprocessing.std

    def vectors(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, H, W) -> (B, D)"""
        found = self._embedder.embed(self._embedder.as_prepared(pixels))
        return found if self._projection is None else self._projection.apply(found)

    def maps(self, pixels: NDArray[np.float32], stages: Sequence[int]) -> Maps:
        """(B, 3, H, W) -> stage -> (B, h, w, C)"""
        return self._embedder.maps(self._embedder.as_prepared(pixels), stages)


class StagesAsked:
    """Which stages a fitted scorer reads, learnt from what it asked for: later batches compute them in one pass."""

    def __init__(self) -> None:
        self._stages: frozenset[int] = frozenset()

    def with_stage(self, stage: int) -> tuple[int, ...]:
        """The stages asked for so far, this one among them."""
        self._stages |= {stage}  # a lost update of another thread costs one more pass, nothing else
        return tuple(sorted(self._stages))


class LazyMaps(Mapping[int, NDArray[np.float32]]):
    """Stage -> (B, h, w, C), computed when a stage is asked for and kept for as long as this object lives."""

    def __init__(self, compute: Callable[[Sequence[int]], Maps], asked: StagesAsked) -> None:
        self._compute = compute
        self._asked = asked
        self._known: Maps = {}

    def __getitem__(self, stage: int) -> NDArray[np.float32]:
        if stage not in STAGES:
            raise KeyError(stage)
        if stage not in self._known:
            missing = [one for one in self._asked.with_stage(stage) if one not in self._known]
            self._known.update(self._compute(missing))
        return self._known[stage]

    def __iter__(self) -> Iterator[int]:
        return iter(STAGES)

    def __len__(self) -> int:
        return len(STAGES)


class Batches(Sequence[Inputs]):
    """Images in batches, each read when it is reached; never more than one is held here.

    `read` gets the places of the images wanted, from 0.
    """

    def __init__(self, images: int, read: Callable[[range], Inputs], batch: int = BATCH_IMAGES) -> None:
        self._images = images
        self._read = read
        self._batch = batch

    def __len__(self) -> int:
        return -(-self._images // self._batch)

    @overload
    def __getitem__(self, place: int) -> Inputs: ...

    @overload
    def __getitem__(self, place: slice) -> list[Inputs]: ...

    def __getitem__(self, place: int | slice) -> Inputs | list[Inputs]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        if not -len(self) <= place < len(self):
            raise IndexError(place)
        start = place % len(self) * self._batch
        return self._read(range(start, min(start + self._batch, self._images)))


class _Once:
    """Pixels, read at the first look."""

    def __init__(self, read: Callable[[], NDArray[np.float32] | None]) -> None:
        self._read = read
        self._found: NDArray[np.float32] | None = None

    def get(self) -> NDArray[np.float32] | None:
        if self._found is None:
            self._found = self._read()
        return self._found


class LazyInputs(Inputs):
    """Inputs whose pixels are read when a method looks at them, for most never do."""

    __slots__ = ("_pixels",)
    _pixels: "_Once"

    def __init__(self, read_pixels: Callable[[], NDArray[np.float32] | None], **fields: Any) -> None:
        for name in (one.name for one in dataclasses.fields(Inputs) if one.name != "pixels"):
            object.__setattr__(self, name, fields.get(name, _DEFAULTS[name]))
        object.__setattr__(self, "_pixels", _Once(read_pixels))

    @property
    def pixels(self) -> NDArray[np.float32] | None:
        """(B, 3, H, W), as the backbone is fed; the same array at every look."""
        return self._pixels.get()


_DEFAULTS: dict[str, Any] = {"ids": None, "vectors": None, "maps": {}, "backbone": None} | dict.fromkeys(
    ("labels", "boxes", "relations", "ratings"), ()
)


def one_image(inputs: Inputs, row: int) -> Inputs:
    """One of B images, by itself."""

    def pixels() -> NDArray[np.float32] | None:
        return None if inputs.pixels is None else inputs.pixels[row : row + 1]

    return LazyInputs(
        pixels,
        ids=inputs.ids[row : row + 1],
        vectors=None if inputs.vectors is None else inputs.vectors[row : row + 1],
        maps=_RowOfMaps(inputs.maps, row) if inputs.maps else {},
        backbone=inputs.backbone,
        labels=inputs.labels[row : row + 1],
        boxes=inputs.boxes[row : row + 1],
        relations=inputs.relations[row : row + 1],
        ratings=inputs.ratings[row : row + 1],
    )


class _RowOfMaps(Mapping[int, NDArray[np.float32]]):
    def __init__(self, maps: Mapping[int, NDArray[np.float32]], row: int) -> None:
        self._maps = maps
        self._row = row

    def __getitem__(self, stage: int) -> NDArray[np.float32]:
        return self._maps[stage][self._row : self._row + 1]

    def __iter__(self) -> Iterator[int]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)
