"""One index through all its structures: what it proposes, builds beside changes, adopts, saves and brings back."""

import threading

import numpy as np
import pytest

from index import IdTaken, Metric, SnapshotDamaged, make_index, open_arrays, structures, write_arrays
from index.auto import Plan
from index.exact import ExactIndex

WIDTH = 24
ROWS = 1500
STRUCTURES = ("flat", "scan", "hnsw", "ivf")


def clustered(seed, n):
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, WIDTH))
    return (centres[random.integers(0, 40, n)] + 0.5 * random.standard_normal((n, WIDTH))).astype(np.float32)


def filled(kind="auto", n=ROWS, metric=Metric.L2):
    index = make_index(kind, width=WIDTH, metric=metric)
    index.add(np.arange(n) * 3, clustered(1, n))
    return index


def brought_to(index, structure, seed=0):
    index.adopt(index.build(Plan(structure, "a test"), seed=seed))
    assert index.structure == structure
    return index


def same(one, other):
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.distances, other.distances)


def recall(index, judge, queries):
    found, true = index.search(queries, 10), judge.search(queries, 10)
    return float((true.ids[:, :, None] == found.ids[:, None, :]).any(axis=2).mean())


@pytest.fixture
def small(monkeypatch):
    """Codes from 200 rows on, a graph from 1,000."""
    monkeypatch.setattr(structures, "CODED_ROWS", 200)
    monkeypatch.setattr(structures, "EXACT_NUMBERS", 1000 * WIDTH)


@pytest.mark.usefixtures("small")
def test_it_proposes_what_suits_its_size_and_then_nothing():
    index = make_index("auto", width=WIDTH, metric=Metric.L2)
    vectors = clustered(1, 2600)
    assert index.upkeep_due() is None
    seen = []
    for first in range(0, 2600, 100):
        index.add(np.arange(first, first + 100), vectors[first : first + 100])
        plan = index.upkeep_due()
        if plan is not None:
            changes = index.adopt(index.build(plan, seed=0))
            seen.append((len(index), plan.structure, changes))
            assert index.upkeep_due() is None
    assert seen == [
        (200, "scan", False),
        (500, "scan", False),  # more than twice the rows from which the centre was taken
        (1100, "hnsw", True),
        (2300, "hnsw", True),  # more than twice the rows it was tuned for
    ]
    assert index.remove(np.arange(0, 2600, 2)) == 1300
    assert index.upkeep_due() == Plan("hnsw", "many dead entries")
    assert index.remove(np.arange(1, 1801, 2)) == 900
    assert index.upkeep_due().structure == "scan"
    assert index.adopt(index.build(index.upkeep_due(), seed=0)), "from approximate to exact, answers may differ"
    assert index.remove(index.ids()[99:]) == 301
    assert index.upkeep_due() == Plan("flat", "99 rows of width 24")
    assert not index.adopt(index.build(index.upkeep_due(), seed=0))
    assert index.upkeep_due() is None


@pytest.mark.usefixtures("small")
def test_memory_decides_between_structures():
    index = filled()
    needed = {one: structures.memory_needed(one, ROWS, WIDTH) for one in STRUCTURES}
    assert index.upkeep_due(int(1.2 * needed["hnsw"])).structure == "hnsw"
    assert index.upkeep_due(int(1.12 * needed["ivf"])).structure == "ivf"
    assert index.upkeep_due(needed["flat"]) is None
    brought_to(index, "hnsw")
    assert index.upkeep_due() is None
    assert index.upkeep_due(needed["flat"]).structure == "flat"


