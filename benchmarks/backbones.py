"""`oddity bench backbones`: the same images through several networks, and what their vectors are worth.

Folders may be laid out as for `oddity bench accuracy` (train and test), or hold one folder for each class; then half of
each class, by the hash of the bytes, is its bank. Where masks lie beside images, half of the flawless ones is the bank
and the others are asked about with the defective ones. Every figure is made by the code that the service answers with,
and a network differs from another in nothing but the vectors.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.embedders import Embedders
from benchmarks.embedding import CHUNK_FILES, Advance, Pool, VectorCache, embed_files, pool_of
from benchmarks.errors import BenchmarkRefused, TooFewSets
from benchmarks.few_shot import FewShotPlan, class_files, measure_episodes
from benchmarks.folders import GOOD, Layout, read_layout
from benchmarks.masked_folders import has_masks, read_kinds
from benchmarks.protocols import Rows, measure_images, measure_sets
from benchmarks.report import percent, table
from index import Metric
from models.backbones.cards import backbone_cards
from models.backbones.embedder import EmbeddingSpec
from models.errors import BankTooSmall, ImageTooLarge, ImageUnreadable
from models.images import ImageLimits, decode_raster
from models.methods.dn2 import DN2Params
from models.preprocessing import Preprocessing
from models.pretraining.teacher import OpenVinoTeacher
from models.similarity.retrieval import figures

DN2_COSINE = DN2Params(metric=Metric.COSINE)


@dataclass(frozen=True, slots=True)
class BackbonesPlan:
    """What is measured of every network on every folder."""

    bank: int | None = None
    """Normal images of each class, the first ones by hash; None: all."""
    limit: int | None = None
    """Files of each kind; None: all."""
    episodes: int = 600
    queries: int = 15
    ways: int = 5
    set_size: int = 10
    set_strangers: float = 0.2
    seed: int = 0


class Vectors(Protocol):
    """A network as far as it is measured here."""

    name: str
    facts: Mapping[str, Any]

    def pool(self, files: Sequence[Path], advance: Advance) -> Pool:
        """Vectors of the files."""
        ...


class ServedVectors:
    """A network as the service loads it."""

    def __init__(self, embedders: Embedders, spec: EmbeddingSpec, cache: Path) -> None:
        self._embedders, self._spec, self._cache = embedders, spec, cache
        identity = embedders.get(spec).embedder.identity
        side = identity.preprocessing.image_size
        label = Path(spec.weights).stem if spec.weights.startswith("file:") else spec.weights
        self.name = f"{identity.backbone}, {label}, {side} px"
        if identity.pooling != "mean":
            self.name += f", {identity.pooling}"
        self.facts: Mapping[str, Any] = {
            "backbone": identity.backbone,
            "fingerprint": identity.fingerprint,
            "image_size": side,
            "pooling": identity.pooling,
            "teachers": _teachers(spec),
        }

    def pool(self, files: Sequence[Path], advance: Advance) -> Pool:
        """Vectors of the files, by the service's own path."""
        return embed_files(files, self._embedders, self._spec, self._cache, advance)[0]


class TeacherVectors:
    """Pooled features of a classifier that a backbone has learnt from, on squares cut as the service cuts them."""

    def __init__(self, path: Path, image_size: int, cache: Path, threads: int) -> None:
        self._network = OpenVinoTeacher(path, image_size=image_size, batch=CHUNK_FILES, threads=threads)
        self._preprocessing = Preprocessing(image_size=image_size)
        self._cache = cache
        self.name = f"{path.stem}, {image_size} px"
        self.facts: Mapping[str, Any] = {"teacher": path.name, "sha256": self._network.sha256, "image_size": image_size}

    def pool(self, files: Sequence[Path], advance: Advance) -> Pool:
        """Vectors of the files; what cannot be decoded is refused."""
        side = self._preprocessing.image_size
        width = self._network.ask(np.zeros((1, side, side, 3), np.uint8))[0].shape[1]
        kept = VectorCache(self._cache, f"{self._network.sha256[:32]}-{side}", width)
        return pool_of(files, kept, self._vectors, advance)

    def _vectors(self, images: list[bytes]) -> list[NDArray[np.float32] | str]:
        squares: list[NDArray[np.uint8] | str] = []
        for data in images:
            try:
                squares.append(self._preprocessing.square(decode_raster(data, ImageLimits()).image))
            except (ImageTooLarge, ImageUnreadable) as error:
                squares.append(str(error))
        good = [square for square in squares if not isinstance(square, str)]
        features = iter(self._network.ask(np.stack(good))[0] if good else ())
        return [square if isinstance(square, str) else next(features) for square in squares]


