"""Large columns lie in files without a name: what they show, what they give back, and what a full disk does."""

import errno
import logging
import mmap
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import Metric, columns, make_index, open_arrays, set_scratch_folder, write_arrays
from index.auto import Plan
from index.columns import Column

WIDTH = 64
MEGABYTE = 1 << 20


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """A folder for columns of 64 KB and more."""
    monkeypatch.setattr(columns, "SCRATCH_MIN_BYTES", 64 << 10)
    monkeypatch.setattr(columns, "_folder", None)
    folder = tmp_path / "scratch"
    folder.mkdir()
    set_scratch_folder(folder)
    return folder


def column():
    return Column(np.empty((0, WIDTH), dtype=np.float32))


def rows(first, n):
    return np.arange(first * WIDTH, (first + n) * WIDTH, dtype=np.float32).reshape(n, WIDTH)


def on_disk(one):
    return os.fstat(one._file.handle).st_blocks * 512


def test_large_columns_are_in_a_file_without_a_name_and_small_ones_in_memory(scratch):
    one = column()
    one.append(rows(0, 100))
    assert (one.mapped_bytes, one.reserved_bytes) == (0, 100 * WIDTH * 4)
    one.append(rows(100, 400))
    assert (one.mapped_bytes, one.reserved_bytes) == (500 * WIDTH * 4, 0)
    assert list(scratch.iterdir()) == []
    assert np.array_equal(one.values, rows(0, 500))
    set_scratch_folder(None)
    one.append(rows(500, 1))
    assert one.mapped_bytes == 0, "a folder that was taken away is left with the next move"
    assert np.array_equal(one.values, rows(0, 501))


@pytest.mark.usefixtures("scratch")
def test_every_block_is_claimed_before_it_is_written():
    """Else writing to the mapping of a full disk would end the process."""
    one = column()
    one.reserve(5000)
    assert one.capacity == 5000
    assert on_disk(one) >= 5000 * WIDTH * 4
    one.reserve(9000)
    assert on_disk(one) >= 9000 * WIDTH * 4


@pytest.mark.usefixtures("scratch")
def test_growing_moves_nothing():
    one = column()
    one.append(rows(0, 1000))
    before, file = one.values, one._file
    one.append(rows(1000, 4000))
    assert one._file is file
    one.values[3] = -1
    assert (before[3] == -1).all(), "both show the same pages"
    assert np.array_equal(one.values[1000:], rows(1000, 4000))


@pytest.mark.usefixtures("scratch")
def test_cutting_gives_the_disk_back_and_growing_again_claims_it():
    one = column()
    one.append(rows(0, 8000))
    whole = on_disk(one)
    one.cut(3000)
    assert one.mapped_bytes == 3000 * WIDTH * 4
    assert on_disk(one) <= whole - 4990 * WIDTH * 4
    assert np.array_equal(one.values, rows(0, 3000))
    one.append(rows(3000, 4000))
    assert on_disk(one) >= 7000 * WIDTH * 4
    assert np.array_equal(one.values, rows(0, 7000))
    one.cut(6000)
    one.trim()
    assert one.mapped_bytes == 6000 * WIDTH * 4
    assert np.array_equal(one.values, rows(0, 6000))
    one.cut(10)
    assert one.mapped_bytes == 0, "too small for a file"
    assert np.array_equal(one.values, rows(0, 10))


def test_a_file_system_without_holes_gets_a_smaller_file(scratch, monkeypatch):
    class WithoutHoles(mmap.mmap):
        def madvise(self, *args):
            raise OSError(errno.EOPNOTSUPP, "no holes")

    monkeypatch.setattr(columns.mmap, "mmap", WithoutHoles)
    one = column()
    one.append(rows(0, 8000))
    one.cut(3000)
    assert one.mapped_bytes == 3000 * WIDTH * 4
    assert on_disk(one) <= 3010 * WIDTH * 4
    assert np.array_equal(one.values, rows(0, 3000))


