"""Does the promised false-alarm rate hold? Measured over random splits of pools of normal vectors.

    python -m benchmarks.false_alarms POOL.npz ... --out FOLDER

Each pool is an `.npz` with an array `vectors` (N, D). Nothing here is trained and no anomaly is needed:
every alarm is a false one. For n calibration images and a requested rate a, the promise is floor(a (n + 1))
/ (n + 1), and 1 / (n + 1) where n supports no finer one.

Six ways of calibrating are measured, with the arithmetic the service itself uses:

* held out:       n images calibrate a bank of others. The mean over splits must equal the promise.
* leave one out:  n images are the bank and calibrate it. The mean must not exceed the promise.
* drawn sets:     sets of images, references and calibration drawn from the two halves of a bank. As held out.
* registered:     n registered groups calibrate themselves. As leave one out.
* sets by images: the images of n disjoint sets are the bank. Sets are drawn from it, and their pooled scores
                  (`excess`), each image without its set, calibrate it. As leave one out.
* registered by images: the same with the n sets as they are. As leave one out.

The images of a real set often belong together: pictures of one part, of one day. `--sets-of-a-kind` makes every set
of images of one kind (`kinds` (N,) beside the vectors), where only sets of the same making can promise anything.

How far from the promise a mean may be. All splits share one pool, so they say nothing about other pools;
but the promise is made for *any* exchangeable images, and a random split makes the images of one fixed pool
exchangeable. Given the pool, splits are independent draws, and the number of false alarms among T test
images follows exactly the beta-binomial law with T trials and parameters (m, n + 1 - m), for held-out
scores without ties. So the standard error of the mean over S splits is that law's standard deviation / (T
sqrt(S)), with no allowance for sharing the pool; and 99 % of the splits must lie within the law's 99 %
interval, of which 97 % are asked for. Leave-one-out scores follow no exact law: their standard error is the
empirical one over splits, and the interval counts on its upper side.

Exact duplicates are dropped first, since ties lower the rate. With 3 standard errors a true promise still
fails one two-sided check in 370.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import betabinom  # type: ignore[attr-defined]

from benchmarks.errors import BenchmarkRefused
from benchmarks.report import percent, table
from benchmarks.setting import setting
from index import Metric, make_index
from models.judging import anomalous, make_calibration
from models.leave_one_out import GroupLedger
from models.methods.dn2 import DN2Params
from models.methods.dn2.groups import drawn_group_bank, registered_group_bank
from models.methods.dn2.maths import mean_of_nearest
from models.pooling import ScorePooling, pooled, usual_score

Way = Literal["held out", "leave one out", "drawn sets", "registered", "sets by images", "registered by images"]
WAYS_FOR_IMAGES: tuple[Way, ...] = ("held out", "leave one out")
WAYS_FOR_SETS: tuple[Way, ...] = ("drawn sets", "registered", "sets by images", "registered by images")
WAYS = (*WAYS_FOR_IMAGES, *WAYS_FOR_SETS)
EXACT: frozenset[Way] = frozenset({"held out", "drawn sets"})
BY_IMAGES: frozenset[Way] = frozenset({"sets by images", "registered by images"})

STANDARD_ERRORS = 3.0
INTERVAL = 0.99
INSIDE_MIN = 0.97
TESTS_MIN = 10  # fewer test images a split say too little about it


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured on each pool."""

    rates: tuple[float, ...] = (0.01, 0.05, 0.10)
    sizes: tuple[int, ...] = (20, 200, 1000)
    splits: int = 1000
    tests: int = 500
    """Most test images a split; for sets, a fifth of it."""
    set_size: int = 4
    k: int = 2
    metric: Metric = Metric.COSINE
    pool_max: int = 4000
    """Images kept of a larger pool: the matrix of distances grows with their square."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One way of calibrating at one n and one rate."""

    way: Way
    n: int
    requested: float
    promised: float
    splits: int
    tests: int
    observed: float
    standard_error: float
    inside: float
    """Share of splits within the law's 99 % interval."""
    not_above: float
    """Share of splits not above it."""

    @property
    def passes(self) -> bool:
        """Whether the promise held."""
        excess = (self.observed - self.promised) / self.standard_error
        if self.way in EXACT:
            return abs(excess) <= STANDARD_ERRORS and self.inside >= INSIDE_MIN
        return excess <= STANDARD_ERRORS and self.not_above >= INSIDE_MIN


