"""Finding images that are there more than once, at levels that are never mixed.

`exact_bytes`: the same file. `exact_pixels`: other bytes, the same pixels. `near`: other pixels, but close in the
embedding and in the perceptual hash, as copies are that were packed again or resized. `similar`: close in the embedding
only. An image stands for its exact copies at the later levels, and a pair is told at the strictest level that fits.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from app.core import Core
from app.db.tables import DuplicateRow
from app.duplicates import repository
from app.duplicates.schemas import DuplicatesParameters
from app.duplicates.searching import Hashes, Member, Pairs, close_pairs, copy_distance, hash_pixels, sets_of
from app.errors import NotFound
from app.idempotency import Request
from app.jobs.context import JobContext, LeaseLost
from app.jobs.runner import Handler
from app.jobs.service import submit
from app.shelf import CollectionState

MEMBERS_MAX = 1_000_000  # noted for one job
LISTED_MAX = 100  # members named in the job itself
_BATCH = 1000


def submit_duplicates(
    core: Core, name: str, parameters: DuplicatesParameters, keyed: Request | None
) -> tuple[dict[str, Any], bool]:
    """The queued job. Raises NotFound."""
    return submit(core, "duplicates", name, parameters.model_dump(mode="json", exclude_unset=True), keyed)


def run_duplicates(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: sets of each level asked for. The collection may change meanwhile; what is told was true when seen."""
    parameters = DuplicatesParameters.model_validate(context.parameters)
    assert context.collection is not None and context.collection_id is not None
    state = core.shelf.get(context.collection)
    if state.id != context.collection_id:
        raise LeaseLost
    notes = _Notes(core, context)
    result: dict[str, Any] = {"sequence": state.sequence}
    unreadable: set[str] = set()
    if set(parameters.levels) != {"exact_bytes"}:  # at each later level an image stands for others with its pixels
        unreadable |= hash_pixels(core, state, parameters.role, context)
    for level, find in (("exact_bytes", repository.same_bytes), ("exact_pixels", repository.same_pixels)):
        if level in parameters.levels:
            context.progress(0, None, level)
            with core.database.read() as session:
                for _, members in itertools.groupby(find(session, state.id, parameters.role), key=lambda one: one[0]):
                    notes.add_exact(level, [(image_id, copies) for _, image_id, copies in members])
    if {"near", "similar"} & set(parameters.levels):
        result.update(_search(core, context, state, parameters, notes, unreadable))
    result["unreadable"] = len(unreadable)
    with core.database.write() as session:
        notes.flush(session)
        result["levels"] = {level: notes.counts.get(level, {"groups": 0, "images": 0}) for level in parameters.levels}
        result["all_noted"] = notes.noted < MEMBERS_MAX
        result["groups"] = _grouped(repository.page(session, context.id, None, 0, LISTED_MAX))
        result["path"] = f"/v1/collections/{context.collection}/duplicates/{context.id}"
        context.conclude(session, result)
    return result


def show_duplicates(core: Core, name: str, job_id: str, level: str | None, after: int, limit: int) -> dict[str, Any]:
    """A page of what a job found, counted in images; a set that a page cuts goes on in the next. Raises NotFound."""
    state = core.shelf.get(name)
    with core.database.read() as session:
        job = repository.job(session, state.id, job_id)
        if job is None:
            raise NotFound(f"No job `{job_id}` looked for duplicates in `{name}`.", "duplicates_unknown")
        rows = repository.page(session, job_id, level, after, limit + 1)
    following = str(rows[limit - 1].id) if len(rows) > limit else None
    groups = _grouped(rows[:limit])
    with state.lock.read():
        for one in itertools.chain.from_iterable(group["images"] for group in groups):
            pk = state.entries.find(one["id"])
            one["metadata"] = None if pk is None else state.entries[pk].metadata  # deleted since
    return {"job": job_id, "state": job.state, "groups": groups, "next": following}


