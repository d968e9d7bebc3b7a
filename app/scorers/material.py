"""What a fit is given: one state of the record, read once, then images computed as the method asks for them.

Vectors go to a file of the job's own in one reading session, so that a fit sees one revision however long it takes and
however large the bank is. Bytes of images are named by what they are and need no such care.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.collections.repository import require
from app.core import Core
from app.entry_columns import image_key
from app.errors import Conflict
from app.projections import base_of
from app.scorers import repository
from app.scorers.annotations import Annotations, annotations_of
from app.scorers.answers import pairs_of, with_ratings
from app.scorers.row_cache import RowCache, array_on_disk
from models.backbones.embedder import PreparedImage
from models.contract import Inputs, Pair, Reference
from models.fitting import calibration_rows, held_out
from models.inputs import BATCH_IMAGES, Batches, EmbedderBackbone, LazyInputs, LazyMaps, StagesAsked
from models.projection import Projection

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Material:
    """One state of a collection: facts and vectors of every image, in order of arrival."""

    sequence: int
    embedding_id: int
    fingerprint: str
    base_fingerprint: str
    projection: Projection | None
    specification: dict[str, Any]
    images: list[Any]
    annotations: list[Annotations]
    vectors: NDArray[np.float32]
    sets: dict[str, list[int]]
    pairs: list[Pair]
    answers: int
    comparable_with: set[str]
    """Of the runtimes that computed the vectors."""

    @property
    def pks(self) -> Rows:
        """Key of each image, ascending."""
        return np.array([one.id for one in self.images], np.int64)

    def rows_of(self, role: str) -> Rows:
        """Images of a role."""
        return np.array([row for row, one in enumerate(self.images) if one.role == role], np.int64)

    def keys(self, rows: Rows) -> NDArray[np.uint64]:
        """Hash of each image's id."""
        return np.array([image_key(self.images[row].image_id) for row in rows], np.uint64)

    def groups(self, rows: Rows) -> list[str | None]:
        """Group of each image."""
        return [self.images[row].group for row in rows]


def read_material(core: Core, name: str, folder: Path, check: Callable[[], None], *, of_base: bool = False) -> Material:
    """The collection as the record has it now; its vectors lie in `folder`. Raises NotFound.

    `of_base` reads the vectors of the network itself, whatever projection of them is active.
    """
    with core.database.read() as session:
        row = require(session, name)
        base = repository.embedding(session, base_of(session, row.id))
        embedding = base if of_base else repository.embedding(session, row.embedding_id)
        images = repository.images(session, row.id)
        place_of = {one.id: place for place, one in enumerate(images)}
        found = np.zeros(len(images), np.bool_)
        vectors = array_on_disk(folder / "vectors.f32", (len(images), embedding.width))
        runtimes: set[int] = set()
        for pk, vector, runtime in repository.vectors(session, embedding.id):
            if pk in place_of:
                check()
                runtimes.add(runtime)
                vectors[place_of[pk]] = np.frombuffer(vector, "<f4")
                found[place_of[pk]] = True
        if not found.all():
            raise Conflict(f"The embedding of `{name}` is being changed; fit when that is done.", "embedding_changed")
        annotations = [annotations_of(one, embedding.specification["fit"]) for one in images]
        given = repository.answers(session, row.id)
        return Material(
            sequence=row.sequence,
            embedding_id=embedding.id,
            fingerprint=embedding.fingerprint,
            base_fingerprint=base.fingerprint,
            projection=None if embedding.base_id is None else core.projections.get(session, embedding.id),
            specification=embedding.specification,
            images=images,
            annotations=with_ratings(annotations, images, given),
            vectors=vectors,
            sets=repository.sets(session, row.id),
            pairs=pairs_of(images, given),
            answers=sum(one.kind == "pair" for one in given),
            comparable_with=repository.comparable_with(session, runtimes),
        )


@dataclass(frozen=True, slots=True)
class Split:
    """Which images a fit learns from and which calibrate it; rows of the material."""

    bank: Rows
    fit: Rows
    calibration: Rows
    aside: Rows


def split_of(material: Material, bank_min: int) -> Split:
    """The split that hashes decide. Raises BankTooSmall."""
    bank = material.rows_of("normal")
    keys = material.keys(bank)
    aside, left = held_out(keys, material.groups(bank), bank_min)
    return Split(bank, bank[left], bank[calibration_rows(keys, aside)], bank[aside])


