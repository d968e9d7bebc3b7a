"""Vectors of files, computed by the service's own embedder and kept by sha256, fingerprint and precision."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.embedders import Embedders
from models.backbones.embedder import Embedder, EmbeddingSpec, PreparedImage

CHUNK_FILES = 64
SHARD_IMAGES = 4096
Advance = Callable[[int], None]
# Of each image its vector, or why it is refused; in order.
VectorsOf = Callable[[list[bytes]], list[NDArray[np.float32] | str]]


@dataclass(frozen=True, slots=True)
class Pool:
    """Images by row: one row for each distinct sequence of bytes, as the service keeps them."""

    sha256: tuple[str, ...]
    vectors: NDArray[np.float32]  # (N, width)
    row_of: dict[Path, int]
    refused: dict[Path, str]

    def rows(self, files: Iterable[Path]) -> NDArray[np.int64]:
        """Distinct rows of these files, in their order; refused files are left out."""
        return np.array(list(dict.fromkeys(self.row_of[file] for file in files if file in self.row_of)), np.int64)


def kinds_of(pool: Pool) -> NDArray[np.str_]:
    """The folder that each row's file lies in; of files with the same bytes, the first's. (N,)"""
    folders = dict[int, str]()
    for file, row in pool.row_of.items():
        folders.setdefault(row, str(file.parent))
    return np.array([folders[row] for row in range(len(pool.vectors))])


class VectorCache:
    """Vectors by sha256 under one folder for each way they are computed, in files written whole or not at all."""

    def __init__(self, folder: Path, computed_by: str, width: int) -> None:
        self.width = width
        self._folder = folder / computed_by
        self._known: dict[str, NDArray[np.float32]] = {}
        for shard in sorted(self._folder.glob("*.npz")):
            with np.load(shard, allow_pickle=False) as held:
                if held["vectors"].shape[1:] == (width,):
                    self._known.update(zip(held["sha256"].tolist(), held["vectors"], strict=True))
        self._new: dict[str, NDArray[np.float32]] = {}

    def get(self, sha256: str) -> NDArray[np.float32] | None:
        """The vector of these bytes, if known."""
        return self._known.get(sha256)

    def put(self, sha256: str, vector: NDArray[np.float32]) -> None:
        """Keep a vector; it is on disk after the next `flush`, or when a shard is full."""
        self._known[sha256] = self._new[sha256] = vector
        if len(self._new) >= SHARD_IMAGES:
            self.flush()

    def flush(self) -> None:
        """Write what is new."""
        if not self._new:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        names = sorted(self._new)
        shard = self._folder / f"{hashlib.sha256(''.join(names).encode()).hexdigest()[:16]}.npz"
        part = shard.with_suffix(".part")
        with part.open("wb") as file:
            np.savez(file, sha256=np.array(names), vectors=np.stack([self._new[name] for name in names]))
        part.replace(shard)
        self._new = {}


def embed_files(
    files: Sequence[Path], embedders: Embedders, spec: EmbeddingSpec, cache: Path, advance: Advance | None = None
) -> tuple[Pool, Embedder]:
    """Every file's vector, known ones from the cache, and the embedder that decides what they are.

    Memory: all vectors, and the pixels of 64 images at a time.
    """
    batching = embedders.get(spec)
    embedder = batching.embedder
    kept = VectorCache(cache, f"{embedder.identity.fingerprint}-{embedder.runtime.precision}", embedder.width)

    def vectors_of(images: list[bytes]) -> list[NDArray[np.float32] | str]:
        prepared = embedders.prepare(embedder, images)
        good = [image for image in prepared if isinstance(image, PreparedImage)]
        vectors = iter(embedders.embed(batching, good) if good else ())
        return [next(vectors) if isinstance(image, PreparedImage) else str(image) for image in prepared]

    return pool_of(files, kept, vectors_of, advance), embedder


def pool_of(files: Sequence[Path], kept: VectorCache, vectors_of: VectorsOf, advance: Advance | None = None) -> Pool:
    """Every file's vector, known ones from the cache; the others are asked for, 64 files at a time."""
    sha_of: dict[Path, str] = {}
    refused: dict[Path, str] = {}
    for start in range(0, len(files), CHUNK_FILES):
        chunk = files[start : start + CHUNK_FILES]
        data = {file: file.read_bytes() for file in chunk}
        sha_of.update((file, hashlib.sha256(content).hexdigest()) for file, content in data.items())
        missing = {sha_of[file]: file for file in reversed(chunk) if kept.get(sha_of[file]) is None}
        found = vectors_of([data[file] for file in missing.values()]) if missing else []
        for (sha256, file), vector in zip(missing.items(), found, strict=True):
            if isinstance(vector, str):
                refused[file] = vector
            else:
                kept.put(sha256, vector)
        if advance is not None:
            advance(len(chunk))
    kept.flush()
    return _pool(sha_of, kept, refused)


def _pool(sha_of: dict[Path, str], kept: VectorCache, refused: dict[Path, str]) -> Pool:
    row_of_sha: dict[str, int] = {}
    row_of: dict[Path, int] = {}
    vectors: list[NDArray[np.float32]] = []
    for file, sha256 in sha_of.items():
        vector = kept.get(sha256)
        if vector is None:
            continue
        if sha256 not in row_of_sha:
            row_of_sha[sha256] = len(vectors)
            vectors.append(vector)
        row_of[file] = row_of_sha[sha256]
    stacked = np.stack(vectors) if vectors else np.empty((0, kept.width), np.float32)
    return Pool(tuple(row_of_sha), stacked, row_of, refused)
