"""Replacing a bank by a small one, and measuring what that costs before anybody relies on it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.clock import shown
from app.collections.repository import next_sequence
from app.compressed import SET_ASIDE, compressed_scorer, parameters_of, small_bank
from app.core import Core
from app.db.tables import CollectionRow, CompressionRow
from app.errors import Conflict, NotFound
from app.jobs.context import JobContext
from app.shelf import CollectionState, image_key
from app.upkeep import repository
from app.upkeep.fresh import fresh_state
from app.upkeep.schemas import CompressParameters
from models.errors import BankTooSmall
from models.judging import VERDICT_MIN
from models.leave_one_out import CALIBRATION_ROWS
from models.methods.dn2 import LiveDN2, coreset_bank, fidelity, kmeans_bank

CALIBRATION_SHARE = 0.2  # of the bank, set aside
BANK_MIN = 2 * VERDICT_MIN  # at least as many images to choose from as are set aside
ANOMALOUS_MAX = 2000  # known defects scored for the report
_ROWS = 256  # images scored between two looks at whether the job must stop

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Choice:
    """A small bank, and which image of the whole one belongs where."""

    centres: Vectors
    shown_as: NDArray[np.int64]  # (m,)
    places: NDArray[np.int32]  # (n,) centre of each image chosen from
    radius: float


def run_compress(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: set calibration images aside, choose the small bank from the others, measure, and put it to use.

    It is put to use in the one transaction that also ends the job. Raises Conflict when the embedding changed
    meanwhile, BankTooSmall when too few images would be left on either side.
    """
    parameters = CompressParameters.model_validate(context.parameters)
    state = fresh_state(core, context)
    aside, members = set_aside(state)
    choice = _choose(state, members, parameters, context)
    report = _measure(state, aside, members, choice, context)
    pks = np.concatenate([aside, members])
    places = np.concatenate([np.full(aside.size, SET_ASIDE, np.int32), choice.places])
    context.progress(1, 1, "storing")
    with core.database.write() as session:
        now = core.clock()
        sequence = next_sequence(session, state.id, now)
        if session.get_one(CollectionRow, state.id).embedding_id != state.embedding_id:
            raise Conflict("The embedding changed while the bank was compressed; compress again.", "embedding_changed")
        result = {
            "method": parameters.method,
            "size": parameters.size,
            "seed": parameters.seed,
            "report": report,
            "sequence": sequence,
        }
        repository.set_compression(
            session,
            CompressionRow(
                collection_id=state.id,
                method=parameters.method,
                parameters={"size": parameters.size, "seed": parameters.seed, "job": context.id},
                report=report,
                embedding_id=state.embedding_id,
                sequence=sequence,
                centres=choice.centres.astype("<f4").tobytes(),
                centre_pks=choice.shown_as.astype("<i8").tobytes(),
                member_pks=pks.astype("<i8").tobytes(),
                member_marks=state.entries.marks_of(pks).astype("<u8").tobytes(),
                member_places=places.astype("<i4").tobytes(),
                created_at=now,
            ),
        )
        session.flush()
        context.conclude(session, result)
    core.shelf.get(state.name)
    return result


def check_compressible(core: Core, name: str) -> None:
    """Raise at once what the job would find out: NotFound, or BankTooSmall."""
    state = core.shelf.get(name)
    with state.lock.read():
        set_aside(state)


def show_compression(core: Core, name: str) -> dict[str, Any]:
    """The small bank: how it was made, what it cost in accuracy, and what has come and gone since."""
    state = core.shelf.get(name)
    with core.database.read() as session:
        row = repository.compression(session, state.id)
    with state.lock.read():
        scorer = compressed_scorer(state)
        if row is None or scorer is None:
            raise _not_compressed(name)
        return {
            "method": row.method,
            **row.parameters,
            "report": row.report,
            "compressed_at": shown(row.created_at),
            "now": scorer.facts,
        }


def drop_compression(core: Core, name: str) -> None:
    """Go back to the whole bank. Raises NotFound when the collection is not compressed."""
    state = core.shelf.get(name)
    with core.database.write() as session:
        next_sequence(session, state.id, core.clock())
        if not repository.drop_compression(session, state.id):
            raise _not_compressed(name)
    core.shelf.follow(state)