@dataclass(frozen=True, slots=True)
class Measured:
    """All rows of one pool, and what it was too small for."""

    pool: str
    images: int
    width: int
    rows: tuple[Row, ...]
    too_small_for: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Pool:
    """Images that are split in many ways."""

    vectors: NDArray[np.float32]  # (N, D)
    distances: NDArray[np.float32] | None  # (N, N), where a way reads them
    kinds: NDArray[np.intp] | None  # (N,) numbers, where sets are of a kind


Scores = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Calibration scores and test scores of one split."""


def measure_pool(
    vectors: NDArray[np.float32],
    plan: Plan,
    *,
    name: str = "pool",
    ways: Sequence[Way] = WAYS,
    kinds: NDArray[np.str_] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Measured:
    """False-alarm rates over random splits of one pool of normal vectors.

    `kinds` (N,): each set is of images of one kind; without them, of any.

    Raises:
        BenchmarkRefused: the pool is not a matrix of vectors, or has not a kind for each.
    """
    if kinds is not None and kinds.shape != vectors.shape[:1]:
        raise BenchmarkRefused(f"`kinds` of pool {name} must have one for each of {len(vectors)}; got {kinds.shape}.")
    if vectors.ndim != 2 or not vectors.size:
        raise BenchmarkRefused(f"`vectors` of pool {name} must have shape (images, features); got {vectors.shape}.")
    random = np.random.default_rng(plan.seed)
    distinct, first = np.unique(vectors.astype(np.float32), axis=0, return_index=True)
    chosen = np.sort(random.permutation(len(distinct))[: plan.pool_max])
    kept = distinct[chosen]
    by_distances = {*WAYS_FOR_IMAGES, *BY_IMAGES}
    distances = distance_matrix(kept, plan.metric) if by_distances & set(ways) else None
    numbers = None if kinds is None else np.unique(kinds[first[chosen]], return_inverse=True)[1]
    pool = _Pool(kept, distances, numbers)
    rows, too_small_for = [], []
    for way in ways:
        for n in plan.sizes:
            splits = (_splits_for_sets if way in WAYS_FOR_SETS else _splits)(way, n, pool, plan, random)
            if splits is None:
                too_small_for.append(f"{way}, n = {n}")
                continue
            progress(f"{name}: {way}, n = {n}")
            rows += judged(way, n, list(splits), plan.rates)
    return Measured(name, len(kept), kept.shape[1], tuple(rows), tuple(too_small_for))


def distance_matrix(vectors: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Distances between all pairs, as the index measures them; infinite from an image to itself.

    Shapes: (N, D) -> (N, N).
    """
    n = len(vectors)
    index = make_index("exact", width=vectors.shape[1], metric=metric)
    index.add(np.arange(n), vectors)
    matrix = np.empty((n, n), dtype=np.float32)
    for start in range(0, n, 256):
        found = index.search(vectors[start : start + 256], n)
        np.put_along_axis(matrix[start : start + 256], found.ids, found.distances, axis=1)
    np.fill_diagonal(matrix, np.inf)
    return matrix


def judged(way: Way, n: int, splits: Sequence[Scores], rates: Sequence[float]) -> list[Row]:
    """A row for each rate from the scores of all splits."""
    tests = splits[0][1].size
    rows = []
    for rate in rates:
        calibrations = [make_calibration(calibration, rate) for calibration, _ in splits]
        verdicts = [anomalous(asked, made) for (_, asked), made in zip(splits, calibrations, strict=True)]
        alarms = np.array([int(verdict.sum()) for verdict in verdicts if verdict is not None])
        promised = calibrations[0].false_alarm_rate
        m = round(promised * (n + 1))
        law = betabinom(tests, m, n + 1 - m)
        low, high = law.ppf((1 - INTERVAL) / 2), law.ppf((1 + INTERVAL) / 2)
        # One alarm-free run of splits must not make its error zero: the law's is the least that is believed.
        deviation = law.std() if way in EXACT or alarms.std() == 0 else alarms.std(ddof=1)
        rows.append(
            Row(
                way=way,
                n=n,
                requested=rate,
                promised=promised,
                splits=len(splits),
                tests=tests,
                observed=float(alarms.mean() / tests),
                standard_error=float(deviation / tests / np.sqrt(len(splits))),
                inside=float(np.mean((alarms >= low) & (alarms <= high))),
                not_above=float(np.mean(alarms <= high)),
            )
        )
    return rows


