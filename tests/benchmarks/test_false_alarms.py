"""benchmarks/false_alarms.py on Gaussians, few splits; and pools for which the promise must break."""

import json

import numpy as np
import pytest

from benchmarks import false_alarms
from benchmarks.errors import BenchmarkRefused
from benchmarks.false_alarms import EXACT, WAYS, Plan, Row, distance_matrix, judged, measure_pool
from index import Metric
from tests.oracles import dn2 as oracle

QUICK = Plan(splits=150, sizes=(20, 50), tests=100)
QUICK_SETS = Plan(splits=40, sizes=(20,), tests=50, set_size=2)


def gaussians(images: int, seed: int = 0, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(images, width)).astype(np.float32)


@pytest.mark.parametrize(("plan", "ways"), [(QUICK, WAYS[:2]), (QUICK_SETS, WAYS[2:])])
def test_the_promise_holds_on_gaussians(plan, ways):
    measured = measure_pool(gaussians(300), plan, ways=ways)
    assert not measured.too_small_for
    assert {(row.way, row.n, row.requested) for row in measured.rows} == {
        (way, n, rate) for way in ways for n in plan.sizes for rate in (0.01, 0.05, 0.1)
    }
    assert [row for row in measured.rows if not row.passes] == []
    one_percent_of_20 = next(row for row in measured.rows if (row.n, row.requested) == (20, 0.01))
    assert one_percent_of_20.promised == 1 / 21  # 20 images support no finer rate
    assert all(row.splits == plan.splits for row in measured.rows)


@pytest.mark.parametrize("way", ["held out", "leave one out"])
def test_scores_of_a_split_equal_a_double_loop(way):
    pool = gaussians(60, seed=3)
    distances = distance_matrix(pool, Metric.L2)
    order = np.random.default_rng(4).permutation(60)
    if way == "held out":
        calibration, asked = false_alarms._held_out(distances, order, 15, 20, 2)
        bank, held, new = pool[order[:15]], pool[order[15:35]], pool[order[35:]]
        assert calibration == pytest.approx(oracle.scores(held, bank, 2, "l2"), rel=1e-5)
    else:
        calibration, asked = false_alarms._leave_one_out(distances, order, 20, 2)
        bank, new = pool[order[:20]], pool[order[20:]]
        assert calibration == pytest.approx(oracle.leave_one_out(bank, 2, "l2"), rel=1e-5)
    assert asked == pytest.approx(oracle.scores(new, bank, 2, "l2"), rel=1e-5)


def test_where_images_of_a_set_belong_together_only_sets_of_that_making_keep_the_promise():
    random = np.random.default_rng(6)
    kind = np.repeat(np.arange(12), 60)
    # Some kinds scatter more than others, so sets of one kind differ more as a whole than sets of many do.
    around = np.linspace(0.3, 3, 12)[kind, None] * random.normal(size=(720, 4))
    pool, kinds = (20 * random.normal(size=(12, 4))[kind] + around).astype(np.float32), kind.astype(str)
    plan = Plan(rates=(0.05,), splits=120, sizes=(60,), tests=200, metric=Metric.L2)
    ways = ("sets by images", "registered by images")
    of_a_kind = {row.way: row for row in measure_pool(pool, plan, ways=ways, kinds=kinds).rows}
    assert of_a_kind["registered by images"].passes
    assert not of_a_kind["sets by images"].passes and of_a_kind["sets by images"].observed > 0.07
    # Negative control: the same images in sets of any kinds.
    assert all(row.passes for row in measure_pool(pool, plan, ways=ways).rows)


def test_sets_of_a_kind_hold_images_of_one_kind_and_none_twice():
    kinds = np.array([0] * 7 + [1] * 5 + [2])
    order = false_alarms._in_sets(13, kinds, 3, np.random.default_rng(0))
    assert np.unique(order).size == order.size == 9
    assert {tuple(np.unique(kinds[members])) for members in order.reshape(-1, 3)} == {(0,), (1,)}
    with pytest.raises(BenchmarkRefused, match=r"one for each of 20; got \(19,\)"):
        measure_pool(gaussians(20), QUICK, kinds=np.array(["a"] * 19))


def splits_of(draw, splits=200, n=50, tests=100):
    random = np.random.default_rng(5)
    return [draw(random, n, tests) for _ in range(splits)]


def shifted(random, n, tests):
    return random.normal(size=n), random.normal(0.3, 1, size=tests)