def set_aside(state: CollectionState) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bank images kept for calibration, and those the small bank may be chosen from; both ascending.

    A fifth of the bank, at least 10 and at most 2,000 images, chosen by hash of the id alone, and whole groups at a
    time, so that no image is judged by near-duplicates of itself. Raises BankTooSmall.
    """
    pks = state.dn2.bank.ids()
    target = min(max(math.floor(CALIBRATION_SHARE * pks.size), VERDICT_MIN), CALIBRATION_ROWS)
    most = min(CALIBRATION_ROWS, pks.size // 2)
    units: dict[tuple[int, str], list[int]] = {}
    names = zip(state.entries.groups_of(pks), state.entries.image_ids_of(pks), strict=True)
    for pk, (group, image_id) in zip(pks.tolist(), names, strict=True):
        # A group and an image may bear the same name: the prefix keeps them apart.
        name = f"group {group}" if group is not None else f"image {image_id}"
        units.setdefault((image_key(name), name), []).append(pk)
    aside: list[int] = []
    for unit in sorted(units):
        if len(aside) < target and len(aside) + len(units[unit]) <= most:
            aside.extend(units[unit])
    if pks.size < BANK_MIN or len(aside) < VERDICT_MIN:
        raise BankTooSmall(
            f"The bank must hold at least {BANK_MIN} normal images, of which {VERDICT_MIN} (whole groups, at most half "
            f"of the bank) can be set aside for calibration; got {pks.size} images in {len(units)} groups."
        )
    chosen = np.sort(np.array(aside, np.int64))
    return chosen, np.setdiff1d(pks, chosen, assume_unique=True)


def _choose(
    state: CollectionState, members: NDArray[np.int64], parameters: CompressParameters, context: JobContext
) -> _Choice:
    vectors = state.dn2.bank.vectors(members)
    metric = parameters_of(state).metric
    context.progress(0, None, "choosing")
    if parameters.method == "coreset":
        made = coreset_bank(
            members,
            vectors,
            parameters.size,
            metric=metric,
            seed=parameters.seed,
            progress=lambda done, total: context.progress(done, total, "choosing"),
        )
        places, _ = _nearest_rows(state, made.vectors, vectors, context)
        return _Choice(made.vectors, made.ids, places, made.radius)
    made = kmeans_bank(members, vectors, parameters.size, metric=metric, seed=parameters.seed)
    if made.ids.size == members.size:  # as many centres as images: each image is its own, duplicates too
        return _Choice(made.vectors, made.ids, np.arange(members.size, dtype=np.int32), made.radius)
    places, distances = _nearest_rows(state, made.vectors, vectors, context)
    nearest_first = np.lexsort((members, distances, places))
    standing, first = np.unique(places[nearest_first], return_index=True)
    renumbered = np.searchsorted(standing, places).astype(np.int32)  # centres that nobody is nearest to are dropped
    return _Choice(made.vectors[standing], members[nearest_first[first]], renumbered, made.radius)


def _nearest_rows(
    state: CollectionState, centres: Vectors, vectors: Vectors, context: JobContext
) -> tuple[NDArray[np.int32], Vectors]:
    """Number of the centre nearest to each image, and its distance."""
    bank = small_bank(parameters_of(state), state.width, np.arange(len(centres), dtype=np.int64), centres)
    places = np.empty(len(vectors), np.int32)
    distances = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _ROWS):
        context.progress(start, len(vectors), "assigning")
        rows = slice(start, start + _ROWS)
        found = bank.score(vectors[rows], k=1, neighbours=1).neighbours
        places[rows], distances[rows] = found.ids[:, 0], found.distances[:, 0]
    return places, distances


def _measure(
    state: CollectionState,
    aside: NDArray[np.int64],
    members: NDArray[np.int64],
    choice: _Choice,
    context: JobContext,
) -> dict[str, Any]:
    """The small bank against the whole one, on images that neither holds."""
    params, bank = parameters_of(state), state.dn2.bank
    score_whole = _plain(small_bank(params, state.width, members, bank.vectors(members)), context)
    score_small = _plain(small_bank(params, state.width, choice.shown_as, choice.centres), context)
    normal = bank.vectors(aside)
    on_normal = fidelity(score_whole, score_small, normal)
    known = state.dn2.anomalous.ids()[:ANOMALOUS_MAX]
    report: dict[str, Any] = {
        "rows": int(choice.shown_as.size),
        "images": int(members.size),
        "calibration_images": int(aside.size),
        "largest_distance_to_a_row": choice.radius,
        "bytes": int(choice.centres.nbytes),
        "bytes_whole": int(members.size * state.width * choice.centres.itemsize),
        "k": params.k,
        "spearman": _finite(on_normal.spearman),
        "mean_score_ratio": _finite(on_normal.mean_ratio),
        "anomalous_images": int(known.size),
        "roc_auc_whole": None,
        "roc_auc_compressed": None,
    }
    if known.size:
        probes = np.concatenate([normal, state.dn2.anomalous.vectors(known)])
        is_anomalous = np.arange(len(probes)) >= len(normal)
        both = fidelity(score_whole, score_small, probes, anomalous=is_anomalous)
        report.update(roc_auc_whole=both.auc_whole, roc_auc_compressed=both.auc_compressed)
    return report


def _plain(bank: LiveDN2, context: JobContext) -> Callable[[Vectors], Vectors]:
    """Scores against a bank without what was taught: the defects themselves are asked about."""

    def score(vectors: Vectors) -> Vectors:
        scores = np.empty(len(vectors), np.float32)
        for start in range(0, len(vectors), _ROWS):
            context.progress(start, len(vectors), "measuring")
            rows = slice(start, start + _ROWS)
            scores[rows] = bank.score(vectors[rows], neighbours=0).plain
        return scores

    return score


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _not_compressed(name: str) -> NotFound:
    return NotFound(
        f"Collection `{name}` is not compressed; POST /v1/collections/{name}/compress does it.", "not_compressed"
    )
