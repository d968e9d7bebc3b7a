"""What a folder of labelled images can tell methods beside its bank: a few labels, a pool, answers about pairs.

All of it is drawn from images that are tested by nobody: from `train`, and where that holds good images alone
(inspection) from a half of each kind of defect, which then is no test image for any method. Normal images of the pool
leave the bank, for the plain nearest neighbours too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.embedding import Pool
from benchmarks.errors import BenchmarkRefused
from benchmarks.folders import Case, Layout
from models.contract import Pair, PairAsker
from models.methods.few_shot_lr import FewShotLRParams, LiveFewShotLR

NORMAL_SHARE = 0.25  # of the bank that may lie in the pool
CANDIDATES = (
    512  # among which pairs are sought, half of them from the bank where there are so many, as the service does
)
AT_ONCE = 10  # pairs asked before the answers are learnt
NORMAL = "(normal)"
Rows = NDArray[np.int64]
Scores = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Supervision:
    """How much methods are told; nothing by default."""

    shots: int = 0  # labelled images of each strange kind
    unlabelled: int = 0  # images of the pool, at most
    answers: tuple[int, ...] = ()  # each number of answers about pairs is measured
    mistakes: float = 0.1  # share of answers that are left or right by chance

    def __post_init__(self) -> None:
        if self.answers and not self.unlabelled:
            raise BenchmarkRefused("`answers` must come with `unlabelled` images to be asked about; got none.")
        if not 0.0 <= self.mistakes <= 1.0:
            raise BenchmarkRefused(f"`mistakes` must be from 0 to 1; got {self.mistakes}.")
        if min((self.shots, self.unlabelled, *self.answers)) < 0:
            raise BenchmarkRefused("`shots`, `unlabelled` and `answers` must be 0 or more; got less.")


@dataclass(frozen=True, slots=True)
class Told:
    """Rows that are told of, and none of which is tested."""

    examples: Mapping[str, Rows]
    """Strange kind -> its labelled images."""
    unlabelled: Rows
    strange: frozenset[int]
    """Rows of strange kinds: what the simulated person sees, and no method."""

    @property
    def rows(self) -> Rows:
        """All of them."""
        return np.concatenate([self.unlabelled, *self.examples.values()])


def told(layout: Layout, case: Case, pool: Pool, bank: Rows, supervision: Supervision, seed: int) -> Told:
    """What is told of a case; the same seed draws the same images.

    Raises:
        BenchmarkRefused: a strange kind holds fewer images than are to be labelled.
    """
    if not (supervision.shots or supervision.unlabelled):
        return Told({}, np.zeros(0, np.int64), frozenset())
    random = np.random.default_rng(seed)
    seen = set(bank.tolist())
    examples: dict[str, Rows] = {}
    rest: list[Rows] = []
    strange: set[int] = set()
    for kind, rows in _untested(layout, case, pool).items():
        mine = random.permutation(np.array([row for row in rows.tolist() if row not in seen], np.int64))
        seen.update(mine.tolist())
        strange.update(mine.tolist())
        if mine.size < supervision.shots:
            raise BenchmarkRefused(
                f"`shots` must be at most {mine.size}, the images of {kind} that nobody tests; got {supervision.shots}."
            )
        if supervision.shots:
            examples[kind] = np.sort(mine[: supervision.shots])
        rest.append(mine[supervision.shots :])
    normal = random.permutation(bank)[: int(NORMAL_SHARE * bank.size)]
    unsorted = random.permutation(np.concatenate([normal, *rest]))[: supervision.unlabelled]
    return Told(examples, np.sort(unsorted), frozenset(strange))


def _untested(layout: Layout, case: Case, pool: Pool) -> dict[str, Rows]:
    """Images of the strange kinds that are not tested, those of `test` always the same half."""
    if layout.layout == "classes":
        tested = pool.rows(file for kind in layout.test.values() for file in kind)
        kinds = sorted(set(layout.train) - case.normal)
        return {kind: np.setdiff1d(pool.rows(layout.train[kind]), tested) for kind in kinds}
    return {kind: pool.rows(layout.test[kind])[::2] for kind in sorted(set(layout.test) - case.normal)}


def logistic_regression(
    vectors: NDArray[np.float32], normal: Rows, examples: Mapping[str, Rows]
) -> tuple[Callable[[Rows], Scores], int]:
    """The supervised baseline, `few_shot_lr` told bank and examples: log-odds of any strange kind; and its bytes."""
    live = LiveFewShotLR(width=vectors.shape[1], params=FewShotLRParams())
    for label, rows in ((NORMAL, normal), *examples.items()):
        live.add(rows, rows.astype(np.uint64), [label] * rows.size, vectors[rows])
    fitted = live.fitted()
    place = fitted.labels.index(NORMAL)

    def scores(rows: Rows) -> Scores:
        shares = np.maximum(fitted.classify(vectors[rows], nearest=0).probabilities, np.finfo(np.float64).tiny)
        found: Scores = (np.log(np.delete(shares, place, axis=1).sum(axis=1)) - np.log(shares[:, place])).astype(
            np.float32
        )
        return found

    return scores, fitted.memory_bytes


class Person:
    """Answers which of two images is more anomalous: the strange one, "same" where both are of one sort."""

    def __init__(self, known: Told, mistakes: float, seed: int) -> None:
        self._strange = known.strange
        self._mistakes = mistakes
        self._random = np.random.default_rng([seed, 1])

    def answer(self, left: int, right: int) -> Pair:
        """What is said of these two; by chance left or right in a share of all answers."""
        if self._random.random() < self._mistakes:
            return Pair(left, right, "left" if self._random.random() < 0.5 else "right")
        if (left in self._strange) == (right in self._strange):
            return Pair(left, right, "same")
        return Pair(left, right, "left" if left in self._strange else "right")


def asked_by_chance(person: Person, known: Told, fit: Rows, count: int, seed: int) -> list[Pair]:
    """Answers about pairs drawn by chance among the candidates."""
    random = np.random.default_rng([seed, 2])
    return [_by_chance(person, _candidates(known, fit, random), random) for _ in range(count)]


def asked_by_choice(
    person: Person,
    known: Told,
    fit: Rows,
    count: int,
    seed: int,
    learn: Callable[[Sequence[Pair]], PairAsker],
    next_pairs: Callable[[PairAsker, Rows, set[tuple[int, int]], int], Iterable[tuple[int, int]]],
) -> list[Pair]:
    """Answers about the pairs that the method asks for, learnt anew every few answers; the first ones are by chance."""
    random = np.random.default_rng([seed, 3])
    found = [_by_chance(person, _candidates(known, fit, random), random) for _ in range(min(AT_ONCE, count))]
    while len(found) < count:
        asker = learn(found)
        asked = {(one.left, one.right) for one in found}
        chosen = list(next_pairs(asker, _candidates(known, fit, random), asked, min(AT_ONCE, count - len(found))))
        if not chosen:  # every pair was asked
            break
        found += [person.answer(left, right) for left, right in chosen]
    return found


def _candidates(known: Told, fit: Rows, random: np.random.Generator) -> Rows:
    others = random.permutation(known.rows)[: CANDIDATES // 2]
    return np.concatenate([random.permutation(fit)[: CANDIDATES - others.size], others])


def _by_chance(person: Person, candidates: Rows, random: np.random.Generator) -> Pair:
    left, right = random.choice(candidates, 2, replace=False).tolist()
    return person.answer(left, right)
