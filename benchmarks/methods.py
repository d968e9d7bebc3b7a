"""`oddity bench methods`: every method on the same splits and the same embedding, beside the plain nearest neighbours.

A method is fitted, calibrated and scored by the code that the service uses for it. Times are the processor's, all
threads together, so that other work on the machine does not count. What is timed is the method's own part: embedding
is the same for all, and is left out; feature maps and pixels are computed when a method asks for them, and then count.
Methods that need labels, unlabelled images or answers about pairs are told as much of them as `supervision.py` draws
from images that nobody tests.
"""

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.embedders import Embedders
from app.scorers.row_cache import RowCache
from app.shelf import image_key
from benchmarks.embedding import Advance, Pool, embed_files
from benchmarks.errors import BenchmarkRefused
from benchmarks.folders import Case, Layout, cases, read_layout
from benchmarks.metrics import average_precision, roc_auc
from benchmarks.protocols import live_bank
from benchmarks.supervision import (
    Person,
    Supervision,
    Told,
    asked_by_chance,
    asked_by_choice,
    logistic_regression,
    told,
)
from index import Metric
from models.backbones.embedder import Embedder, EmbeddingSpec, PreparedImage
from models.catalog import Catalogue, installed
from models.contract import Inputs, Method, Need, Pair, PairAsker, Reference
from models.errors import InputError, StateError
from models.fitting import calibration_rows, fit, held_out, scores_of
from models.inputs import Batches, EmbedderBackbone, LazyInputs, LazyMaps, StagesAsked
from models.judging import anomalous, make_calibration
from models.methods.dn2 import DN2Params

SUPERVISED = "few_shot_lr"  # live; what methods that are told labels are compared with
RATE = 0.05  # false alarms are looked at at this rate
CACHE_BYTES = 8 * 2**30  # on disk, for pixels and maps
Rows = NDArray[np.int64]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class MethodsPlan:
    """What to measure."""

    methods: tuple[str, ...] = ()  # none: all that are installed
    limit: int | None = None  # files of each kind in each part; None: all
    normal: tuple[str, ...] = ()  # the classes of one single case; none: each class in turn
    together: int = 1
    cases_max: int | None = None
    seed: int = 0
    quick: bool = False  # with the parameters that a card calls quick, to try the harness out
    supervision: Supervision = field(default_factory=Supervision)


