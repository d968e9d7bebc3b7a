"""`oddity bench methods`: every method on the same splits and the same embedding, beside the plain nearest neighbours.

A method is fitted, calibrated and scored by the code that the service uses for it. What is timed is the method's own
part: embedding is the same for all, and is left out; feature maps and pixels are computed when a method asks for them,
and then count.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
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
from index import Metric
from models.backbones.embedder import Embedder, EmbeddingSpec, PreparedImage
from models.catalog import Catalogue, installed
from models.contract import Inputs, Need, Reference
from models.errors import InputError, StateError
from models.fitting import calibration_rows, fit, held_out, scores_of
from models.inputs import Batches, EmbedderBackbone, LazyInputs, LazyMaps, StagesAsked
from models.judging import anomalous, make_calibration
from models.methods.dn2 import DN2Params

RATE = 0.05  # false alarms are looked at at this rate
CACHE_BYTES = 8 * 2**30  # on disk, for pixels and maps
CARDS = Path(__file__).resolve().parent.parent / "models" / "methods"
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
        BenchmarkRefused: a folder has neither layout, or a method is unknown or live.
    """
    catalogue = installed()
    names = _chosen(catalogue, plan)
    data: list[dict[str, Any]] = []
    identity: dict[str, Any] = {}
    for folder in folders:
        layout = read_layout(folder, plan.limit)
        pool, embedder = embed_files(layout.files(), embedders, spec, cache, advance)
        identity = {**embedder.identity.describe(), "weights": embedder.identity.weights.partition(":")[0]}
        measured: list[dict[str, Any]] = []
        for case in cases(layout, together=plan.together, normal=plan.normal)[: plan.cases_max]:
            with PoolImages(pool, embedders, embedder) as images:
                split = _split(layout, case, pool)
                measured.append({"method": None, "case": case.name, **_plain(pool, split)})
                for name in names:
                    say(f"{layout.name}, {case.name}: {name}")
                    found = _measured(catalogue, name, images, split, plan)
                    measured.append({"method": name, "case": case.name, **found})
        data.append({"folder": layout.name, "layout": layout.layout, "cases": measured})
    return {
        "benchmark": "methods",
        "weights": identity["weights"],
        "embedding": identity,
        "plan": asdict(plan),
        "rate": RATE,
        "data": data,
        "summary": [_summary(one, name) for one in data for name in names],
    }


