"""Folders of images whose defects are marked pixel by pixel.

plain        good/*   bad/*   with masks beside (bad/x.png and bad/x_mask.png or x_label.png), or in masks/
inspection   train/good/*   test/good/*   test/<defect>/*   ground_truth/<defect>/x_mask.png   as MVTec AD is laid out
parts        kos01/Part0.jpg   kos01/Part0_label.bmp   as KolektorSDD is; a mask without a mark says: flawless
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.cli.sending import image_files
from app.embedders import Embedders
from benchmarks.errors import BenchmarkRefused
from benchmarks.folders import GOOD, Layout
from models.backbones.embedder import Embedder, PreparedImage

MASK_FOLDERS = frozenset({"masks", "ground_truth"})
MASK_ENDINGS = ("_mask", "_label")
AT_ONCE = 64
SPLIT_SEED = 0


@dataclass(frozen=True, slots=True)
class MaskedImage:
    """An image and where it is defective."""

    file: Path
    mask: Path | None  # None: flawless
    part: str | None  # train or test where the folder says so
    group: str | None  # the folder of images that belong together, where folders mean that
    width: int = 0  # pixels as a person sees it; 0 until it was read
    height: int = 0

    def pixels(self) -> NDArray[np.bool_]:
        """(height, width): True where defective."""
        if self.mask is None:
            return np.zeros((self.height, self.width), np.bool_)
        return read_mask(self.mask)


@dataclass(frozen=True, slots=True)
class MaskedFolder:
    """Distinct images."""

    name: str
    defective: tuple[MaskedImage, ...]
    flawless: tuple[MaskedImage, ...]
    duplicates: int
    """Images left out because another one has the same pixels; a defective one is kept before a flawless one."""
    refused: int
    """Files that are no images."""


def read_mask(file: Path) -> NDArray[np.bool_]:
    """(height, width): True above the middle of the levels that occur."""
    with Image.open(file) as opened:
        levels = np.asarray(opened.convert("L"))
    above: NDArray[np.bool_] = levels > levels.max() / 2.0
    return above


def read_masked(folder: Path, embedders: Embedders, embedder: Embedder) -> MaskedFolder:
    """The images of a folder with their masks, each picture once.

    Raises:
        BenchmarkRefused: a mask belongs to no image or to several, an image outside `good` has none, sizes differ,
            or one kind is missing.
    """
    images = _paired(folder)
    sized: list[MaskedImage] = []
    seen: set[str] = set()
    refused = 0
    for start in range(0, len(images), AT_ONCE):
        some = images[start : start + AT_ONCE]
        bodies = [one.file.read_bytes() for one in some]
        for one, body, found in zip(some, bodies, embedders.prepare(embedder, bodies), strict=True):
            if not isinstance(found, PreparedImage):
                refused += 1
            elif (pixels := embedders.decoder.pixel_sha256(body)) not in seen:
                seen.add(pixels)
                sized.append(replace(one, width=found.width, height=found.height))
    for one in sized:
        if one.mask is not None and one.pixels().shape != (one.height, one.width):
            raise BenchmarkRefused(
                f"{one.mask} must be of the size of its image, {one.width} x {one.height}; it is not."
            )
    defective = tuple(one for one in sized if one.mask is not None)
    flawless = tuple(one for one in sized if one.mask is None)
    if not defective or not flawless:
        raise BenchmarkRefused(f"{folder} must hold flawless and defective images; got one kind.")
    return MaskedFolder(folder.name, defective, flawless, len(images) - refused - len(sized), refused)


def has_masks(folder: Path) -> bool:
    """Whether masks lie beside the images of a folder."""
    files = image_files(folder)
    return any(_name(file) != file.stem and _is_mask(file, folder, files) for file in files)


def read_kinds(folder: Path, limit: int | None = None) -> Layout:
    """The same images as flawless and defective ones, each file once; a half of the flawless ones is the bank.

    Raises:
        BenchmarkRefused: a mask belongs to no image or to several, or one kind is missing.
    """
    first = {hashlib.sha256(one.file.read_bytes()).digest(): one for one in reversed(_paired(folder))}
    distinct = sorted(first.values(), key=lambda one: one.file)
    bank, test = split([one for one in distinct if one.mask is None], 0.5, SPLIT_SEED)
    defective = tuple(one.file for one in distinct if one.mask is not None)
    if not defective:
        raise BenchmarkRefused(f"{folder} must hold flawless and defective images; got one kind.")
    good, also_good = (tuple(one.file for one in part)[:limit] for part in (bank, test))
    return Layout(folder.name, "inspection", {GOOD: good}, {GOOD: also_good, "defective": defective[:limit]})


def split(
    images: Sequence[MaskedImage], share: float, seed: int
) -> tuple[tuple[MaskedImage, ...], tuple[MaskedImage, ...]]:
    """Flawless images for the bank and for the test: as the folder says, else drawn, whole groups together.

    Raises:
        BenchmarkRefused: one of the two would be empty.
    """
    if any(one.part == "train" for one in images):
        bank = tuple(one for one in images if one.part == "train")
    else:
        units = sorted({_unit(one) for one in images})
        order = np.random.default_rng(seed).permutation(len(units))
        chosen: set[str] = set()
        held = 0
        for place in order:
            if held >= share * len(images):
                break
            chosen.add(units[place])
            held += sum(_unit(one) == units[place] for one in images)
        bank = tuple(one for one in images if _unit(one) in chosen)
    taken = {one.file for one in bank}
    test = tuple(one for one in images if one.file not in taken)
    if not bank or not test:
        raise BenchmarkRefused(f"The bank and the test must both hold flawless images; got {len(images)} in all.")
    return bank, test


def _unit(image: MaskedImage) -> str:
    return str(image.file) if image.group is None else image.group


def _paired(folder: Path) -> list[MaskedImage]:
    """Defective images first, then those of train, so that of equal pictures the first one is kept."""
    files = image_files(folder)
    masks = [file for file in files if _is_mask(file, folder, files)]
    images = sorted(set(files) - set(masks))
    mask_of: dict[Path, Path] = {}
    for one in masks:
        mask_of[_image_of(one, images, folder)] = one
    has_good = any(GOOD in one.relative_to(folder).parts for one in images)
    found = []
    for file in images:
        parts = file.relative_to(folder).parts[:-1]
        mask = mask_of.get(file)
        if mask is None and GOOD not in parts:
            raise BenchmarkRefused(
                f"{file} must have a mask ({file.stem}_mask.png) or lie in {GOOD}/; it does neither."
            )
        part = next((one for one in ("train", "test") if one in parts), None)
        group = None if has_good else "/".join(parts)
        is_marked = mask is not None and bool(read_mask(mask).any())
        found.append(MaskedImage(file, mask if is_marked else None, part, group))
    return sorted(found, key=lambda one: (one.mask is None, one.part != "train"))


def _is_mask(file: Path, folder: Path, files: Sequence[Path]) -> bool:
    if MASK_FOLDERS.intersection(file.relative_to(folder).parts[:-1]):
        return True
    own = _name(file)
    return own != file.stem and any(one.stem == own and one.parent == file.parent for one in files)


def _name(mask: Path) -> str:
    for ending in MASK_ENDINGS:
        if mask.stem.lower().endswith(ending):
            return mask.stem[: -len(ending)]
    return mask.stem


def _image_of(mask: Path, images: Sequence[Path], folder: Path) -> Path:
    """The image of a mask: beside it, else of the same kind, else the only one of its name that is not good."""
    named = [one for one in images if one.stem == _name(mask)]
    kind = [one for one in mask.relative_to(folder).parts[:-1] if one not in MASK_FOLDERS]
    for wanted in (
        [one for one in named if one.parent == mask.parent],
        [one for one in named if kind and one.parent.name == kind[-1]],
        [one for one in named if GOOD not in one.relative_to(folder).parts],
    ):
        if len(wanted) == 1:
            return wanted[0]
    raise BenchmarkRefused(f"{mask} must be the mask of one image; {len(named)} are called {_name(mask)}.")
