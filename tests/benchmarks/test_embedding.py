"""Vectors come from the service's embedder once, and from the folder of vectors afterwards."""

import hashlib
from pathlib import Path

import numpy as np

from app.embedders import Embedders
from benchmarks.embedding import VectorCache, embed_files
from tests.benchmarks.conftest import SPEC
from tests.conftest import png


def files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    made = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(made):
        path.write_bytes(png(number))
    return made


def test_vectors_are_those_of_the_embedder(embedders: Embedders, tmp_path: Path) -> None:
    made = files(tmp_path / "images", 5)
    pool, embedder = embed_files(made, embedders, SPEC, tmp_path / "vectors")
    alone = [embedder.embed([embedder.prepare(path.read_bytes(), embedders.limits)])[0] for path in made]
    np.testing.assert_allclose(pool.vectors, alone, rtol=1e-4, atol=1e-6)
    assert pool.rows(made).tolist() == [0, 1, 2, 3, 4]


def test_known_bytes_are_taken_from_the_folder_of_their_fingerprint_and_precision(
    embedders: Embedders, tmp_path: Path
) -> None:
    made = files(tmp_path / "images", 2)
    embedder = embedders.get(SPEC).embedder
    marked = np.full(embedder.width, 7.0, np.float32)
    sha256 = hashlib.sha256(made[0].read_bytes()).hexdigest()
    fingerprint = embedder.identity.fingerprint
    names = {"same": f"{fingerprint}-float32", "another": "another-float32", "int8": f"{fingerprint}-int8"}
    for folder, computed_by in names.items():
        kept = VectorCache(tmp_path / folder, computed_by, embedder.width)
        kept.put(sha256, marked)
        kept.flush()
    taken, _ = embed_files(made, embedders, SPEC, tmp_path / "same")
    assert (taken.vectors[0] == 7).all()
    assert not (taken.vectors[1] == 7).all()
    for folder in ("another", "int8"):
        computed, _ = embed_files(made, embedders, SPEC, tmp_path / folder)
        assert not (computed.vectors[0] == 7).all()


def test_a_second_run_gives_the_same_bits_and_writes_nothing(embedders: Embedders, tmp_path: Path) -> None:
    made = files(tmp_path / "images", 5)
    first, _ = embed_files(made, embedders, SPEC, tmp_path / "vectors")
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").rglob("*.npz")}
    assert shards
    second, _ = embed_files(made, embedders, SPEC, tmp_path / "vectors")
    np.testing.assert_array_equal(first.vectors, second.vectors)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "vectors").rglob("*.npz")} == shards


def test_equal_bytes_are_one_row_and_bad_files_none(embedders: Embedders, tmp_path: Path) -> None:
    made = files(tmp_path / "images", 2)
    twin, broken = tmp_path / "twin.png", tmp_path / "broken.png"
    twin.write_bytes(made[1].read_bytes())
    broken.write_bytes(b"no image")
    pool, _ = embed_files([*made, broken, twin], embedders, SPEC, tmp_path / "vectors")
    assert pool.rows([twin, made[0], made[1], broken]).tolist() == [1, 0]
    assert len(pool.vectors) == len(pool.sha256) == 2
    assert list(pool.refused) == [broken]