def read_folder(folder: Path, limit: int | None) -> Layout:
    """The files of a folder; without `train`, half of each class of `test` is to be its bank.

    Where masks lie beside images, those say which images are defective.

    Raises:
        BenchmarkRefused: the folder has no layout that is known.
    """
    if (folder / "train").is_dir():
        return read_layout(folder, limit)
    if has_masks(folder):
        return read_kinds(folder, limit)
    return Layout(
        folder.name, "classes", {}, {kind: tuple(files) for kind, files in class_files(folder, limit).items()}
    )


def measure_backbones(
    folders: Sequence[Path],
    networks: Sequence[Vectors],
    plan: BackbonesPlan,
    *,
    advance: Advance = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Every figure of every network on every folder.

    Raises:
        BenchmarkRefused: a folder has no layout that is known.
    """
    rows = []
    for folder in [read_folder(one, plan.limit) for one in folders]:
        for network in networks:
            say(f"{folder.name}: {network.name}")
            pool = network.pool(folder.files(), advance)
            rows.append({"data": folder.name, "network": network.name, **_measured(folder, pool, plan)})
    return {
        "benchmark": "backbones",
        "plan": asdict(plan),
        "networks": [{"name": one.name, **one.facts} for one in networks],
        "rows": rows,
    }


def backbones_text(found: dict[str, Any]) -> list[str]:
    """The body of the report."""
    plan = found["plan"]
    sets_of = f"sets of {plan['set_size']}"
    head = ["data", "network", "ROC-AUC", sets_of, f"{sets_of}, excess", "1-shot", "5-shot", "P@1", "MAP@R"]
    rows = []
    for one in found["rows"]:
        shots = [
            "" if value is None else f"{100 * value['mean']:.2f} ± {100 * value['half_width']:.2f}"
            for value in (one["one_shot"], one["five_shot"])
        ]
        retrieval = one["retrieval"] or {}
        rows.append(
            [
                one["data"],
                one["network"],
                percent(one["roc_auc"]),
                percent(one["sets_roc_auc"]),
                percent(one["sets_by_images_roc_auc"]),
                *shots,
                *(percent(retrieval.get(name)) for name in ("precision_at_1", "map_at_r")),
            ]
        )
    return [
        "All figures are percent. ROC-AUC: `dn2`, k = 2, cosine, one class normal and all others strange, mean over "
        f"the classes; the same of sets of {plan['set_size']} of which {plan['set_strangers']:.0%} are strange (by the "
        "mean of their vectors, and by the excess of their images' scores). Shots: "
        f"{plan['ways']} ways, {plan['episodes']} episodes, {plan['queries']} queries a class, "
        "with the half width of the 95 % interval. P@1 and MAP@R: each image among all others, by cosine.",
        "",
        *table(head, rows),
        *(
            f"`{one['name']}` has learnt from {', '.join(one['teachers'])}: its teacher saw these classes, where they "
            "are among those."
            for one in found["networks"]
            if one.get("teachers")
        ),
    ]


def _teachers(spec: EmbeddingSpec) -> list[str]:
    """What the weights that ship have learnt from, with its terms, as their card says; of others nothing is known."""
    if spec.weights != "embedded":
        return []
    card = next(one["embedded"] for one in backbone_cards(Path()) if one["id"] == spec.backbone)
    return [f"{one['name']} ({one['terms']})" for one in card["teachers"]]


def roc_auc_of(folder: Layout, pool: Pool, bank: int | None = None) -> float:
    """Area under the ROC curve of `dn2`, one kind normal and all others strange, mean over the kinds with a bank."""
    return float(np.mean([measure_images(pool, *one, DN2_COSINE, ())["roc_auc"] for one in _cases(folder, pool, bank)]))


def _cases(folder: Layout, pool: Pool, bank: int | None) -> list[tuple[Rows, Rows, Rows]]:
    """Bank, normal and strange test images of each kind that has a bank."""
    tested = {kind: pool.rows(files) for kind, files in folder.test.items()}
    banks = {kind: _by_hash(pool, pool.rows(files)) for kind, files in folder.train.items()}
    if not banks:
        halves = {kind: _by_hash(pool, rows) for kind, rows in tested.items()}
        banks = {kind: rows[: rows.size // 2] for kind, rows in halves.items()}
        tested = {kind: rows[rows.size // 2 :] for kind, rows in halves.items()}
    return [
        (
            rows[:bank],
            tested[kind],
            np.setdiff1d(np.concatenate([others for name, others in tested.items() if name != kind]), tested[kind]),
        )
        for kind, rows in banks.items()
    ]


def _measured(folder: Layout, pool: Pool, plan: BackbonesPlan) -> dict[str, Any]:
    cases = _cases(folder, pool, plan.bank)
    found = {
        "images": len(pool.sha256),
        "refused": len(pool.refused),
        "banks": [bank.size for bank, _, _ in cases],
        "roc_auc": roc_auc_of(folder, pool, plan.bank),
        "sets_roc_auc": _sets(pool, cases, plan, "mean"),
        "sets_by_images_roc_auc": _sets(pool, cases, plan, "excess"),
    }
    if GOOD in folder.test:  # defects are no classes to learn
        return {**found, "one_shot": None, "five_shot": None, "retrieval": None}
    kinds = {kind: pool.rows(files) for kind, files in folder.test.items()}
    shots = [_shots(pool, kinds, number, plan) for number in (1, 5)]
    return {**found, "one_shot": shots[0], "five_shot": shots[1], "retrieval": _retrieval(pool, kinds)}


def _by_hash(pool: Pool, rows: Rows) -> Rows:
    return np.array(sorted(rows.tolist(), key=lambda row: pool.sha256[row]), np.int64)


def _sets(pool: Pool, cases: Sequence[tuple[Rows, Rows, Rows]], plan: BackbonesPlan, pooling: str) -> float | None:
    """The mean over the cases that have images enough."""
    random = np.random.default_rng(plan.seed)
    share, size = plan.set_strangers, plan.set_size
    known = []
    for bank, normal, strangers in cases:
        with suppress(TooFewSets, BankTooSmall):
            found = measure_sets(
                pool, bank, normal, strangers, DN2_COSINE, (), size=size, fraction=share, pooling=pooling, random=random
            )
            known.append(found["roc_auc"])
    return float(np.mean(known)) if known else None


def _shots(pool: Pool, kinds: Mapping[str, Rows], shots: int, plan: BackbonesPlan) -> Any:
    asked = FewShotPlan(ways=plan.ways, queries=plan.queries, episodes=plan.episodes, rates=(), seed=plan.seed)
    try:
        return measure_episodes(pool.vectors, kinds, shots, asked)["accuracy"]
    except BenchmarkRefused:  # too few classes, or too small ones
        return None


def _retrieval(pool: Pool, kinds: Mapping[str, Rows]) -> dict[str, float]:
    rows = np.concatenate(list(kinds.values()))
    labels = np.repeat(np.arange(len(kinds)), [one.size for one in kinds.values()])
    return asdict(figures(pool.vectors[rows], labels))