class Reader:
    """Images of a material as a method sees them; pixels and maps are computed once and kept on disk."""

    def __init__(
        self, core: Core, material: Material, folder: Path, cache_bytes: int, check: Callable[[], None]
    ) -> None:
        self._core = core
        self._material = material
        self._folder = folder
        self._cache_bytes = cache_bytes
        self._check = check
        self._pks = material.pks
        self._embedder = core.embedders.comparable(
            material.specification, material.base_fingerprint, material.comparable_with
        ).embedder
        self._backbone = EmbedderBackbone(self._embedder, material.projection)
        self._asked = StagesAsked()
        self._caches: dict[str, RowCache] = {}

    @property
    def runtime(self) -> dict[str, object]:
        """Engine, precision and versions that compute what a method is given beside the stored vectors."""
        return self._embedder.runtime.describe()

    def batches(self, rows: Rows | Sequence[int], batch: int = BATCH_IMAGES) -> Batches:
        """These images, in this order."""
        wanted = np.asarray(rows, np.int64)
        return Batches(wanted.size, lambda places: self.inputs(wanted[places.start : places.stop]), batch)

    def inputs(self, rows: Rows) -> Inputs:
        """These images at once, at most a batch. Raises what asks for the job's end."""
        self._check()
        images = [self._material.images[row] for row in rows]
        notes = [self._material.annotations[row] for row in rows]
        return LazyInputs(
            lambda: self._pixels(rows),
            ids=self._pks[rows],
            vectors=np.array(self._material.vectors[rows]),
            maps=LazyMaps(lambda stages: self._maps(rows, stages), self._asked),
            backbone=self._backbone,
            labels=[one.label for one in images],
            boxes=[one.boxes or () for one in notes],
            relations=[one.relations for one in notes],
            ratings=[one.ratings for one in notes],
        )

    def _pixels(self, rows: Rows) -> NDArray[np.float32]:
        side = self._embedder.identity.preprocessing.image_size
        return self._cache("pixels", (3, side, side)).get(rows, self._read_pixels)

    def _read_pixels(self, rows: Rows) -> NDArray[np.float32]:
        data = [self._core.store.get(self._material.images[row].sha256) for row in rows]
        tensors = []
        for image in self._core.embedders.prepare(self._embedder, data):
            if not isinstance(image, PreparedImage):
                raise image
            tensors.append(image.tensor)
        return np.stack(tensors)

    def _maps(self, rows: Rows, stages: Sequence[int]) -> dict[int, NDArray[np.float32]]:
        if all(f"stage{one}" in self._caches and self._caches[f"stage{one}"].has(rows) for one in stages):
            return {one: self._caches[f"stage{one}"].get(rows, _nothing) for one in stages}
        found = self._backbone.maps(self._read_pixels(rows), stages)
        for one, maps in found.items():
            self._cache(f"stage{one}", maps.shape[1:]).put(rows, maps)
        return found

    def _cache(self, name: str, shape: tuple[int, ...]) -> "RowCache":
        if name not in self._caches:
            room = self._cache_bytes - sum(one.size_bytes for one in self._caches.values())
            self._caches[name] = RowCache(self._folder / f"{name}.f32", len(self._material.images), shape, room)
        return self._caches[name]


def reference_of(material: Material, split: Split, reader: Reader) -> Reference:
    """What the method learns from. An image held out is in no part of it."""
    aside = set(split.aside.tolist())
    place_of = {int(pk): place for place, pk in enumerate(material.pks)}

    def kept(rows: Sequence[int]) -> list[int]:
        return [row for row in rows if row not in aside]

    sets = {name: kept([place_of[pk] for pk in pks if pk in place_of]) for name, pks in material.sets.items()}
    if not sets:
        sets = _grouped(split.fit, material.groups(split.fit))
    streams: dict[str, list[int]] = {}
    for row in sorted(split.fit.tolist(), key=lambda one: material.annotations[one].position or 0.0):
        if (stream := material.annotations[row].stream) is not None:
            streams.setdefault(stream, []).append(row)
    kept_pks = set(material.pks.tolist()) - set(material.pks[split.aside].tolist())
    pairs = [one for one in material.pairs if one.left in kept_pks and one.right in kept_pks]
    compared = sorted({place_of[pk] for one in pairs for pk in (one.left, one.right)})
    examples = material.rows_of("example")
    everything = range(len(material.images))
    return Reference(
        bank=reader.batches(split.fit),
        keys=material.keys(split.fit),
        groups=material.groups(split.fit),
        labels=_read(reader, _grouped(examples, [material.images[row].label for row in examples])),
        unlabelled=reader.batches(material.rows_of("unlabelled")),
        anomalous=reader.batches(material.rows_of("anomalous")),
        sets=_read(reader, sets),
        streams=_read(reader, streams),
        boxed=reader.batches(kept([row for row in everything if material.annotations[row].boxes is not None])),
        rated=reader.batches(kept([row for row in everything if material.annotations[row].ratings])),
        pairs=pairs,
        compared=reader.batches(compared),
    )


def _grouped(rows: Rows, names: Sequence[str | None]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for row, name in zip(rows.tolist(), names, strict=True):
        if name is not None:
            found.setdefault(name, []).append(row)
    return found


def _read(reader: Reader, named: Mapping[str, Sequence[int]]) -> dict[str, Batches]:
    return {name: reader.batches(rows) for name, rows in sorted(named.items()) if rows}


def _nothing(rows: Rows) -> NDArray[np.float32]:
    raise AssertionError(f"{rows.size} rows of at most {BATCH_IMAGES} are in the cache")