@pytest.mark.usefixtures("small")
def test_what_cannot_be_built_is_not_proposed_again_until_the_rows_have_doubled(tmp_path):
    index = filled(n=1100)
    index.recall = 1.0  # which no sample proves
    tried = []
    while plan := index.upkeep_due():
        tried.append(plan.structure)
        index.adopt(index.build(plan, seed=0))
    assert tried == ["hnsw", "ivf", "scan"]
    assert index.structure == "scan"
    arrays, facts = index.export_arrays()
    write_arrays(tmp_path / "file", arrays, facts)
    again = make_index("auto", width=WIDTH, metric=Metric.L2)
    with open_arrays(tmp_path / "file") as file:
        again.restore(file, file.facts)
    assert again.upkeep_due() is None
    index.add(np.arange(10_000, 11_100), clustered(2, 1100))
    assert index.upkeep_due().structure == "hnsw"


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_is_saved_comes_back_to_the_bit_with_its_structure(structure, metric, tmp_path):
    index = brought_to(filled(metric=metric), structure)
    index.remove(np.arange(0, 600, 6))
    index.add(np.arange(1, 300, 3), clustered(3, 100))
    arrays, facts = index.export_arrays()
    path = tmp_path / "file"
    write_arrays(path, {f"bank/{name}": array for name, array in arrays.items()}, {"bank": facts})
    again = make_index("auto", width=WIDTH, metric=metric)
    with open_arrays(path) as file:
        again.restore(file.under("bank/"), file.facts["bank"])
    told, before = again.describe(), index.describe()
    assert {**told, "bytes": 0} == {**before, "bytes": 0}
    assert told["bytes"]["structure"] <= before["bytes"]["structure"]
    assert np.array_equal(again.vectors(again.ids()), index.vectors(index.ids()))
    queries = clustered(4, 60)
    even = index.ids()[::2]
    for k in (1, 10):
        assert same(again.search(queries, k), index.search(queries, k))
        assert same(again.search(queries[:1], k, allowed=even), index.search(queries[:1], k, allowed=even))
    for one in (again, index):
        one.remove(np.arange(3, 900, 6))
        one.add(np.arange(20_000, 20_100), clustered(5, 100))
    assert again.describe()["dead"] == index.describe()["dead"]
    assert again.upkeep_due() == index.upkeep_due()
    assert same(again.search(queries, 9, exact=True), index.search(queries, 9, exact=True))
    assert recall(again, filled_like(index), queries) >= 0.97
    with pytest.raises(IdTaken, match="must be empty"):
        again.restore({}, facts)


def filled_like(index):
    judge = ExactIndex(width=index.width, metric=index.metric)
    judge.add(index.ids(), index.vectors(index.ids()))
    return judge


@pytest.mark.parametrize("structure", STRUCTURES)
def test_an_altered_file_leaves_the_index_empty_and_usable(structure, tmp_path):
    index = brought_to(filled(n=400), structure)
    arrays, facts = index.export_arrays()
    path = tmp_path / "file"
    write_arrays(path, arrays, facts)
    whole = path.read_bytes()
    for name, array in arrays.items():
        at = whole.index(np.ascontiguousarray(array).tobytes()) + array.nbytes // 2
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        again = make_index("auto", width=WIDTH, metric=Metric.L2)
        with open_arrays(path) as file, pytest.raises(SnapshotDamaged, match=name):
            again.restore(file, file.facts)
        assert len(again) == 0
        assert again.structure == "flat"
        again.add([5], clustered(1, 1))
        assert again.search(clustered(1, 1), 2).ids.tolist() == [[5, -1]]


def test_arrays_of_something_else_are_refused(tmp_path):
    index = filled(n=50)
    arrays, facts = index.export_arrays()
    cases = (
        ({"width": 23}, {}, "must be of"),
        ({"metric": "cosine"}, {}, "must be of"),
        ({"rows": 49}, {}, "`ids` must be"),
        ({}, {"ids": None}, "must hold `ids`"),
        ({}, {"rows": arrays["rows"][:, :-1]}, "`rows` must be"),
        ({}, {"rows": arrays["rows"].astype(float)}, "`rows` must be"),
        ({}, {"ids": np.zeros(50, np.int64)}, "each there once"),
        ({}, {"ids": np.arange(-1, 49)}, "must be 0 or more"),
        ({}, {"rows": np.full_like(arrays["rows"], np.nan)}, "must be finite"),
        ({"structure": "annoy", "annoy": {}}, {}, "must be a known one"),
    )
    for other_facts, other_arrays, why in cases:
        changed = {name: array for name, array in {**arrays, **other_arrays}.items() if array is not None}
        write_arrays(tmp_path / "file", changed, {**facts, **other_facts})
        again = make_index("auto", width=WIDTH, metric=Metric.L2)
        with open_arrays(tmp_path / "file") as file, pytest.raises(SnapshotDamaged, match=why):
            again.restore(file, file.facts)
        assert len(again) == 0