def duplicated(random, n, tests):
    # Each test image counts ten times: the mean is right, single splits scatter far too much.
    return random.normal(size=n), np.repeat(random.normal(size=tests // 10), 10)


def cautious(random, n, tests):
    return random.normal(size=n) + 0.5, random.normal(size=tests)


def fair(random, n, tests):
    return random.normal(size=n), random.normal(size=tests)


@pytest.mark.parametrize(
    ("draw", "exact_passes", "one_sided_passes"),
    [(fair, True, True), (shifted, False, False), (duplicated, False, False), (cautious, False, True)],
)
def test_broken_promises_are_noticed(draw, exact_passes, one_sided_passes):
    drawn = splits_of(draw)
    exact, one_sided = (judged(way, 50, drawn, [0.1])[0] for way in ("held out", "leave one out"))
    assert exact.promised == 5 / 51
    assert (exact.passes, one_sided.passes) == (exact_passes, one_sided_passes)


def test_standard_errors_are_what_means_of_splits_scatter_by():
    means, errors = [], []
    for seed in range(40):
        random = np.random.default_rng(seed)
        row = judged("held out", 30, [fair(random, 30, 50) for _ in range(25)], [0.1])[0]
        means.append(row.observed)
        errors.append(row.standard_error)
    assert np.std(means) == pytest.approx(errors[0], rel=0.4)


def test_a_pool_too_small_is_said_and_not_passed_over():
    measured = measure_pool(gaussians(50), Plan(splits=2, sizes=(20, 200), set_size=2))
    assert measured.too_small_for == (
        "held out, n = 200",
        "leave one out, n = 200",
        "drawn sets, n = 20",
        "drawn sets, n = 200",
        "registered, n = 20",
        "registered, n = 200",
        "sets by images, n = 20",
        "sets by images, n = 200",
        "registered by images, n = 20",
        "registered by images, n = 200",
    )
    assert {row.n for row in measured.rows} == {20}


def test_exact_duplicates_are_dropped_first():
    pool = gaussians(40)
    plan = Plan(splits=2, sizes=(10,))
    assert measure_pool(np.concatenate([pool, pool]), plan, ways=["leave one out"]).images == 40


def test_the_seed_decides():
    pool, plan = gaussians(80), Plan(splits=3, sizes=(20,), set_size=1)
    once, again = measure_pool(pool, plan), measure_pool(pool, plan)
    assert once == again
    other = measure_pool(pool, Plan(splits=3, sizes=(20,), set_size=1, seed=1))
    assert once.rows != other.rows


def test_the_command_writes_both_reports_and_says_whether_all_held(tmp_path, monkeypatch):
    np.savez(tmp_path / "gaussian.npz", vectors=gaussians(200))
    arguments = [str(tmp_path / "gaussian.npz"), "--out", str(tmp_path / "out"), "--splits", "40", "--sizes", "20"]
    assert false_alarms.main([*arguments, "--ways", "leave one out", "drawn sets", "--set-size", "2"]) == 0
    written = json.loads((tmp_path / "out" / "false_alarms.json").read_text())
    assert [row["way"] for row in written["pools"][0]["rows"]] == ["leave one out"] * 3 + ["drawn sets"] * 3
    assert all(row["passes"] for row in written["pools"][0]["rows"])
    assert "## gaussian: 200 distinct images, 4 features" in (tmp_path / "out" / "false_alarms.md").read_text()
    monkeypatch.setattr(Row, "passes", property(lambda row: row.way in EXACT))
    assert false_alarms.main([*arguments, "--ways", "leave one out"]) == 1
    assert "BROKEN" in (tmp_path / "out" / "false_alarms.md").read_text()


def test_other_files_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "other.npz", features=gaussians(20))
    with pytest.raises(SystemExit):
        false_alarms.main([str(tmp_path / "other.npz")])
    assert "must hold an array `vectors`; got features" in capsys.readouterr().err
    np.savez(tmp_path / "without.npz", vectors=gaussians(20))
    with pytest.raises(SystemExit):
        false_alarms.main([str(tmp_path / "without.npz"), "--sets-of-a-kind"])
    assert "must hold an array `kinds` for --sets-of-a-kind; got vectors" in capsys.readouterr().err
    with pytest.raises(BenchmarkRefused, match=r"\(images, features\); got \(3,\)"):
        measure_pool(np.zeros(3, dtype=np.float32), QUICK)