def measure_methods(
    folders: Sequence[Path],
    embedders: Embedders,
    spec: EmbeddingSpec,
    plan: MethodsPlan,
    cache: Path,
    *,
    advance: Advance | None = None,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Every figure of the plan; the same seed and files give the same figures, seconds apart.

    Raises:
        BenchmarkRefused: a folder has neither layout or lacks a class, or a method is unknown or live; all before
            anything is measured.
    """
    catalogue = installed()
    names = _chosen(catalogue, plan)
    data: list[dict[str, Any]] = []
    identity: dict[str, Any] = {}
    layouts = [read_layout(folder, plan.limit) for folder in folders]
    of_layouts = [cases(one, together=plan.together, normal=plan.normal)[: plan.cases_max] for one in layouts]
    for layout, of_layout in zip(layouts, of_layouts, strict=True):
        pool, embedder = embed_files(layout.files(), embedders, spec, cache, advance)
        identity = {**embedder.identity.describe(), "weights": embedder.identity.weights.partition(":")[0]}
        measured: list[dict[str, Any]] = []
        for case in of_layout:
            with PoolImages(pool, embedders, embedder) as images:
                split = _split(layout, case, pool, plan)
                measured.append({"method": None, "case": case.name, **_plain(pool, split)})
                if split.told.examples:
                    measured.append({"method": SUPERVISED, "case": case.name, **_supervised(pool, split)})
                for name in names:
                    say(f"{layout.name}, {case.name}: {name}")
                    found = _measured(catalogue, name, images, split, plan)
                    measured += [{"method": name, "case": case.name, **one} for one in found]
        data.append({"folder": layout.name, "layout": layout.layout, "cases": measured})
    return {
        "benchmark": "methods",
        "weights": identity["weights"],
        "embedding": identity,
        "plan": asdict(plan),
        "rate": RATE,
        "data": data,
        "summary": [one for measured in data for one in _summaries(measured)],
    }


def _chosen(catalogue: Catalogue, plan: MethodsPlan) -> list[str]:
    fitted = [name for name in catalogue if not catalogue[name].live]
    known = [*fitted, *([SUPERVISED] if plan.supervision.shots else [])]
    unknown = sorted(set(plan.methods) - set(known))
    if unknown:
        raise BenchmarkRefused(f"`method` must be among {', '.join(known)}; got {', '.join(unknown)}.")
    return [name for name in fitted if not plan.methods or name in plan.methods]


@dataclass(frozen=True, slots=True)
class _Split:
    """One case: the bank as the service would split it, and what is tested."""

    labels: dict[str, Rows]
    fit: Rows
    calibration: Rows
    normal: Rows
    strangers: Rows
    keys: NDArray[np.uint64]  # of the images to fit
    told: Told
    kind_of: dict[int, str]  # the normal class of images to fit, where methods are told labels

    @property
    def test(self) -> Rows:
        return np.concatenate([self.normal, self.strangers])

    @property
    def is_stranger(self) -> NDArray[np.bool_]:
        return np.arange(self.test.size) >= self.normal.size


def _split(layout: Layout, case: Case, pool: Pool, plan: MethodsPlan) -> _Split:
    kinds = {kind: pool.rows(layout.train.get(kind, ())) for kind in sorted(case.normal)}
    everything = np.array(list(dict.fromkeys(row for rows in kinds.values() for row in rows.tolist())), np.int64)
    known = told(layout, case, pool, everything, plan.supervision, plan.seed)
    bank = everything[~np.isin(everything, known.unlabelled)]
    keys = np.array([image_key(pool.sha256[row]) for row in bank], np.uint64)
    aside, left = held_out(keys, [])
    normal = pool.rows(file for kind in sorted(case.normal) for file in layout.test.get(kind, ()))
    strangers = pool.rows(file for kind in sorted(set(layout.test) - case.normal) for file in layout.test[kind])
    fitted = bank[left]
    learnt = np.union1d(everything, known.rows)
    return _Split(
        # Several normal classes are known apart; one alone is no label.
        labels={kind: np.intersect1d(rows, fitted) for kind, rows in kinds.items()} if len(kinds) > 1 else {},
        fit=fitted,
        calibration=bank[calibration_rows(keys, aside)],
        normal=np.setdiff1d(normal, learnt),
        strangers=np.setdiff1d(strangers, np.union1d(normal, learnt)),
        keys=keys[left],
        told=known,
        kind_of={row: kind for kind, rows in kinds.items() for row in rows.tolist()} if known.examples else {},
    )


class PoolImages:
    """Images of a pool as methods see them; what is computed from pixels is kept on disk for one case."""

    def __init__(self, pool: Pool, embedders: Embedders, embedder: Embedder) -> None:
        self._pool = pool
        self._embedders = embedders
        self._embedder = embedder
        self._backbone = EmbedderBackbone(embedder)
        self._file_of = {row: file for file, row in pool.row_of.items()}
        self._folder = Path(tempfile.mkdtemp(prefix="oddity-bench-"))
        side = embedder.identity.preprocessing.image_size
        self._pixels = RowCache(self._folder / "pixels", len(pool.sha256), (3, side, side), CACHE_BYTES)

    def __enter__(self) -> "PoolImages":
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder)

    def batches(
        self, rows: Rows, asked: StagesAsked, batch: int = 64, kind_of: Mapping[int, str] | None = None
    ) -> Batches:
        return Batches(rows.size, lambda places: self.inputs(rows[places.start : places.stop], asked, kind_of), batch)

    def inputs(self, rows: Rows, asked: StagesAsked, kind_of: Mapping[int, str] | None = None) -> Inputs:
        return LazyInputs(
            lambda: self._pixels.get(rows, self._read),
            ids=rows.copy(),
            vectors=self._pool.vectors[rows],
            maps=LazyMaps(lambda stages: self._backbone.maps(self._pixels.get(rows, self._read), stages), asked),
            backbone=self._backbone,
            labels=[kind_of[row] for row in rows.tolist()] if kind_of else (),
        )

    def _read(self, rows: Rows) -> NDArray[np.float32]:
        data = [self._file_of[row].read_bytes() for row in rows.tolist()]
        prepared = self._embedders.prepare(self._embedder, data)
        return np.stack([one.tensor for one in prepared if isinstance(one, PreparedImage)])


def _plain(pool: Pool, split: _Split) -> dict[str, Any]:
    """The nearest neighbours with their defaults, on the whole bank: leave-one-out needs no image held out."""
    bank = np.sort(np.concatenate([split.fit, split.calibration]))
    scorer = live_bank(pool, bank, DN2Params(metric=Metric.COSINE))
    calibration = scorer.calibration().scores
    started = time.process_time()
    scores = np.concatenate([scorer.score(pool.vectors[row : row + 1], neighbours=0).score for row in split.test])
    seconds = time.process_time() - started
    return {**_figures(scores, split, calibration), "score_ms": 1000 * seconds / split.test.size}


def _supervised(pool: Pool, split: _Split) -> dict[str, Any]:
    """Logistic regression told the bank and the same labels."""
    started = time.process_time()
    score, memory = logistic_regression(pool.vectors, split.fit, split.told.examples)
    ready = time.process_time()
    calibration = score(split.calibration)
    begun = time.process_time()
    scores = np.concatenate([score(split.test[place : place + 1]) for place in range(split.test.size)])
    seconds = time.process_time() - begun
    return {
        "told": _labels_told(split),
        **_figures(scores, split, calibration),
        "fit_s": ready - started,
        "score_ms": 1000 * seconds / split.test.size,
        "state_bytes": memory,
        "params": {},
    }


def _measured(
    catalogue: Catalogue, name: str, images: PoolImages, split: _Split, plan: MethodsPlan
) -> list[dict[str, Any]]:
    """Figures of a method: once, or for each number of answers that it is told."""
    card = catalogue[name]
    missing = card.needs.missing(frozenset(_held(split, plan.supervision)))
    if missing:
        return [
            {"told": "", "skipped": f"needs {', '.join(missing)}, which folders of images do not tell by themselves"}
        ]
    kind = catalogue.method(name)
    method = kind(kind.Params.parse(name, card.quick if plan.quick else {}))
    read = _Reader(images, split, Need.LABELS in (*card.needs.required, *card.needs.optional))
    if Need.PAIRS not in card.needs.required:
        return [{"told": _told_of(read, card.needs.required), **_fitted(method, read, [], plan)}]
    found = []
    for way, answers in _answers(method, read, plan):
        for count in plan.supervision.answers:
            told_of = f"{count} answers, {way}"
            found.append({"told": told_of, **_fitted(method, read, answers[:count], plan)})
    return found


def _fitted(method: Method, read: "_Reader", answers: Sequence[Pair], plan: MethodsPlan) -> dict[str, Any]:
    split = read.split
    calibration = read.images.batches(split.calibration, read.asked, 1)
    started = time.process_time()
    try:
        fitted = fit(method, read.reference(answers), calibration, seed=plan.seed)
    except (InputError, StateError) as error:
        return {"skipped": str(error)}
    ready = time.process_time()
    scores = np.concatenate([one.image for one in _scored(fitted.scorer, read.images, split.test, read.asked)])
    finished = time.process_time()
    return {
        **_figures(scores, split, fitted.calibration),
        "fit_s": ready - started,
        "score_ms": 1000 * (finished - ready) / split.test.size,
        "state_bytes": len(fitted.state),
        "state_sha256": fitted.sha256,
        "params": method.params.model_dump(mode="json") if hasattr(method, "params") else {},
    }


class _Reader:
    """A case as one method reads it."""

    def __init__(self, images: PoolImages, split: _Split, has_labels: bool) -> None:
        self.images = images
        self.split = split
        self.asked = StagesAsked()
        self.has_labels = has_labels
        self._kind_of = split.kind_of if has_labels else {}
        self._labels = (split.told.examples or split.labels) if has_labels else {}

    def reference(self, answers: Sequence[Pair]) -> Reference:
        """What it may learn from, with these answers."""
        split, asked = self.split, self.asked
        compared = np.unique(np.array([row for one in answers for row in (one.left, one.right)], np.int64))
        return Reference(
            bank=self.images.batches(split.fit, asked, kind_of=self._kind_of),
            keys=split.keys,
            labels={label: self.images.batches(rows, asked) for label, rows in self._labels.items()},
            unlabelled=self.images.batches(split.told.unlabelled, asked),
            pairs=answers,
            compared=self.images.batches(compared, asked),
        )


def _answers(method: Method, read: _Reader, plan: MethodsPlan) -> Iterator[tuple[str, list[Pair]]]:
    """A simulated person's answers, asked about pairs drawn by chance, and about pairs that the method chose."""
    split, told_of = read.split, plan.supervision
    count = max(told_of.answers)

    def person() -> Person:
        return Person(split.told, told_of.mistakes, plan.seed)

    def learn(answers: Sequence[Pair]) -> PairAsker:
        fitted = method.fit(read.reference(answers), seed=plan.seed)
        assert isinstance(fitted, PairAsker)  # the card says so, and the contract suite holds it
        return fitted

    def next_pairs(
        asker: PairAsker, candidates: Rows, asked: set[tuple[int, int]], most: int
    ) -> Iterator[tuple[int, int]]:
        inputs = read.images.inputs(candidates, read.asked)
        yield from ((one.left, one.right) for one in asker.next_pairs(inputs, asked, most))

    yield "by chance", asked_by_chance(person(), split.told, split.fit, count, plan.seed)
    chosen = asked_by_choice(person(), split.told, split.fit, count, plan.seed, learn, next_pairs)
    yield "chosen", chosen


def _scored(scorer: Any, images: PoolImages, rows: Rows, asked: StagesAsked) -> Iterator[Any]:
    for inputs in images.batches(rows, asked, 1):  # one at a time, as requests are
        yield from scores_of(scorer, inputs)


def _held(split: _Split, supervision: Supervision) -> Iterator[Need]:
    yield from (Need.VECTORS, Need.MAPS, Need.PIXELS)
    if split.labels or split.told.examples:
        yield Need.LABELS
    if split.told.unlabelled.size:
        yield Need.UNLABELLED
    if supervision.answers:
        yield Need.PAIRS


def _labels_told(split: _Split) -> str:
    counts = sorted({rows.size for rows in split.told.examples.values()})
    return f"{counts[0]} labels a kind" if counts else ""


def _told_of(read: _Reader, required: Sequence[Need]) -> str:
    """What a method learnt from beside the bank, in words."""
    parts = [_labels_told(read.split)] if read.has_labels else []
    if Need.UNLABELLED in required:
        parts.append(f"{read.split.told.unlabelled.size:,} unlabelled")
    return ", ".join(part for part in parts if part)


def _figures(scores: NDArray[np.float32], split: _Split, calibration: NDArray[np.float32]) -> dict[str, Any]:
    made = make_calibration(calibration, RATE)
    alarms = anomalous(scores[: split.normal.size], made)
    return {
        "roc_auc": roc_auc(scores, split.is_stranger),
        "average_precision": average_precision(scores, split.is_stranger),
        "false_alarms": None if alarms is None else float(alarms.mean()),
        "promised": made.false_alarm_rate,
        "fitted": int(split.fit.size),
        "calibration": int(split.calibration.size),
        "normal": int(split.normal.size),
        "strangers": int(split.strangers.size),
    }


def _summaries(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Means over the cases of a folder for each method and what it was told, with the baselines on the same cases."""
    rows = [one for one in data["cases"] if one["method"] is not None]
    for name, told_of in dict.fromkeys((one["method"], one["told"]) for one in rows):
        yield _summary(data, name, told_of)


def _summary(data: dict[str, Any], name: str, told_of: str) -> dict[str, Any]:
    mine = [one for one in data["cases"] if one["method"] == name and one["told"] == told_of]
    done = {one["case"]: one for one in mine if "skipped" not in one}
    if not done:
        return {"folder": data["folder"], "method": name, "told": told_of, "skipped": mine[0]["skipped"]}
    same = [one for one in data["cases"] if one["case"] in done]
    plain = [one for one in same if one["method"] is None]
    supervised = [one for one in same if one["method"] == SUPERVISED]

    def mean(many: Sequence[dict[str, Any]], what: str) -> float | None:
        known = [one[what] for one in many if one[what] is not None]
        return float(np.mean(known)) if known else None

    figures = ("roc_auc", "average_precision", "false_alarms", "score_ms")
    return {
        "folder": data["folder"],
        "method": name,
        "told": told_of,
        "cases": len(done),
        **{what: mean(list(done.values()), what) for what in (*figures, "fit_s", "state_bytes", "promised")},
        "fitted": mean(list(done.values()), "fitted"),
        "plain": {what: mean(plain, what) for what in figures},
        "supervised": {what: mean(supervised, what) for what in figures} if supervised else None,
    }