@pytest.mark.parametrize("structure", ["scan", "hnsw", "ivf"])
def test_it_is_built_beside_searches_additions_and_removals(structure):
    index, judge = filled(), filled("exact")
    queries = clustered(4, 20)
    lock = threading.Lock()  # the caller's: searches and changes one at a time, the build beside them
    begun, outcome = threading.Event(), []

    def progress(done, total):
        begun.set()
        with lock:  # waits for a change, so that builds and changes do take turns
            assert 0 <= done <= total

    builder = threading.Thread(
        target=lambda: outcome.append(index.build(Plan(structure, "a test"), seed=1, progress=progress))
    )
    builder.start()
    assert begun.wait(60)
    fresh = iter(clustered(6, 4000))
    number = 0
    while builder.is_alive() or number < 10:
        if number == 10:  # most of the rows it began with stay, for it to be of use
            builder.join()
        with lock:
            gone = judge.ids()[number % 7 :: 97]
            new = np.arange(10_000 + 20 * number, 10_015 + 20 * number)
            rows = np.stack([next(fresh) for _ in new]) if number < 200 else None
            for one in (index, judge):
                one.remove(gone)
                if rows is not None:
                    one.add(new, rows)
            assert same(index.search(queries, 5), judge.search(queries, 5))
        number += 1
    builder.join()
    assert index.structure == "flat"
    # One over rows that change may fall short of its bar: it is not adopted then, and the next one is built in peace.
    built = outcome[0] or index.build(Plan(structure, "a test"), seed=2)
    assert index.adopt(built) == (structure != "scan")
    assert index.structure == structure
    assert np.array_equal(index.ids(), judge.ids())
    assert same(index.search(queries, 8, exact=True), judge.search(queries, 8))
    if structure == "scan":
        assert same(index.search(queries, 8), judge.search(queries, 8))
    found = index.search(judge.vectors(judge.ids()[-40:]), 1)
    assert (found.distances == 0).mean() >= 0.95, "the newest rows are found"
    gone = judge.ids()[::2]
    for one in (index, judge):
        one.remove(gone)
    assert same(index.search(queries, 8, exact=True), judge.search(queries, 8))


@pytest.mark.parametrize("structure", ["scan", "hnsw", "ivf"])
def test_raising_from_progress_ends_a_build_and_changes_nothing(structure):
    index = filled()
    calls = []

    def stop(done, total):
        calls.append((done, total))
        if done:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        index.build(Plan(structure, "a test"), seed=0, progress=stop)
    assert calls[0] == (0, ROWS)
    assert index.structure == "flat"
    reached = []
    index.adopt(index.build(Plan(structure, "a test"), seed=0, progress=lambda *at: reached.append(at)))
    assert reached[-1] == (ROWS, ROWS)
    assert reached == sorted(reached)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_compacting_drops_the_dead_and_what_is_not_used(structure):
    index, judge = brought_to(filled(), structure), filled("exact")
    for one in (index, judge):
        one.remove(np.arange(0, 1800, 3))
        one.add(np.arange(1, 30, 3), clustered(7, 10))
    dead = 600 if structure in ("hnsw", "ivf") else 0
    assert index.describe()["dead"] == dead
    plan = index.upkeep_due(compact=True)
    told = index.compact(seed=1)
    assert told["alive"] == len(judge) == 910
    assert told["dead_removed"] == dead
    assert told["bytes_after"] < told["bytes_before"]
    assert index.structure == structure
    assert index.describe()["dead"] == 0
    per_row = WIDTH * 4 + 24 + 8
    assert index.describe()["bytes"]["rows"] + index.describe()["bytes"]["ids"] == 910 * per_row
    assert same(index.search(clustered(4, 30), 6, exact=True), judge.search(clustered(4, 30), 6))
    again = index.compact()
    assert (again["dead_removed"], again["bytes_after"]) == (0, again["bytes_before"])
    assert plan is not None or structure == "flat"


def test_describe_is_plain(tmp_path):
    for structure in STRUCTURES:
        told = brought_to(filled(), structure).describe()
        write_arrays(tmp_path / "file", {}, told)  # what JSON can hold
        assert told["structure"] == structure
        assert told["exact"] == (structure in ("flat", "scan"))
        assert (told["recall"] == told["recall_lower"] == 1.0) == told["exact"]
        assert told["alive"] == ROWS
        sizes = told["bytes"]
        assert sizes["anonymous"] == sizes["rows"] + sizes["ids"] + sizes["structure"]
        assert (sizes["structure"] == 0) == (structure == "flat")


def test_what_is_built_for_an_index_that_was_emptied_is_not_used():
    index = filled()
    built = index.build(Plan("hnsw", "a test"), seed=0)
    index.remove(index.ids())
    assert not index.adopt(built)
    assert index.structure == "flat"
    index.add([1], clustered(1, 1))
    assert index.search(clustered(1, 1), 1).ids.tolist() == [[1]]
