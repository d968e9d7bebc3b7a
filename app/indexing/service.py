"""Structures for large collections, and files to start from: built by a job, taken over by every process.

A job reads a state of its own (the newest file and what the record holds beyond it), builds the structures that suit
its size, computes the calibration with them and writes all of it into a file. Processes that serve the collection then
load that file beside the state they serve from and change over; no search waits for any of this.
"""

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from app.collection_state import CollectionState
from app.core import Core
from app.db.tables import IndexFileRow
from app.errors import NotFound
from app.idempotency import Request
from app.indexing import repository
from app.jobs.context import JobContext
from app.jobs.runner import Handler
from app.jobs.service import submit
from app.memory import memory_for_collections
from app.upkeep.fresh import fresh_state
from index.threads import threads as search_threads

log = logging.getLogger("oddity.indexing")
CHANGES_SHARE = 0.25  # of the images; so many changes are quicker read from a new file than replayed
KINDS = ("index", "compact")
DAMAGED_SHOWN = 1000


def submit_compact(core: Core, name: str, request: Request | None) -> tuple[dict[str, Any], bool]:
    """The queued job. Raises NotFound."""
    return submit(core, "compact", name, {}, request)


def submit_due(core: Core, seen: dict[int, int]) -> list[str]:
    """Queue a job for each collection that has changed much since its newest file here; the names of those.

    `seen` is the caller's to keep: it remembers up to which sequence collections were looked at, so that those that
    stand still cost one query together.
    """
    names = []
    with core.database.read() as session:
        now = repository.sequences(session)
        moved = [number for number, sequence in now.items() if seen.get(number) != sequence]
        for number in moved:
            here = repository.standing(session, number, core.index_files.digests(number))
            is_wanted = here is not None and is_due(here, core.settings.index_min_images)
            if here is not None and is_wanted and not repository.is_waiting(session, number, KINDS):
                names.append(here.name)
    core.index_files.prune_collections(set(now))
    seen.clear()
    seen.update(now)
    queued = []
    for name in names:
        with contextlib.suppress(NotFound):  # it has gone since
            submit(core, "index", name, {})
            queued.append(name)
    return queued


def is_due(here: repository.Standing, images_min: int) -> bool:
    """Whether a new file is worth its while, or an old one, far from what is left, is to go."""
    if here.images < images_min:
        return here.has_file and here.changes > images_min
    return not here.has_file or here.changes > CHANGES_SHARE * here.images


def run_index(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: structures that suit the collection's size, and a file to start from."""
    return _renew(core, context, is_compacting=False)


def run_compact(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: what is dead is dropped, unused room given back, and a new file written where one is worth it."""
    return _renew(core, context, is_compacting=True)


HANDLERS: Mapping[str, Handler] = {"index": run_index, "compact": run_compact}


def show_index(core: Core, name: str) -> dict[str, Any]:
    """What answers a collection's searches here, what it takes, and the file it would start from."""
    state = core.shelf.get(name)
    with state.lock.read():
        parts = {part: index.describe() for part, index in state.indexes().items()}
        answer = {
            "sequence": state.sequence,
            "exact": state.is_exact,
            "parts": parts,
            "bytes": state.memory_bytes(),
            "damaged": sorted(state.damaged.values())[:DAMAGED_SHOWN],
        }
    with core.database.read() as session:
        files = repository.newest(session, state.id, state.embedding_id)
        here = next((row for row in files if core.index_files.path(state.id, row.digest).exists()), None)
        return {**answer, "file": None if here is None else _shown(here)}


def _shown(row: IndexFileRow) -> dict[str, Any]:
    return {"sequence": row.sequence, "bytes": row.size_bytes, "sha256": row.digest}


def _renew(core: Core, context: JobContext, *, is_compacting: bool) -> dict[str, Any]:
    context.progress(0, None, "reading")
    state = fresh_state(core, context)
    before = {part: index.describe() for part, index in state.indexes().items()}
    built = _build(core, context, state, is_compacting)
    if is_compacting:
        for index in state.indexes().values():
            index.compact()
    context.progress(0, None, "calibrating")
    state.dn2.calibration()
    context.check()
    after = {part: index.describe() for part, index in state.indexes().items()}
    result: dict[str, Any] = {
        "sequence": state.sequence,
        "alive": sum(one["alive"] for one in after.values()),
        "dead": sum(one["dead"] for one in after.values()),
        "dead_before": sum(one["dead"] for one in before.values()),
        "parts": after,
        "built": built,
        "file": None,
    }
    if len(state.entries) < core.settings.index_min_images:
        # Processes read the record afresh: what they kept beyond it goes.
        with core.database.write() as session:
            repository.drop(session, state.id)
            repository.renew(session, state.id)
            context.conclude(session, result)
        core.index_files.prune(state.id, [])
        return result
    context.progress(0, None, "writing")
    written = core.index_files.write(state)
    context.check()
    result["file"] = {"sequence": state.sequence, "bytes": written.size_bytes, "sha256": written.digest}
    with core.database.write() as session:
        kept = repository.vouch(
            session,
            collection_id=state.id,
            embedding_id=state.embedding_id,
            sequence=state.sequence,
            digest=written.digest,
            size=written.size_bytes,
            now=core.clock(),
        )
        context.conclude(session, result)
    core.index_files.prune(state.id, kept)
    return result


def _build(core: Core, context: JobContext, state: CollectionState, is_compacting: bool) -> dict[str, Any]:
    """Build and adopt what is due in each index of a state that is the job's own; what that was."""
    built: dict[str, Any] = {}
    room = memory_for_collections(core.settings)  # of a server: that is who will search
    is_other = False
    for part, index in state.indexes().items():
        # A structure that is refused is not proposed again: the next best one is.
        while (plan := index.upkeep_due(room, compact=is_compacting)) is not None:

            def tell(done: int, total: int, stage: str = f"{plan.structure} of {part}") -> None:
                context.progress(done, total, stage)

            made = index.build(plan, seed=state.sequence, threads=search_threads() or 1, progress=tell)
            is_other = index.adopt(made) or is_other
            built[part] = {"structure": plan.structure, "reason": plan.reason, "adopted": made is not None}
            log.info("%s of `%s`: %s", part, state.name, built[part])
    if is_other:
        state.dn2.recalibrate()
    return built