def write_cards(found: dict[str, Any], sentence: str, folder: Path = CARDS) -> list[Path]:
    """The `measured.json` of each method of this repository that was measured; third parties keep their own."""
    written = []
    for name in dict.fromkeys(one["method"] for one in found["summary"]):
        rows = [_card_row(one) for one in found["summary"] if one["method"] == name and "skipped" not in one]
        if rows and (folder / name).is_dir():
            path = folder / name / "measured.json"
            path.write_text(
                json.dumps({"setting": sentence, "rows": rows}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
            )
            written.append(path)
    return written


def _chosen(catalogue: Catalogue, plan: MethodsPlan) -> list[str]:
    fitted = [name for name in catalogue if not catalogue[name].live]
    unknown = sorted(set(plan.methods) - set(fitted))
    if unknown:
        raise BenchmarkRefused(f"`method` must be among {', '.join(fitted)}; got {', '.join(unknown)}.")
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

    @property
    def test(self) -> Rows:
        return np.concatenate([self.normal, self.strangers])

    @property
    def is_stranger(self) -> NDArray[np.bool_]:
        return np.arange(self.test.size) >= self.normal.size


def _split(layout: Layout, case: Case, pool: Pool) -> _Split:
    kinds = {kind: pool.rows(layout.train.get(kind, ())) for kind in sorted(case.normal)}
    bank = np.array(list(dict.fromkeys(row for rows in kinds.values() for row in rows.tolist())), np.int64)
    keys = np.array([image_key(pool.sha256[row]) for row in bank], np.uint64)
    aside, left = held_out(keys, [])
    normal = pool.rows(file for kind in sorted(case.normal) for file in layout.test.get(kind, ()))
    strangers = pool.rows(file for kind in sorted(set(layout.test) - case.normal) for file in layout.test[kind])
    fitted = bank[left]
    return _Split(
        # Several normal classes are known apart; one alone is no label.
        labels={kind: np.intersect1d(rows, fitted) for kind, rows in kinds.items()} if len(kinds) > 1 else {},
        fit=fitted,
        calibration=bank[calibration_rows(keys, aside)],
        normal=np.setdiff1d(normal, bank),
        strangers=np.setdiff1d(strangers, np.union1d(normal, bank)),
        keys=keys[left],
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

    def batches(self, rows: Rows, asked: StagesAsked, batch: int = 64) -> Batches:
        return Batches(rows.size, lambda places: self.inputs(rows[places.start : places.stop], asked), batch)

    def inputs(self, rows: Rows, asked: StagesAsked) -> Inputs:
        return LazyInputs(
            lambda: self._pixels.get(rows, self._read),
            ids=rows.copy(),
            vectors=self._pool.vectors[rows],
            maps=LazyMaps(lambda stages: self._backbone.maps(self._pixels.get(rows, self._read), stages), asked),
            backbone=self._backbone,
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
    started = time.perf_counter()
    scores = np.concatenate([scorer.score(pool.vectors[row : row + 1], neighbours=0).score for row in split.test])
    seconds = time.perf_counter() - started
    return {**_told(scores, split, calibration), "score_ms": 1000 * seconds / split.test.size}


def _measured(catalogue: Catalogue, name: str, images: PoolImages, split: _Split, plan: MethodsPlan) -> dict[str, Any]:
    card = catalogue[name]
    missing = card.needs.missing(frozenset(_held(split)))
    if missing:
        return {"skipped": f"needs {', '.join(missing)}, which folders of images do not tell"}
    kind = catalogue.method(name)
    method = kind(kind.Params.parse(name, card.quick if plan.quick else {}))
    asked = StagesAsked()
    reference = Reference(
        bank=images.batches(split.fit, asked),
        keys=split.keys,
        labels={label: images.batches(rows, asked) for label, rows in split.labels.items()},
    )
    started = time.perf_counter()
    try:
        fitted = fit(method, reference, images.batches(split.calibration, asked, 1), seed=plan.seed)
    except (InputError, StateError) as error:
        return {"skipped": str(error)}
    ready = time.perf_counter()
    scores = np.concatenate([one.image for one in _scored(fitted.scorer, images, split.test, asked)])
    finished = time.perf_counter()
    return {
        **_told(scores, split, fitted.calibration),
        "fit_s": ready - started,
        "score_ms": 1000 * (finished - ready) / split.test.size,
        "state_bytes": len(fitted.state),
        "state_sha256": fitted.sha256,
        "params": method.params.model_dump(mode="json") if hasattr(method, "params") else {},
    }


def _scored(scorer: Any, images: PoolImages, rows: Rows, asked: StagesAsked) -> Iterator[Any]:
    for inputs in images.batches(rows, asked, 1):  # one at a time, as requests are
        yield from scores_of(scorer, inputs)


def _held(split: _Split) -> Iterator[Need]:
    yield from (Need.VECTORS, Need.MAPS, Need.PIXELS)
    if split.labels:
        yield Need.LABELS


def _told(scores: NDArray[np.float32], split: _Split, calibration: NDArray[np.float32]) -> dict[str, Any]:
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


def _summary(data: dict[str, Any], name: str) -> dict[str, Any]:
    """Means over the cases of a folder, with the nearest neighbours on the same cases beside them."""
    mine = [one for one in data["cases"] if one["method"] == name]
    done = {one["case"]: one for one in mine if "skipped" not in one}
    if not done:
        return {"folder": data["folder"], "method": name, "skipped": mine[0]["skipped"]}
    plain = [one for one in data["cases"] if one["method"] is None and one["case"] in done]

    def mean(many: Sequence[dict[str, Any]], what: str) -> float | None:
        known = [one[what] for one in many if one[what] is not None]
        return float(np.mean(known)) if known else None

    figures = ("roc_auc", "average_precision", "false_alarms", "score_ms")
    return {
        "folder": data["folder"],
        "method": name,
        "cases": len(done),
        **{what: mean(list(done.values()), what) for what in (*figures, "fit_s", "state_bytes", "promised")},
        "plain": {what: mean(plain, what) for what in figures},
    }


def _card_row(one: dict[str, Any]) -> dict[str, Any]:
    plain = one["plain"]
    return {
        "data": one["folder"],
        "cases": one["cases"],
        "ROC-AUC": _percent(one["roc_auc"]),
        "plain ROC-AUC": _percent(plain["roc_auc"]),
        "average precision": _percent(one["average_precision"]),
        "plain average precision": _percent(plain["average_precision"]),
        "false alarms at 5 %": _percent(one["false_alarms"]),
        "fit, s": f"{one['fit_s']:.2f}",
        "score, ms": f"{one['score_ms']:.2f}",
        "state, kB": f"{one['state_bytes'] / 1000:.0f}",
    }


def methods_text(found: dict[str, Any]) -> list[str]:
    """The body of a report: a table for each folder, best ROC-AUC first."""
    lines = [
        "Means over the cases, in percent; nearest neighbours (dn2, k = 2, cosine) on the same cases beside them.",
        "",
    ]
    for folder in dict.fromkeys(one["folder"] for one in found["summary"]):
        rows = [one for one in found["summary"] if one["folder"] == folder]
        done = sorted((one for one in rows if "skipped" not in one), key=lambda one: -one["roc_auc"])
        lines += [f"## {folder}", ""]
        if done:
            table = [_card_row(one) for one in done]
            head = ["method", *list(table[0])[1:]]
            lines += [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}"]
            lines += [
                f"| {' | '.join([one['method'], *(str(value) for value in list(row.values())[1:])])} |"
                for one, row in zip(done, table, strict=True)
            ]
            lines.append("")
        lines += [f"{one['method']}: {one['skipped']}" for one in rows if "skipped" in one]
        lines.append("")
    return lines


def setting_sentence(found: dict[str, Any], where: dict[str, Any]) -> str:
    """How the figures came about, for a card."""
    embedding = found["embedding"]
    untrained = " The weights are untrained: the figures compare methods on these vectors, no more." * (
        found["weights"] == "stand-in"
    )
    return (
        f"`{where['command']}`, commit {where['commit']}, {where['date'][:10]}, {where['machine']['processor']}, "
        f"{where['machine']['cores']} cores; {embedding['backbone']}, weights {found['weights']}, "
        f"{embedding['preprocessing']['image_size']} px. Percent, means over the cases; plain is dn2 with its "
        f"defaults on the same cases.{untrained}"
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"
