"""A million real embeddings from some thousand images: vectors of random crops, for `oddity bench search --vectors`.

The crops of an image lie near one another, and its kind's around them, as stored images do.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.embedders import Embedders
from benchmarks.errors import BenchmarkRefused
from benchmarks.search_speed import QUERIES
from models.backbones.embedder import Embedder, EmbeddingSpec
from models.images import decode_raster

SHARES = (0.3, 1.0)  # of an image's shorter side
BATCH = 256


def write_crops(
    files: Sequence[Path],
    rows: int,
    embedders: Embedders,
    specification: EmbeddingSpec,
    out: Path,
    *,
    seed: int,
    advance: Callable[[int], None],
) -> None:
    """Writes a .npy of shape (rows + 256, width); the last 256 are of images from which no other vector comes.

    Raises BenchmarkRefused where there are too few files; WeightsMissing, ImageTooLarge, ImageUnreadable.
    """
    if len(files) < 2:
        raise BenchmarkRefused(f"Crops take at least 2 images, one of them to ask with; got {len(files)}.")
    embedder = embedders.get(specification).embedder
    asked = max(1, len(files) // 50)
    random = np.random.default_rng(seed)
    files = [files[at] for at in random.permutation(len(files))]
    part = out.with_suffix(".part")
    shape = (rows + QUERIES, embedder.width)
    vectors = np.lib.format.open_memmap(part, mode="w+", dtype=np.float32, shape=shape)
    done = 0
    for some, upto in ((files[:-asked], rows), (files[-asked:], len(vectors))):
        each = -(-(upto - done) // len(some))
        for file in some:
            image = decode_raster(file.read_bytes(), embedders.limits).image
            last = min(done + each, upto)
            for first in range(done, last, BATCH):
                count = min(BATCH, last - first)
                vectors[first : first + count] = _embedded(embedder, image, count, random)
                advance(count)
            done = last
    vectors.flush()
    part.replace(out)


def _embedded(embedder: Embedder, image: Image.Image, count: int, random: np.random.Generator) -> NDArray[np.float32]:
    apply = embedder.identity.preprocessing.apply_image
    return embedder.embed(embedder.as_prepared(np.stack([apply(_crop(image, random)) for _ in range(count)])))


def _crop(image: Image.Image, random: np.random.Generator) -> Image.Image:
    side = max(1, round(random.uniform(*SHARES) * min(image.size)))
    left, top = (int(random.integers(0, whole - side + 1)) for whole in image.size)
    crop = image.crop((left, top, left + side, top + side))
    return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else crop
