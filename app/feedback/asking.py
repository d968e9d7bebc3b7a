"""Which two images to show somebody next: those whose comparison would tell the scorer most."""

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.collection_state import CollectionState
from app.core import Core
from app.entry_columns import image_key
from app.errors import Conflict, Invalid
from app.feedback import repository
from app.fitted_shelf import LoadedFit
from app.scoring.fitted import check_runtime
from app.scoring.images import as_given
from models.catalog import installed
from models.contract import Give, Inputs, PairAsker, Question
from models.errors import BankTooSmall
from models.fitting import held_out

CANDIDATES_MAX = 512  # images among which pairs are looked for: the work is bounded, however large the collection
Pks = NDArray[np.int64]


def next_pairs(core: Core, name: str, scorer: str | None, rater: str | None, most: int) -> dict[str, Any]:
    """Pairs that were not compared yet, the most telling first; none when every candidate was compared with all.

    The same question comes until it is answered, or the scorer is fitted anew. Candidates are drawn afresh with each
    answer and for each rater, half of them images that are not normal where there are so many; those kept for
    calibration are none, for no fit learns from them. While nothing is fitted that could choose, chance does.

    Raises:
        Conflict: fewer than two images, or nothing is fitted under the name given.
        Invalid: the scorer named learns from no comparisons.
    """
    state = core.shelf.get(name)
    with core.database.read() as session:
        compared = repository.compared(session, state.id)
    fit, chosen = _fit_of(core, state, scorer)
    with state.lock.read():
        aside = _aside(state, 0 if fit is None else fit.card.needs.bank_min)
        pks = _candidates(state, aside, f"{rater} {len(compared)} {0 if fit is None else fit.id}")
        vectors = state.vectors(pks)
        image_ids = state.entries.image_ids_of(pks)
    if pks.size < 2:
        raise Conflict(
            f"`{name}` must hold at least two images that are not kept for calibration; got {pks.size}.",
            "too_few_images",
        )
    vectors = as_given(core, state, pks, vectors)
    pk_of = dict(zip(image_ids, pks.tolist(), strict=True))
    asked = [(pk_of[left], pk_of[right]) for left, right in compared if left in pk_of and right in pk_of]
    if fit is None:
        questions = _by_chance(pks, asked, most)
    else:
        assert isinstance(fit.scorer, PairAsker)
        questions = list(fit.scorer.next_pairs(Inputs(ids=pks, vectors=vectors), asked, most))
    id_of = {pk: image_id for image_id, pk in pk_of.items()}
    return {
        "scorer": chosen,
        "chosen_by": "chance" if fit is None else "disagreement",
        "fit": None if fit is None else {"revision": fit.sequence, "params": fit.parameters, "seed": fit.seed},
        "answers": {"now": len(compared), "fitted": None if fit is None else fit.answers},
        "candidates": int(pks.size),
        "pairs": [
            {
                "left": id_of[one.left],
                "right": id_of[one.right],
                "disagreement": None if fit is None else one.disagreement,
            }
            for one in questions
        ],
    }


def _fit_of(core: Core, state: CollectionState, scorer: str | None) -> tuple[LoadedFit | None, str | None]:
    """The fit that chooses and its name: that asked for, else the newest that can."""
    catalogue = installed()
    with core.database.read() as session:
        serving = repository.serving(session, state.id, state.embedding_id)
    if scorer is not None:
        methods = dict(serving)
        if scorer not in methods:
            raise Conflict(
                f"Scorer `{scorer}` is not fitted on `{state.name}` with its present embedding: "
                f"PUT /v1/collections/{state.name}/scorers/{scorer} fits one.",
                "scorer_not_fitted",
            )
        serving = [(scorer, methods[scorer])]
    for name, method in serving:
        if method in catalogue and Give.NEXT_PAIR in catalogue[method].gives.outputs:
            fit = core.fitted.serving(state.id, name)
            if fit is not None:
                check_runtime(core, state, fit, name)
                return fit, name
    if scorer is not None:
        raise Invalid(
            f"`scorer`: `{scorer}` learns from no comparisons and cannot say which to ask for; GET /v1/scorers lists "
            "those that give `next_pair`.",
            "next_pair_not_offered",
        )
    return None, None


def _aside(state: CollectionState, bank_min: int) -> Pks:
    """Images of the bank that a fit would keep for calibration."""
    place = ("kept for calibration", bank_min)
    if place not in state.cache:
        pks = state.entries.pks_of_role("normal")
        keys = np.array([image_key(one) for one in state.entries.image_ids_of(pks)], np.uint64)
        try:
            rows, _ = held_out(keys, state.entries.groups_of(pks), bank_min)
        except BankTooSmall:  # nothing can be fitted yet
            rows = np.zeros(0, np.int64)
        state.cache[place] = pks[rows]
    found: Pks = state.cache[place]
    return found


def _candidates(state: CollectionState, aside: Pks, occasion: str) -> Pks:
    """Images drawn for this occasion, ascending."""
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(occasion.encode()).digest()[:8], "big"))
    normal = state.entries.pks_of_role("normal")
    others = np.setdiff1d(state.entries.pks(), normal, assume_unique=True)
    normal = np.setdiff1d(normal, aside, assume_unique=True)
    few = max(CANDIDATES_MAX // 2, CANDIDATES_MAX - normal.size)
    others = others if others.size <= few else random.choice(others, few, replace=False)
    room = CANDIDATES_MAX - others.size
    normal = normal if normal.size <= room else random.choice(normal, room, replace=False)
    return np.sort(np.concatenate([normal, others]))


def _by_chance(pks: Pks, asked: list[tuple[int, int]], most: int) -> list[Question]:
    """Pairs in an order that the answers so far decide, no image in two of them."""
    random = np.random.default_rng(len(asked))
    known = {frozenset(one) for one in asked}
    order = random.permutation(pks).tolist()
    found: list[Question] = []
    while len(order) > 1 and len(found) < most:
        left = order.pop()
        right = next((one for one in order if frozenset((left, one)) not in known), None)
        if right is not None:
            order.remove(right)
            found.append(Question(left, right, 0.0))
    return found
