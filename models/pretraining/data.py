"""Folders of images to one packed array, decoded once, so that a training step waits for no decoder.

A packed set is a folder of three files: `images.npy` (N, S, S, 3) uint8, `labels.npy` (N,) int64 and
`record.json`, which is written last: a folder without it is not a training set.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.errors import ImageTooLarge, ImageUnreadable, ParameterInvalid
from models.images import ImageLimits, decode_image
from models.pretraining.errors import TrainingSetInvalid

# The twenty test classes of mini-ImageNet (Vinyals et al. 2016, split of Ravi and Larochelle 2017). Few-shot
# figures are measured on them, so nothing may have been trained on them. Tiny ImageNet holds five of them.
NEVER_TRAINED_ON = frozenset(
    {
        *("n01930112", "n01981276", "n02099601", "n02110063", "n02110341", "n02116738", "n02129165"),
        *("n02219486", "n02443484", "n02871525", "n03127925", "n03146219", "n03272010", "n03544143"),
        *("n03775546", "n04146614", "n04149813", "n04418357", "n04522168", "n07613480"),
    }
)

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
_IMAGES, _LABELS, _RECORD = "images.npy", "labels.npy", "record.json"


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Images of one source: `path` holds one folder for each class, with the images anywhere below it.

    Two sources that hold a folder of the same name share that class.
    """

    path: Path
    name: str
    terms: str  # under which the images may be used; copied into the card


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """What one source gave."""

    name: str
    terms: str
    images: int
    unreadable: int
    excluded: tuple[str, ...]  # classes that were there and were left out


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSet:
    """A packed set, mapped into memory and never written to."""

    images: NDArray[np.uint8]  # (N, S, S, 3)
    labels: NDArray[np.int64]  # (N,), places in `classes`
    classes: tuple[str, ...]
    sources: tuple[SourceRecord, ...]
    digest: str  # SHA-256 over labels and pixels

    def __len__(self) -> int:
        return len(self.labels)