def _search(
    core: Core,
    context: JobContext,
    state: CollectionState,
    parameters: DuplicatesParameters,
    notes: "_Notes",
    unreadable: set[str],
) -> dict[str, Any]:
    """What is told beside the sets; bytes that cannot be read are added to `unreadable`."""
    with core.database.read() as session:
        pictures = repository.distinct_pictures(session, state.id, parameters.role)
    pks = np.fromiter(pictures, np.int64, len(pictures))
    wants_near, wants_similar = "near" in parameters.levels, "similar" in parameters.levels
    near_bound, similar_bound = parameters.near_distance, parameters.similar_distance
    if near_bound is None and pks.size > 1:  # also for similar pairs alone: near ones are not among them
        near_bound = copy_distance(core, state, list(pictures), context)
    near_bound = near_bound or 0.0
    similar_bound = 2 * near_bound if similar_bound is None else similar_bound
    bound = max(near_bound, similar_bound) if wants_similar else near_bound
    pairs, crowded = close_pairs(state, pks, bound, context)
    hashes = Hashes(core, state, pks)
    # Also where only similar ones are asked for: a near pair is not told as a similar one.
    bits = np.full(pairs.first.size, 65, np.int64)
    close = pairs.distances <= near_bound
    bits[close] = hashes.distances(pairs.chosen(close), context)
    unreadable |= hashes.unreadable
    is_near = bits <= parameters.near_hash_bits
    with state.lock.read():
        left = pks[state.entries.known(pks)]
        names = dict(zip(left.tolist(), state.entries.image_ids_of(left), strict=True))
    if wants_near:
        notes.add_sets("near", pairs.chosen(is_near), bits[is_near], pks, names, pictures)
    if wants_similar:
        which = ~is_near & (pairs.distances <= similar_bound)
        notes.add_sets("similar", pairs.chosen(which), None, pks, names, pictures)
    return {
        "compared": int(pks.size),
        "near_distance": near_bound,
        "near_distance_from": "copies" if parameters.near_distance is None else "request",
        "near_hash_bits": parameters.near_hash_bits,
        "similar_distance": similar_bound if wants_similar else None,
        "crowded": crowded,
    }


class _Notes:
    """Members of sets on their way into the record, in batches."""

    def __init__(self, core: Core, context: JobContext) -> None:
        self._core = core
        self._context = context
        self._rows: list[dict[str, Any]] = []
        self.counts: dict[str, dict[str, int]] = {}
        self.noted = 0
        with core.database.write() as session:
            repository.clear(session, context.id)

    def add_exact(self, level: str, members: Sequence[tuple[str, int]]) -> None:
        """A set whose members do not differ."""
        facts = ({"image_id": image_id, "copies": copies, "distance": 0.0} for image_id, copies in members)
        self._add(level, len(members), facts)

    def add_sets(
        self,
        level: str,
        pairs: Pairs,
        bits: NDArray[np.int64] | None,
        pks: NDArray[np.int64],
        names: Mapping[int, str],
        copies: Mapping[int, int],
    ) -> None:
        """The sets that pairs connect."""

        def facts(members: Iterable[Member]) -> Iterator[dict[str, Any]]:
            for one in members:
                yield {
                    "image_id": names[int(pks[one.place])],
                    "copies": copies[int(pks[one.place])],
                    "nearest_id": names.get(int(pks[one.nearest])),
                    "distance": float(pairs.distances[one.pair]),
                    "hash_distance": None if bits is None else int(bits[one.pair]),
                }

        for members in sets_of(pairs, pks.size):
            self._add(level, len(members), facts(one for one in members if int(pks[one.place]) in names))

    def flush(self, session: Session) -> None:
        """Write what is waiting."""
        repository.add(session, self._context.id, self._rows)
        self._rows = []

    def _add(self, level: str, size: int, facts: Iterable[dict[str, Any]]) -> None:
        counts = self.counts.setdefault(level, {"groups": 0, "images": 0})
        counts["groups"] += 1
        counts["images"] += size
        absent = {"nearest_id": None, "distance": None, "hash_distance": None}
        for one in facts:
            if self.noted == MEMBERS_MAX:
                return
            self._rows.append({"level": level, "number": counts["groups"], "size": size, **absent, **one})
            self.noted += 1
        if len(self._rows) >= _BATCH:
            self._context.check()
            with self._core.database.write() as session:
                self.flush(session)


def _grouped(rows: Sequence[DuplicateRow]) -> list[dict[str, Any]]:
    groups = []
    for (level, number, size), members in itertools.groupby(rows, key=lambda one: (one.level, one.number, one.size)):
        shown = [
            {
                "id": one.image_id,
                "nearest": one.nearest_id,
                "distance": one.distance,
                "hash_distance": one.hash_distance,
                "copies": one.copies,
            }
            for one in members
        ]
        groups.append({"level": level, "group": number, "size": size, "images": shown})
    return groups


HANDLERS: Mapping[str, Handler] = {"duplicates": run_duplicates}
