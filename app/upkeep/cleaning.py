"""Taking the strangest images out of a bank that may hold anomalies, and putting them back."""

from collections.abc import Sequence
from typing import Any

from app.clock import shown
from app.collections.repository import next_sequence
from app.core import Core
from app.db.tables import CollectionRow, JobRow
from app.errors import NotFound
from app.images.repository import change_roles
from app.jobs.context import JobContext
from app.upkeep import repository
from app.upkeep.fresh import fresh_state
from app.upkeep.schemas import CleanParameters
from models.methods.dn2 import cleaned, cleaning_k

LISTED_MAX = 1000  # images named in the job itself; GET /clean/{job} pages through all


def run_clean(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: score every bank image against the rest, drop the worst share, say which and how strange they were.

    All rows change in the one transaction that also ends the job, so an interrupted run has dropped nothing.
    """
    parameters = CleanParameters.model_validate(context.parameters)
    state = fresh_state(core, context)
    k = parameters.k or cleaning_k(len(state.dn2.bank), parameters.fraction)
    found = cleaned(
        state.dn2,
        parameters.fraction,
        k=k,
        progress=lambda done, total: context.progress(done, total, "scoring"),
    )
    score_of = dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True))
    strangest = set(found.dropped.tolist())
    kept_scores = [score for pk, score in score_of.items() if pk not in strangest]
    context.progress(found.ids.size, found.ids.size, "dropping")
    with core.database.write() as session:
        now = core.clock()
        sequence = next_sequence(session, state.id, now)
        rows = repository.images(session, state.id, found.dropped.tolist())
        meant = [row for row in rows if row.role == "normal" and row.sha256 == state.entries[row.id].sha256]
        change_roles(meant, "unlabelled", sequence, now)
        repository.note_dropped(session, context.id, ((row.id, score_of[row.id]) for row in meant))
        result = {
            "fraction": parameters.fraction,
            "k": k,
            "scored": len(score_of),
            "dropped": len(meant),
            "changed_meanwhile": int(found.dropped.size) - len(meant),
            "images": [{"id": row.image_id, "score": score_of[row.id]} for row in meant[:LISTED_MAX]],
            "largest_score_kept": max(kept_scores, default=None),
            "sequence": sequence,
        }
        standing = [*_standing(repository.cleanings(session, state.id)), (context.id, result)]
        result["biased"] = note = bias_note(standing)
        session.get_one(CollectionRow, state.id).bank_note = note
        session.flush()
        context.conclude(session, result)
    core.shelf.get(state.name)
    return result


def undo_cleaning(core: Core, name: str, job_id: str) -> dict[str, Any]:
    """What was put back: images the cleaning dropped and nobody has changed the role of since.

    Undoing twice changes nothing more. Raises NotFound when the job did not clean this collection.
    """
    state = core.shelf.get(name)
    with core.database.write() as session:
        now = core.clock()
        sequence = next_sequence(session, state.id, now)
        jobs = repository.cleanings(session, state.id)
        job = _require(jobs, name, job_id)
        result = dict(job.result or {})
        if "undone" not in result:
            others = [one for one, _ in _standing(jobs) if one != job_id]
            elsewhere = repository.dropped_by(session, others)
            images = [row for row, _ in repository.dropped(session, job_id)]
            back = [row for row in images if row.role == "unlabelled" and row.id not in elsewhere]
            put_back = {row.id for row in back}
            left = [{"id": row.image_id, "role": row.role} for row in images if row.id not in put_back]
            change_roles(back, "normal", sequence, now)
            result["undone"] = {
                "at": shown(now),
                "restored": len(back),
                "left": left[:LISTED_MAX],
                "deleted": result["dropped"] - len(images),
            }
            job.result = result
            session.flush()
        note = bias_note(_standing(jobs))
        session.get_one(CollectionRow, state.id).bank_note = note
    core.shelf.follow(state)
    return {**_shown(job), "biased": note}


def list_cleanings(core: Core, name: str) -> dict[str, Any]:
    """Every cleaning of a collection, those undone too, and what the standing ones mean for the promise."""
    state = core.shelf.get(name)
    with core.database.read() as session:
        jobs = repository.cleanings(session, state.id)
        return {"cleanings": [_shown(job) for job in jobs], "biased": bias_note(_standing(jobs))}


def show_cleaning(core: Core, name: str, job_id: str, offset: int, limit: int) -> dict[str, Any]:
    """One cleaning with the images it dropped, strangest first, page by page."""
    state = core.shelf.get(name)
    with core.database.read() as session:
        job = _require(repository.cleanings(session, state.id), name, job_id)
        found = repository.dropped(session, job_id, offset, limit + 1)
        images = [{"id": row.image_id, "score": score, "role": row.role} for row, score in found[:limit]]
    return {**_shown(job), "images": images, "next": str(offset + limit) if len(found) > limit else None}


def bias_note(standing: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """What cleanings that stand do to the promise of calibration, None when none dropped anything.

    A bank whose strangest images were taken out looks more alike than new normal images are: its leave-one-out
    scores, and with them the border, are too small.
    """
    trimmed = [(job_id, result) for job_id, result in standing if result["dropped"]]
    if not trimmed:
        return None
    kept = 1.0
    for _, result in trimmed:
        kept *= 1.0 - result["dropped"] / result["scored"]
    share = 1.0 - kept
    return {
        "direction": "more_false_alarms",
        "fraction": share,
        "cleanings": [job_id for job_id, _ in trimmed],
        "detail": (
            f"The strangest {share:.2%} of this bank was taken out, so its leave-one-out scores are too small: if "
            "those images were normal, the real false-alarm rate may be up to about that share plus the rate asked for."
        ),
    }


def _standing(jobs: Sequence[JobRow]) -> list[tuple[str, dict[str, Any]]]:
    return [(job.id, job.result) for job in jobs if job.result is not None and "undone" not in job.result]


def _require(jobs: Sequence[JobRow], name: str, job_id: str) -> JobRow:
    for job in jobs:
        if job.id == job_id:
            return job
    raise NotFound(f"No finished job `{job_id}` cleaned collection `{name}`.", "cleaning_unknown")


def _shown(job: JobRow) -> dict[str, Any]:
    result = job.result or {}
    facts = {name: result.get(name) for name in ("fraction", "k", "scored", "dropped", "largest_score_kept")}
    at = None if job.finished_at is None else shown(job.finished_at)
    return {"job": job.id, **facts, "cleaned_at": at, "undone": result.get("undone")}