def run(code, folder):
    """What a fresh process printed; it may be killed without ending this one."""
    head = f"import numpy as np, pathlib; from index import columns; folder = pathlib.Path({str(folder)!r})\n"
    done = subprocess.run([sys.executable, "-c", head + code], capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout.split(), done.stderr


def test_views_from_before_a_cut_can_still_be_read(tmp_path):
    """As a builder does, which reads beside changes; a mapping beyond the end of its file would end the process."""
    code = """
columns.SCRATCH_MIN_BYTES = 1 << 16
columns.set_scratch_folder(folder)
one = columns.Column(np.empty((0, 64), np.float32))
one.append(np.ones((50_000, 64), np.float32))
before = one.values
for length in (20_000, 9_000, 300, 0):
    one.cut(length)
    print(before[: max(length, 1)].min() if length else 1.0, before.sum() >= 0)
"""
    assert run(code, tmp_path)[0] == ["1.0", "True"] * 4


def test_rows_do_not_count_as_anonymous_memory(tmp_path):
    code = """
from index import make_index, set_scratch_folder
def anonymous():
    lines = pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("Anonymous:"))
columns.SCRATCH_MIN_BYTES = 1 << 20
index = make_index("flat", width=256, metric="l2")
index.add([0], np.ones((1, 256)))
index.search(np.ones((1, 256)), 1)
for number, where in enumerate((folder, None)):
    set_scratch_folder(where)
    before = anonymous()
    index = make_index("flat", width=256, metric="l2")
    for first in range(0, 100_000, 1000):
        index.add(np.arange(first, first + 1000), np.full((1000, 256), first, np.float32))
    print(anonymous() - before, index.memory_bytes >> 20, index.mapped_bytes >> 20)
"""
    told = [int(number) for number in run(code, tmp_path)[0]]
    grown, anonymous, mapped = told[:3]
    assert grown < 30
    assert anonymous < 5
    assert mapped >= 97
    grown, anonymous, mapped = told[3:]
    assert grown > 90, "the negative control: without a folder they do"
    assert anonymous >= 97
    assert mapped == 0


def test_a_real_limit_on_files_sends_rows_to_memory(tmp_path):
    code = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
columns.SCRATCH_MIN_BYTES = 1 << 20
columns.set_scratch_folder(folder)
one = columns.Column(np.empty((0, 256), np.float32))
for first in range(12):
    one.append(np.full((1000, 256), first, np.float32))
    print(one.mapped_bytes > 0)
assert (one.values[::1000, 0] == np.arange(12)).all()
"""
    told, errors = run(code, tmp_path)
    assert told == ["False"] + ["True"] * 2 + ["False"] * 9
    assert "rows stay in memory" in errors


@pytest.mark.usefixtures("scratch")
def test_a_full_disk_sends_rows_to_memory_and_says_so(monkeypatch, caplog):
    one = column()
    one.append(rows(0, 1000))
    assert one.mapped_bytes

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with caplog.at_level(logging.WARNING, logger="oddity.index"):
        one.append(rows(1000, 1000))
    assert "No space left on device" in caplog.text
    assert (one.mapped_bytes > 0, one.reserved_bytes > 0) == (False, True)
    assert np.array_equal(one.values, rows(0, 2000))
    monkeypatch.undo()


def test_a_folder_that_cannot_be_used_is_refused(scratch):
    with pytest.raises(OSError, match="absent"):
        set_scratch_folder(scratch / "absent")
    one = column()
    one.append(rows(0, 1000))
    assert one.mapped_bytes, "the folder from before stays"


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize("metric", Metric)
def test_an_index_answers_the_same_from_files(metric, tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    vectors = random.standard_normal((9000, WIDTH)).astype(np.float32)
    mapped = make_index("auto", width=WIDTH, metric=metric)
    mapped.add(np.arange(4000), vectors[:4000])
    mapped.add(np.arange(5000, 10_000), vectors[4000:])
    mapped.adopt(mapped.build(Plan("scan", "a test"), seed=0))
    mapped.remove(np.arange(0, 8000, 3))
    assert mapped.mapped_bytes > 6000 * WIDTH * 4 * (2 if metric is Metric.COSINE else 1)
    arrays, facts = mapped.export_arrays()
    write_arrays(tmp_path / "file", arrays, facts)
    again = make_index("auto", width=WIDTH, metric=metric)
    with open_arrays(tmp_path / "file") as file:
        again.restore(file, facts)
    assert again.mapped_bytes > 6000 * WIDTH * 4
    monkeypatch.setattr(columns, "_folder", None)
    plain = make_index("flat", width=WIDTH, metric=metric)
    plain.add(mapped.ids(), mapped.vectors(mapped.ids()))
    assert plain.mapped_bytes == 0
    for index in (mapped, again):
        for allowed in (None, mapped.ids()[::2]):
            found, true = (one.search(vectors[:30], 7, allowed=allowed) for one in (index, plain))
            assert np.array_equal(found.ids, true.ids)
            assert np.array_equal(found.distances, true.distances)


@pytest.mark.usefixtures("scratch")
def test_an_index_lies_on_the_file_it_comes_from_and_never_changes_it(tmp_path):
    random = np.random.default_rng(1)
    vectors = random.standard_normal((4000, WIDTH)).astype(np.float32)
    index, plain = (make_index("auto", width=WIDTH, metric=Metric.COSINE) for _ in range(2))
    index.add(np.arange(2000), vectors[:2000])
    plain.add(np.arange(2000), vectors[:2000])
    arrays, facts = index.export_arrays()
    write_arrays(tmp_path / "file", arrays, facts)
    before = (tmp_path / "file").read_bytes()
    index = make_index("auto", width=WIDTH, metric=Metric.COSINE)
    with open_arrays(tmp_path / "file") as file:
        index.restore(file, facts)
    (tmp_path / "file").unlink()
    (tmp_path / "file").write_bytes(before)
    assert index._searched._file is None
    assert (index.mapped_bytes, index.memory_bytes) == (2 * 2000 * WIDTH * 4, index._ids.reserved_bytes * 4)
    for one in (index, plain):
        one.remove(np.arange(0, 600, 3))
        one.add(np.arange(2000, 2300), vectors[2000:2300])
    assert index.memory_bytes >= 2 * 300 * WIDTH * 4, "what was written is memory of this process"
    assert (tmp_path / "file").read_bytes() == before
    found, true = (one.search(vectors[1900:2400], 7) for one in (index, plain))
    assert np.array_equal(found.ids, true.ids) and np.array_equal(found.distances, true.distances)
    assert np.array_equal(index.vectors(index.ids()), plain.vectors(plain.ids()))
    for one in (index, plain):
        one.add(np.arange(3000, 4700), vectors[2300:])  # beyond the room
        one.remove(np.arange(100, 2900))
    assert (tmp_path / "file").read_bytes() == before
    assert np.array_equal(index.vectors(index.ids()), plain.vectors(plain.ids()))


def test_a_file_that_cannot_be_mapped_is_copied(scratch, tmp_path, monkeypatch, caplog):
    index = make_index("flat", width=WIDTH, metric=Metric.L2)
    index.add(np.arange(500), rows(0, 500))
    arrays, facts = index.export_arrays()
    write_arrays(tmp_path / "file", arrays, facts)

    def strict(*_given, **_named):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    again = make_index("flat", width=WIDTH, metric=Metric.L2)
    with open_arrays(tmp_path / "file") as file, caplog.at_level(logging.WARNING, logger="oddity.index"):
        monkeypatch.setattr(file, "private_at", strict)
        again.restore(file, facts)
    assert "Cannot allocate memory" in caplog.text
    assert np.array_equal(again.vectors(np.arange(500)), rows(0, 500))


@settings(max_examples=60, deadline=None)
@given(
    lent=st.integers(0, 900),
    steps=st.lists(
        st.tuples(st.sampled_from(["append", "cut", "trim", "extend", "move"]), st.integers(0, 400)), max_size=25
    ),
)
def test_any_history_shows_what_a_list_would(lent, steps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scratch")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "SCRATCH_MIN_BYTES", 8192)
        patch.setattr(columns, "_folder", folder)
        one, model = Column(np.empty((0, 3), dtype=np.int64)), np.empty((0, 3), dtype=np.int64)
        if lent:
            model = np.arange(3 * lent).reshape(lent, 3)
            write_arrays(folder / "file", {"rows": model, "others": np.arange(900)}, {})
            with open_arrays(folder / "file") as file:
                one.borrow(file["rows"].private(), lent)
            model = model.copy()
        for number, (what, n) in enumerate(steps):
            if what in ("append", "extend"):
                new = np.arange(number, number + 3 * n).reshape(n, 3)
                if what == "append":
                    one.append(new)
                else:
                    one.extend(n)[:] = new
                model = np.concatenate((model, new))
            elif what == "cut":
                one.cut(min(n, len(model)))
                model = model[: min(n, len(model))]
            elif what == "move":
                places = np.random.default_rng(n).permutation(len(model))[: 2 * min(n, len(model) // 2)]
                one.move(*np.split(places, 2))
                model[np.split(places, 2)[1]] = model[np.split(places, 2)[0]]
            else:
                one.trim()
                assert one.capacity == len(model) or one._lent
            assert np.array_equal(one.values, model)
            assert one.capacity >= len(model)