def _splits(way: Way, n: int, pool: _Pool, plan: Plan, random: np.random.Generator) -> Iterator[Scores] | None:
    """The splits of one way for images, or None when the pool cannot hold them."""
    images, distances = len(pool.vectors), pool.distances
    if way == "leave one out":
        tests = min(plan.tests, images - n)
        if distances is None or tests < TESTS_MIN or n <= plan.k:
            return None
        return (
            _leave_one_out(distances, random.permutation(images)[: n + tests], n, plan.k) for _ in range(plan.splits)
        )
    tests = min(plan.tests, (images - n) // 2)
    bank = min(n, images - n - tests)
    if distances is None or tests < TESTS_MIN or bank < plan.k:
        return None
    return (
        _held_out(distances, random.permutation(images)[: bank + n + tests], bank, n, plan.k)
        for _ in range(plan.splits)
    )


def _splits_for_sets(way: Way, n: int, pool: _Pool, plan: Plan, random: np.random.Generator) -> Iterator[Scores] | None:
    """The same of one way for sets."""
    size, kinds, distances = plan.set_size, pool.kinds, pool.distances
    images = len(pool.vectors) if kinds is None else int((np.bincount(kinds) // size).sum()) * size
    taken = (2 if way == "drawn sets" else 1) * n * size  # a calibration set and as many reference images
    tests = min(max(TESTS_MIN, plan.tests // 5), (images - taken) // size)
    if tests < TESTS_MIN:
        return None
    orders = (_in_sets(len(pool.vectors), kinds, size, random)[: taken + tests * size] for _ in range(plan.splits))
    if way in BY_IMAGES:
        if distances is None or taken <= plan.k:
            return None
        # Without kinds the order is as good as drawn.
        draw = random if way == "sets by images" and kinds is not None else None
        return (_by_images(distances, order, taken, plan, draw) for order in orders)
    measure = _drawn_sets if way == "drawn sets" else _registered
    return (measure(pool.vectors[order], taken, plan, random) for order in orders)


def _in_sets(images: int, kinds: NDArray[np.intp] | None, size: int, random: np.random.Generator) -> NDArray[np.intp]:
    """All images in a random order that is cut into sets of a size; each of one kind, if there are kinds."""
    if kinds is None:
        return random.permutation(images)
    sets = []
    for kind in range(int(kinds.max()) + 1):
        members = random.permutation(np.flatnonzero(kinds == kind))
        sets.append(members[: members.size // size * size].reshape(-1, size))
    return random.permutation(np.concatenate(sets)).ravel()


def _nearest(
    distances: NDArray[np.float32], rows: NDArray[np.intp], bank: NDArray[np.intp], k: int
) -> NDArray[np.float32]:
    part = distances[np.ix_(rows, bank)]
    nearest = np.sort(np.partition(part, k - 1, axis=1)[:, :k], axis=1)
    return mean_of_nearest(nearest, k).astype(np.float32)


def _held_out(distances: NDArray[np.float32], order: NDArray[np.intp], bank: int, n: int, k: int) -> Scores:
    scores = _nearest(distances, order[bank:], order[:bank], k)
    return scores[:n], scores[n:]


def _leave_one_out(distances: NDArray[np.float32], order: NDArray[np.intp], n: int, k: int) -> Scores:
    # An image is infinitely far from itself in the matrix, so the bank's own scores leave each one out.
    scores = _nearest(distances, order, order[:n], k)
    return scores[:n], scores[n:]


def _by_images(
    distances: NDArray[np.float32],
    order: NDArray[np.intp],
    taken: int,
    plan: Plan,
    draw: np.random.Generator | None,
) -> Scores:
    size, bank = plan.set_size, order[:taken]
    alone, asked = _leave_one_out(distances, order, taken, plan.k)
    usual = usual_score(alone, alone)
    calibrating = bank if draw is None else draw.permutation(bank)
    in_sets = np.stack(
        [
            _nearest(distances, members, np.setdiff1d(bank, members, assume_unique=True), plan.k)
            for members in calibrating.reshape(-1, size)
        ]
    )
    sets = asked.reshape(-1, size)
    return pooled(in_sets, ScorePooling.EXCESS, usual), pooled(sets, ScorePooling.EXCESS, usual)


@dataclass(frozen=True, slots=True)
class _Bank:
    """A bank to draw sets from, without the calibration of single images that `LiveDN2` would keep beside
    it."""

    params: DN2Params
    bank: Any
    groups: GroupLedger
    ids: NDArray[np.int64]
    row_keys: NDArray[np.uint64]

    def keys(self) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        order = np.lexsort((self.ids, self.row_keys))
        return self.ids[order], self.row_keys[order]


def _drawn_sets(images: NDArray[np.float32], taken: int, plan: Plan, random: np.random.Generator) -> Scores:
    index = make_index("exact", width=images.shape[1], metric=plan.metric)
    ids = np.arange(taken)
    index.add(ids, images[:taken])
    keys = random.integers(0, 2**64, size=taken, dtype=np.uint64)
    source = _Bank(DN2Params(k=plan.k, metric=plan.metric), index, GroupLedger(), ids, keys)
    made = drawn_group_bank(source, plan.set_size)
    return made.calibration, _set_scores(made.score, images[taken:], plan.set_size)


def _registered(images: NDArray[np.float32], taken: int, plan: Plan, random: np.random.Generator) -> Scores:
    del random  # the split is all the chance there is
    sets = images[:taken].reshape(-1, plan.set_size, images.shape[1])
    made = registered_group_bank(
        {str(number): members for number, members in enumerate(sets)},
        params=DN2Params(k=plan.k, metric=plan.metric),
    )
    return made.calibration, _set_scores(made.score, images[taken:], plan.set_size)


def _set_scores(score: Callable[..., Any], images: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    sets = images.reshape(-1, size, images.shape[1])
    return np.array([score(members, neighbours=0).score for members in sets], dtype=np.float32)


def report_text(measured: Sequence[Measured]) -> list[str]:
    """The tables of all pools, in Markdown."""
    lines = []
    for pool in measured:
        lines += [f"## {pool.pool}: {pool.images} distinct images, {pool.width} features", ""]
        lines += table(
            [
                "calibration",
                "n",
                "asked",
                "promised",
                "observed",
                "standard error",
                "inside",
                "not above",
                "splits",
                "",
            ],
            [
                [
                    row.way,
                    str(row.n),
                    percent(row.requested),
                    percent(row.promised),
                    percent(row.observed),
                    f"{100 * row.standard_error:.3f}",
                    percent(row.inside),
                    percent(row.not_above),
                    str(row.splits),
                    "held" if row.passes else "BROKEN",
                ]
                for row in pool.rows
            ],
        )
        if pool.too_small_for:
            lines += [f"Too small a pool for: {'; '.join(pool.too_small_for)}.", ""]
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure pools, write `false_alarms.json` and `.md`; 1 when a promise was broken."""
    usual = Plan()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.false_alarms", description=__doc__.partition("\n")[0])
    parser.add_argument("pools", nargs="+", type=Path, help="npz files with an array `vectors`")
    parser.add_argument("--out", type=Path, default=Path(".bench"), help="folder of the two reports")
    parser.add_argument("--splits", type=int, default=usual.splits)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(usual.sizes))
    parser.add_argument("--set-size", type=int, default=usual.set_size)
    parser.add_argument("--k", type=int, default=usual.k)
    parser.add_argument("--metric", choices=[metric.value for metric in Metric], default=usual.metric.value)
    parser.add_argument("--pool-max", type=int, default=usual.pool_max)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--sets-of-a-kind", action="store_true", help="by the array `kinds` of each file")
    parser.add_argument("--seed", type=int, default=usual.seed)
    given = parser.parse_args(arguments)
    plan = Plan(
        splits=given.splits,
        sizes=tuple(given.sizes),
        set_size=given.set_size,
        k=given.k,
        metric=Metric(given.metric),
        pool_max=given.pool_max,
        seed=given.seed,
    )
    measured = []
    for path in given.pools:
        with np.load(path, allow_pickle=False) as file:
            if "vectors" not in file:
                parser.error(f"{path} must hold an array `vectors`; got {', '.join(file)}")
            if given.sets_of_a_kind and "kinds" not in file:
                parser.error(f"{path} must hold an array `kinds` for --sets-of-a-kind; got {', '.join(file)}")
            vectors, kinds = file["vectors"], file["kinds"] if given.sets_of_a_kind else None
        measured.append(measure_pool(vectors, plan, name=path.stem, ways=given.ways, kinds=kinds, progress=_to_stderr))
    write(measured, plan, given.out)
    return 0 if all(row.passes for pool in measured for row in pool.rows) else 1


def write(measured: Sequence[Measured], plan: Plan, out: Path) -> None:
    """`false_alarms.json` and `false_alarms.md` in a folder."""
    where = setting()
    found = [
        {**asdict(pool), "rows": [{**asdict(row), "passes": row.passes} for row in pool.rows]} for pool in measured
    ]
    out.mkdir(parents=True, exist_ok=True)
    everything = {"plan": asdict(plan), "pools": found, "setting": where}
    (out / "false_alarms.json").write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")
    head = [
        "# False alarms",
        "",
        f"Commit {where['commit']}, {where['date']}. k = {plan.k}, {plan.metric}, sets of {plan.set_size}, "
        f"seed {plan.seed}. All figures but n and splits are percent.",
        "",
    ]
    (out / "false_alarms.md").write_text("\n".join([*head, *report_text(measured)]) + "\n", encoding="utf-8")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
