"""Files of arrays: whole or refused, whatever byte is wrong and whenever the writing stops."""

import hashlib
import os
import stat

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Blocks, SnapshotDamaged, open_arrays, snapshot, write_arrays
from index.snapshot import MAGIC, PARTIAL_SUFFIX

ARRAYS = {
    "bank/rows": np.arange(12, dtype=np.float32).reshape(4, 3),
    "bank/ids": np.array([3, 1, 2, 9], dtype=np.int64),
    "names": np.array(["a", "bcd"]),
    "flags": np.array([True, False, True]),
    "nothing": np.empty((0, 5), dtype=np.int16),
    "number": np.float64(2.5),
}
FACTS = {"sequence": 41, "nested": {"share": 0.5, "why": None}}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "bank.index"
    write_arrays(path, ARRAYS, FACTS)
    return path


def read_all(path):
    with open_arrays(path) as file:
        file.verify()
        return {name: array.read() for name, array in file.items()}, file.facts


def test_what_was_written_is_read(written):
    arrays, facts = read_all(written)
    assert facts == FACTS
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == np.asarray(array).dtype
        assert arrays[name].shape == np.shape(array)
        assert (arrays[name] == array).all()
    with open_arrays(written) as file:
        assert set(file.under("bank/")) == {"rows", "ids"}
        assert file["bank/rows"].shape == (4, 3)
        assert len(file["bank/ids"]) == 4


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=4),
    dtype=st.sampled_from(["<f4", ">i8", "u1", "?", "<c16", "S3", "<U2", "<M8[s]"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_type_and_shape(tmp_path_factory, shapes, dtype, seed):
    path = tmp_path_factory.mktemp("any") / "file"
    random = np.random.default_rng(seed)
    arrays = {str(n): random.integers(0, 2, shape).astype(dtype) for n, shape in enumerate(shapes)}
    size = write_arrays(path, arrays, {})
    assert size == path.stat().st_size
    with open_arrays(path) as file:
        for name, array in arrays.items():
            for got in (file[name].read(), file[name].view()):
                assert got.dtype == array.dtype
                assert np.array_equal(got, array)


def test_every_single_bit_of_every_byte_is_checked(tmp_path):
    written = tmp_path / "small"
    write_arrays(written, {"a": np.arange(5, dtype=np.float32), "b": np.arange(9)}, FACTS)
    whole = written.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << (place % 8)
        written.write_bytes(damaged)
        with pytest.raises(SnapshotDamaged):
            read_all(written)
    written.write_bytes(whole)
    assert read_all(written)[1] == FACTS


def test_no_way_of_reading_hands_out_altered_values(written):
    whole = bytearray(written.read_bytes())
    whole[whole.index(ARRAYS["bank/rows"].tobytes())] ^= 1
    written.write_bytes(whole)
    with open_arrays(written) as file:
        assert file["names"].read()[1] == "bcd"
        rows = file["bank/rows"]
        for way in (rows.view, rows.read, rows.verify, lambda: rows.read_into(np.empty((4, 3), np.float32))):
            with pytest.raises(SnapshotDamaged, match=r"`bank/rows` of `bank\.index` must have the sha256"):
                way()


def test_every_cut_is_noticed_at_once(tmp_path):
    written = tmp_path / "small"
    write_arrays(written, {"a": np.arange(5, dtype=np.float32), "b": np.arange(9)}, FACTS)
    whole = written.read_bytes()
    for length in (*range(len(whole)), len(whole) + 1, len(whole) + 64):
        written.write_bytes((whole + b"\0" * 64)[:length])
        with pytest.raises(SnapshotDamaged):
            open_arrays(written)


def test_a_file_that_shrinks_while_it_is_open(written):
    with open_arrays(written) as file:
        with written.open("r+b") as other:
            other.truncate(written.stat().st_size - 300)
        with pytest.raises(SnapshotDamaged, match="ends"):
            file.verify()


def test_files_of_another_kind_or_version_are_refused(tmp_path, written):
    path = tmp_path / "other"
    np.save(path.with_suffix(".npy"), np.ones(9))
    path.with_suffix(".npy").replace(path)
    with pytest.raises(SnapshotDamaged, match="must start as a snapshot does"):
        open_arrays(path)
    whole = written.read_bytes()
    length = 16 + int.from_bytes(whole[8:16], "little")
    older = MAGIC[:-1] + b"1" + whole[8:length]
    path.write_bytes(older + hashlib.sha256(older).digest() + whole[length + 32 :])
    with pytest.raises(SnapshotDamaged, match="version b'2'; got b'1'"):
        open_arrays(path)
    with pytest.raises(FileNotFoundError):
        open_arrays(tmp_path / "absent")


def test_an_array_that_is_not_there(written):
    with open_arrays(written) as file, pytest.raises(SnapshotDamaged, match="must hold `other`"):
        file["other"]


def test_views_are_aligned_not_writable_and_outlive_the_file(written):
    with open_arrays(written) as file:
        rows = file["bank/rows"].view()
    assert rows.ctypes.data % 64 == 0
    assert (rows == ARRAYS["bank/rows"]).all()
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 1


def test_reading_into_the_wrong_place(written):
    with open_arrays(written) as file:
        for out in (np.empty((4, 3)), np.empty((3, 4), np.float32), np.empty((3, 4), np.float32).T):
            with pytest.raises(ValueError, match="`out` must be float32 of shape"):
                file["bank/rows"].read_into(out)


def test_blocks_are_asked_for_one_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot, "_BLOCK_BYTES", 40)
    alive = []

    def blocks():
        for start in range(0, 100, 7):
            alive.append(start)
            yield np.arange(start, min(start + 7, 100), dtype=np.int64)[:, None] * [1, 10]

    path = tmp_path / "file"
    given = Blocks((100, 2), np.int64, blocks())
    assert alive == []
    write_arrays(path, {"a": given}, {})
    assert len(alive) == 15
    arrays, _ = read_all(path)
    assert (arrays["a"] == np.arange(100)[:, None] * [1, 10]).all()


def test_what_cannot_be_written_is_refused_and_the_old_file_stays(written):
    old = written.read_bytes()
    wrong = (
        {"a": np.array([object()])},
        {"a": Blocks((3,), np.int64, [np.arange(2)])},
        {"a": Blocks((3,), np.int64, [np.arange(3.0)])},
        {"a": Blocks((2, 3), np.int64, [np.zeros((3, 2), np.int64)])},
    )
    for arrays in wrong:
        with pytest.raises(ValueError, match="`a` must be"):
            write_arrays(written, arrays, {})
    with pytest.raises(ValueError, match="JSON"):
        write_arrays(written, {}, {"share": float("nan")})
    assert written.read_bytes() == old


def test_the_old_file_stands_until_the_new_one_is_whole(written, monkeypatch):
    """The file is on the disk before it takes the old one's place, and the folder after."""
    calls = []
    real_sync = os.fsync

    def sync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    def stop(handle):
        raise OSError("power lost")

    old = written.read_bytes()
    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(OSError, match="power lost"):
        write_arrays(written, {}, {"sequence": 4})
    assert written.read_bytes() == old
    assert written.with_name(written.name + PARTIAL_SUFFIX).exists()
    monkeypatch.setattr(os, "fsync", sync)
    write_arrays(written, {}, {"sequence": 5})
    assert calls == ["file", "folder"]
    assert read_all(written) == ({}, {"sequence": 5})
    assert [entry.name for entry in written.parent.iterdir()] == [written.name]
