"""Nearest images of a collection, by image, stored id, vector or examples, under a metadata filter."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bodies import Upload
from app.combining import rows_of
from app.core import Core
from app.errors import Invalid
from app.observe import stage
from app.scoring.images import show_neighbours, vectors_of
from app.search.filters import parse_filter
from app.search.schemas import QueryParameters
from app.shelf import CollectionState
from index import Neighbours

RESULTS_MAX = 100_000  # of all queries of a request together
TOGETHER_RESULTS = 2048  # of a request, at most, that is searched together with others: a large one would hold them up


def query(core: Core, name: str, uploads: Sequence[Upload], parameters: QueryParameters) -> tuple[dict[str, Any], int]:
    """For each query the nearest images, nearest first, and the status (207 when some have a problem in their place).

    The filter is applied before the search, never after it: k images come back whenever k of them fit. A stored image
    given as `id` or as an example is not among its own results.
    """
    state = core.shelf.get(name, parameters.after)
    _exactly_one(uploads, parameters)
    _check_results(uploads, parameters)
    chosen = parse_filter(parameters.filter)
    if not chosen.is_empty and state.entries.prepare(chosen.keys):
        core.shelf.account(state)
    problems: dict[int, dict[str, Any]] = {}
    left_out: list[set[int]]
    if uploads or parameters.ids:
        found = vectors_of(core, state, uploads, parameters.ids)
        vectors, places, problems = state.dn2.prepared(found.vectors), found.places, found.problems
        left_out = [set() if entry is None else {entry.pk} for entry in found.stored]
    else:
        with state.lock.read():
            vectors, left_out = _vectors(state, parameters)
        places = list(range(len(vectors)))
    results: list[Any] = [[] for _ in range(len(places) + len(problems))]
    for place, fault in problems.items():
        results[place] = {"problem": fault}
    with state.lock.read():
        allowed = None if chosen.is_empty else chosen.fitting(state.entries)
        margin = max((len(one) for one in left_out), default=0)
        if len(vectors):
            with stage("search"):
                k, is_exact = parameters.k + margin, parameters.exact
                if allowed is None and k * len(vectors) <= TOGETHER_RESULTS:
                    work = partial(_nearest_together, state, k, is_exact)
                    nearest = state.searches.run((k, is_exact), vectors, work)
                else:
                    nearest = state.nearest(vectors, k, allowed, is_exact=is_exact)
            for row, place in enumerate(places):
                results[place] = _shown(state, nearest, row, left_out[row], parameters)
        answer = {
            "fingerprint": state.fingerprint,
            "weights": state.weights,
            "metric": state.settings.metric,
            "sequence": state.sequence,
            "exact": parameters.exact or state.is_exact,
            "results": results,
        }
    return answer, 207 if problems else 200


def _nearest_together(
    state: CollectionState, k: int, is_exact: bool, several: list[NDArray[np.float32]]
) -> list[Neighbours]:
    """The nearest of several requests' vectors, searched at once; no request changes another's answer."""
    found = state.nearest(several[0] if len(several) == 1 else np.concatenate(several), k, is_exact=is_exact)
    return [found.part(rows) for rows in rows_of(several)]


def _exactly_one(uploads: Sequence[Upload], parameters: QueryParameters) -> None:
    given = [name for name in ("id", "ids", "vector", "vectors", "positive") if getattr(parameters, name)]
    if uploads:
        given.append("files")
    if parameters.negative and not parameters.positive:
        raise Invalid("`negative` needs at least one image in `positive` beside it.", "query_ambiguous")
    if len(given) != 1:
        raise Invalid(
            "Say what to look for by exactly one of `files`, `id`, `ids`, `vector`, `vectors`, `positive` (with "
            f"`negative`); got {', '.join(given) or 'none'}.",
            "query_ambiguous",
        )


def _check_results(uploads: Sequence[Upload], parameters: QueryParameters) -> None:
    """Each result comes with its metadata, so their number bounds the memory of an answer."""
    queries = max(1, len(uploads), len(parameters.ids or ()), len(parameters.vectors or ()))
    if queries * parameters.k > RESULTS_MAX:
        raise Invalid(
            f"`k` times the number of queries must be at most {RESULTS_MAX}; got {parameters.k} times {queries}.",
            "too_many_results",
        )


def _vectors(state: CollectionState, parameters: QueryParameters) -> tuple[NDArray[np.float32], list[set[int]]]:
    """Query vectors, and for each the stored images that must not be their own answer."""
    if parameters.positive:
        positive = [state.entry(one).pk for one in parameters.positive]
        negative = [state.entry(one).pk for one in parameters.negative or ()]
        wanted = _example_vector(_directions(state, positive), _directions(state, negative))
        return state.dn2.prepared(wanted[None]), [set(positive) | set(negative)]
    if parameters.id:
        pk = state.entry(parameters.id).pk
        return state.vectors([pk]), [{pk}]
    given = parameters.vectors or [parameters.vector or []]
    for place, one in enumerate(given):
        if len(one) != state.width:
            raise Invalid(f"`vector` {place} must have {state.width} numbers; got {len(one)}.", "width_mismatch")
    vectors = np.array(given, np.float64)
    if not np.isfinite(vectors).all() or np.abs(vectors).max() > np.finfo(np.float32).max:
        raise Invalid("`vector` must hold finite float32 numbers.", "not_finite")
    return state.dn2.prepared(vectors.astype(np.float32)), [set() for _ in given]


def _directions(state: CollectionState, pks: Sequence[int]) -> NDArray[np.float32]:
    vectors = state.vectors(pks)
    if state.settings.metric == "l2":
        return vectors
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    directions: NDArray[np.float32] = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return directions


def _example_vector(positive: NDArray[np.float32], negative: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of the positives, moved away from the mean of the negatives by their difference."""
    wanted: NDArray[np.float32] = positive.mean(axis=0)
    if len(negative):
        wanted = 2 * wanted - negative.mean(axis=0)
    return wanted


def _shown(
    state: CollectionState, nearest: Neighbours, row: int, left_out: set[int], parameters: QueryParameters
) -> list[dict[str, Any]]:
    wanted = [
        place
        for place, (pk, distance) in enumerate(zip(nearest.ids[row], nearest.distances[row], strict=True))
        if pk >= 0
        and int(pk) not in left_out
        and (parameters.max_distance is None or distance <= parameters.max_distance)
    ][: parameters.k]
    kept = Neighbours(nearest.ids[row, wanted][None], nearest.distances[row, wanted][None])
    return show_neighbours(state, kept, 0)