def pack_images(
    sources: Sequence[ImageFolder],
    folder: Path,
    *,
    side: int,
    excluded: frozenset[str] = NEVER_TRAINED_ON,
    per_class: int | None = None,
    limits: ImageLimits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingSet:
    """The packed set of all sources, without the excluded classes; of each class the first `per_class` by path.

    Each image is cut to its central square and resized to `side`. An image that cannot be decoded is left
    out and counted. The order is that of the sources, then of the paths: the same files give the same set.

    Memory: one image; the array is written through a map of the file.

    Raises:
        ParameterInvalid: `side` is below 16, `per_class` below 1, or `excluded` does not hold NEVER_TRAINED_ON whole.
        TrainingSetInvalid: a source is no folder, or nothing is left to train on.
    """
    if side < 16:
        raise ParameterInvalid(f"`side` of a training set must be at least 16 pixels; got {side}.")
    if per_class is not None and per_class < 1:
        raise ParameterInvalid(f"`per_class` of a training set must be at least 1; got {per_class}.")
    if not excluded >= NEVER_TRAINED_ON:
        raise ParameterInvalid(
            "`excluded` of a training set must hold every class that figures are measured on; got it "
            f"without {min(NEVER_TRAINED_ON - excluded)}."
        )
    limits = ImageLimits() if limits is None else limits
    found = [_listed(source, excluded, per_class) for source in sources]
    total = sum(len(paths) for paths, _ in found)
    if total == 0:
        raise TrainingSetInvalid("`sources` of a training set must hold images to train on; got none.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _RECORD).unlink(missing_ok=True)
    images = np.lib.format.open_memmap(folder / _IMAGES, "w+", np.uint8, (total, side, side, 3))
    names: list[str] = []
    records: list[SourceRecord] = []
    seen = 0
    for source, (paths, left_out) in zip(sources, found, strict=True):
        first, unreadable = len(names), 0
        for path in paths:
            square = _square(path, side, limits)
            if square is None:
                unreadable += 1
            else:
                images[len(names)] = square
                names.append(path.relative_to(source.path).parts[0])
            seen += 1
            if progress is not None:
                progress(seen, total)
        records.append(SourceRecord(source.name, source.terms, len(names) - first, unreadable, tuple(left_out)))
    images.flush()
    if not names:
        raise TrainingSetInvalid("`sources` of a training set must hold images that decode; got none.")
    classes = tuple(sorted(set(names)))
    place = {name: number for number, name in enumerate(classes)}
    labels = np.array([place[name] for name in names], dtype=np.int64)
    del images
    _shorten(folder / _IMAGES, len(names))
    np.save(folder / _LABELS, labels)
    _write_record(folder, classes, records, side)
    return open_training_set(folder)


def open_training_set(folder: Path) -> TrainingSet:
    """The packed set in a folder, read-only.

    Raises:
        TrainingSetInvalid: a file is absent, its shape is not what the record says, or it holds a class that
            figures are measured on.
    """
    try:
        record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        images = np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False)
        labels = np.load(folder / _LABELS, allow_pickle=False)
        classes = tuple(str(name) for name in record["classes"])
        sources = tuple(
            SourceRecord(**{**source, "excluded": tuple(source["excluded"])}) for source in record["sources"]
        )
        shape, digest = tuple(record["shape"]), str(record["digest"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise TrainingSetInvalid(
            f"`folder` of a training set must hold images.npy, labels.npy and record.json; got {folder}: {error}."
        ) from error
    forbidden = NEVER_TRAINED_ON & set(classes)
    if forbidden:
        raise TrainingSetInvalid(
            f"`classes` of a training set must not be ones that figures are measured on; got {min(forbidden)}."
        )
    if images.shape != shape or images.dtype != np.uint8 or labels.shape != shape[:1]:
        raise TrainingSetInvalid(
            f"`images` of a training set must be {shape} of uint8, as recorded; got {images.shape} of "
            f"{images.dtype} with {labels.shape[0]} labels."
        )
    if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
        raise TrainingSetInvalid("`labels` of a training set must be places in its list of classes.")
    return TrainingSet(images, labels, classes, sources, digest)


def _listed(source: ImageFolder, excluded: frozenset[str], per_class: int | None) -> tuple[list[Path], list[str]]:
    if not source.path.is_dir():
        raise TrainingSetInvalid(
            f"`path` of source {source.name} must be a folder with a folder for each class; got {source.path}."
        )
    classes = sorted(entry.name for entry in source.path.iterdir() if entry.is_dir())
    paths = [
        path
        for name in classes
        if name not in excluded
        for path in sorted(
            one for one in (source.path / name).rglob("*") if one.suffix.lower() in SUFFIXES and one.is_file()
        )[:per_class]
    ]
    return paths, [name for name in classes if name in excluded]


def _square(path: Path, side: int, limits: ImageLimits) -> NDArray[np.uint8] | None:
    try:
        pixels = decode_image(path.read_bytes(), limits).pixels
    except (ImageUnreadable, ImageTooLarge):
        return None
    height, width = pixels.shape[:2]
    short = min(height, width)
    left, top = (width - short) / 2, (height - short) / 2
    square = Image.fromarray(pixels).resize(
        (side, side), Image.Resampling.BICUBIC, box=(left, top, left + short, top + short)
    )
    return np.asarray(square)


def _shorten(path: Path, rows: int) -> None:
    """Keep the first rows of an array file; the rest was reserved for images that did not decode."""
    whole = np.load(path, mmap_mode="r", allow_pickle=False)
    if len(whole) == rows:
        return
    shorter = path.with_suffix(".part.npy")
    kept = np.lib.format.open_memmap(shorter, "w+", np.uint8, (rows, *whole.shape[1:]))
    for start, stop in _spans(rows):
        kept[start:stop] = whole[start:stop]
    kept.flush()
    del whole, kept
    shorter.replace(path)


def _write_record(folder: Path, classes: Sequence[str], sources: Sequence[SourceRecord], side: int) -> None:
    images = np.load(folder / _IMAGES, mmap_mode="r", allow_pickle=False)
    labels = np.load(folder / _LABELS, allow_pickle=False)
    digest = hashlib.sha256(np.ascontiguousarray(labels, dtype="<i8").data)
    for start, stop in _spans(len(images)):
        digest.update(np.ascontiguousarray(images[start:stop]).data)
    record = {
        "shape": [len(images), side, side, 3],
        "classes": list(classes),
        "sources": [asdict(source) for source in sources],
        "digest": digest.hexdigest(),
    }
    part = folder / f"{_RECORD}.part"
    part.write_text(json.dumps(record, indent=1), encoding="utf-8")
    part.replace(folder / _RECORD)


def _spans(rows: int, step: int = 4096) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
