"""Nearest images of a collection, by image, stored id, vector or examples, under a metadata filter."""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.ahead import Ahead
from app.bodies import Upload
from app.core import Core
from app.errors import Invalid, ServiceError
from app.observe import stage
from app.scoring.images import joined, show_neighbours, vectors_of
from app.search.filters import parse_filter
from app.search.schemas import QueryParameters
from app.shelf import CollectionState
from index import Neighbours

RESULTS_MAX = 100_000  # of all queries of a request together
TOGETHER_RESULTS = 128  # of a request, at most, that is searched together with others: a large one would hold them up


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
                nearest = state.nearest(vectors, parameters.k + margin, allowed, is_exact=parameters.exact)
            for row, place in enumerate(places):
                results[place] = _shown(state, nearest, row, left_out[row], parameters)
        answer = _answer(state, parameters, results)
    return answer, 207 if problems else 200


def together_key(uploads: Sequence[Upload], parameters: QueryParameters) -> Hashable | None:
    """What requests that can be answered by one search have in common; None for one that is answered alone.

    These are of one query each, without a filter, and look for as many: in an approximate search that alone is enough
    to change what is found.
    """
    queries = (*uploads, *filter(None, (parameters.id, parameters.vector, parameters.positive)))
    is_alone = parameters.ids or parameters.vectors or parameters.filter is not None or parameters.after is not None
    if len(queries) != 1 or is_alone or (parameters.negative and not parameters.positive):
        return None
    k = _searched(parameters)
    return None if k > TOGETHER_RESULTS else (k, parameters.exact, bool(uploads))


def query_together(
    core: Core, name: str, several: list[tuple[QueryParameters, Ahead | None]]
) -> list[tuple[dict[str, Any], int] | ServiceError | None]:
    """What `query` answers to each of several requests with one `together_key`, or the error that it raises.

    None where the collection needs another network by now for an image that was sent.
    """
    state = core.shelf.get(name)
    sent = [image for _, image in several if image is not None]
    images = joined(core, state, sent) if sent else None
    if sent and images is None:
        return [None] * len(several)
    answers: list[tuple[dict[str, Any], int] | ServiceError | None] = [None] * len(several)
    with state.lock.read():
        rows: list[tuple[int, set[int]]] = []  # for each vector, the request that it belongs to, and what to leave out
        vectors: list[NDArray[np.float32]] = []
        if images is not None:
            vectors.append(state.dn2.prepared(images.vectors))
            rows += [(place, set()) for place in images.places]
            for place, fault in images.problems.items():
                answers[place] = _answer(state, several[place][0], [{"problem": fault}]), 207
        else:
            for place, (parameters, _) in enumerate(several):
                try:
                    found, left_out = _vectors(state, parameters)
                except ServiceError as error:
                    answers[place] = error
                    continue
                vectors.append(found)
                rows += [(place, one) for one in left_out]
        if rows:
            first = several[0][0]
            with stage("search"):
                nearest = state.nearest(np.concatenate(vectors), _searched(first), is_exact=first.exact)
            for row, (place, own) in enumerate(rows):
                parameters = several[place][0]
                answers[place] = _answer(state, parameters, [_shown(state, nearest, row, own, parameters)]), 200
    return answers


def _searched(parameters: QueryParameters) -> int:
    """How many images one query without ids has to find, so that enough remain without those it was made from."""
    return parameters.k + len({*(parameters.positive or ()), *(parameters.negative or ())} | {parameters.id} - {None})


def _answer(state: CollectionState, parameters: QueryParameters, results: list[Any]) -> dict[str, Any]:
    return {
        "fingerprint": state.fingerprint,
        "weights": state.weights,
        "metric": state.settings.metric,
        "sequence": state.sequence,
        "exact": parameters.exact or state.is_exact,
        "results": results,
    }


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
