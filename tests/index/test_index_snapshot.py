"""Snapshots: whole or refused, whatever byte is wrong and whenever the writing stops."""

import json
import os
import stat

import numpy as np
import pytest

from index import Metric, SnapshotDamaged, load_snapshot, make_index, read_header, save_snapshot
from index.snapshot import PARTIAL_SUFFIX


def small(metric=Metric.L2, n=5):
    index = make_index("exact", width=3, metric=metric)
    index.add(np.arange(n) * 7, np.random.default_rng(1).standard_normal((n, 3)))
    return index


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "bank.index"
    save_snapshot(small(), path, sequence=3)
    return path


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("n", [0, 5])
def test_the_header_tells_what_is_inside(tmp_path, metric, n):
    path = tmp_path / "bank.index"
    header = save_snapshot(small(metric, n), path, sequence=12)
    assert (header.sequence, header.metric, header.width, header.rows) == (12, metric, 3, n)
    assert read_header(path) == header
    index, again = load_snapshot(path, kind="flat")
    assert again == header
    assert index.ids().tolist() == [7 * i for i in range(n)]


def test_every_single_byte_is_checked(saved):
    whole = saved.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x20
        saved.write_bytes(damaged)
        with pytest.raises(SnapshotDamaged):
            load_snapshot(saved, kind="exact")
    saved.write_bytes(whole)
    assert len(load_snapshot(saved, kind="exact")[0]) == 5


def test_every_cut_is_noticed(saved):
    whole = saved.read_bytes()
    for length in (*range(len(whole)), len(whole) + 1):
        saved.write_bytes((whole + b"x")[:length])
        with pytest.raises(SnapshotDamaged):
            load_snapshot(saved, kind="exact")


def test_a_file_of_another_kind_is_refused(tmp_path):
    path = tmp_path / "bank.index"
    np.save(path.with_suffix(".npy"), np.ones(9))
    path.with_suffix(".npy").replace(path)
    with pytest.raises(SnapshotDamaged, match="must start as a snapshot does"):
        read_header(path)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "absent.index")


def test_a_snapshot_of_unusable_rows_is_refused(tmp_path):
    """Rightly hashed, but made from an index that lied."""

    class Lies:
        metric, width = Metric.L2, 2

        def ids(self):
            return np.array([1, 1])

        def vectors(self, ids):
            return np.ones((len(ids), 2), dtype=np.float32)

    save_snapshot(Lies(), tmp_path / "bank.index", sequence=0)
    with pytest.raises(SnapshotDamaged, match="must hold usable rows"):
        load_snapshot(tmp_path / "bank.index", kind="exact")


def test_the_old_snapshot_stands_until_the_new_one_is_whole(saved, monkeypatch):
    """The file is on the disk before it takes the old one's place, and the folder after."""
    calls = []
    real_sync = os.fsync

    def sync(handle):
        calls.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        real_sync(handle)

    old = saved.read_bytes()

    def stop(handle):
        raise OSError("power lost")

    monkeypatch.setattr(os, "fsync", stop)
    with pytest.raises(OSError, match="power lost"):
        save_snapshot(small(n=9), saved, sequence=4)
    assert saved.read_bytes() == old
    assert saved.with_name(saved.name + PARTIAL_SUFFIX).exists()
    monkeypatch.setattr(os, "fsync", sync)
    save_snapshot(small(n=9), saved, sequence=5)
    assert calls == ["file", "folder"]
    assert read_header(saved).sequence == 5
    assert [entry.name for entry in saved.parent.iterdir()] == [saved.name]


def test_large_snapshots_are_written_in_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("index.snapshot._BLOCK_BYTES", 40)
    path = tmp_path / "bank.index"
    save_snapshot(small(n=50), path, sequence=1)
    index, _ = load_snapshot(path, kind="exact")
    assert np.array_equal(index.vectors(index.ids()), small(n=50).vectors(np.arange(50) * 7))


def test_the_header_is_plain_text(saved):
    text = saved.read_bytes()[12:]
    facts, _ = json.JSONDecoder().raw_decode(text.decode("latin-1"))
    assert facts["rows"] == 5
    assert facts["metric"] == "l2"
