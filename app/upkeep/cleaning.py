"""Taking the strangest images out of a bank that may hold anomalies, and putting them back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.clock import shown
from app.collections.repository import next_sequence
from app.core import Core
from app.db.tables import CollectionRow, JobRow
from app.errors import Conflict, Invalid, NotFound
from app.fitted_shelf import LoadedFit
from app.images.repository import change_roles
from app.jobs.context import JobContext
from app.scorers import repository as scorers
from app.scoring.fitted import fit_of
from app.scoring.schemas import ScoreParameters
from app.shelf import CollectionState
from app.upkeep import repository
from app.upkeep.fresh import fresh_state
from app.upkeep.schemas import CleanParameters
from models.contract import BankCleaner
from models.methods.dn2 import cleaned, cleaning_k

SHOWN = ("fraction", "k", "scorer", "scored", "dropped", "largest_score_kept")
LISTED_MAX = 1000  # images named in the job itself; GET /clean/{job} pages through all


@dataclass(frozen=True, slots=True)
class Choice:
    """Which images a cleaning takes out."""

    score_of: dict[int, float]
    """By key, strangest first."""
    scored: int
    """Images among which they were chosen."""
    largest_kept: float | None
    facts: dict[str, Any]
    """What chose them."""


def run_clean(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: choose what is strangest in the bank, drop it, say which images that were and how strange.

    All rows change in the one transaction that also ends the job, so an interrupted run has dropped nothing.
    """
    parameters = CleanParameters.model_validate(context.parameters)
    state = fresh_state(core, context)
    if parameters.scorer is None:
        choice = _by_distance(context, state, parameters)
    else:
        choice = _by_scorer(core, state, parameters.scorer)
    context.progress(choice.scored, choice.scored, "dropping")
    with core.database.write() as session:
        now = core.clock()
        sequence = next_sequence(session, state.id, now)
        rows = repository.images(session, state.id, list(choice.score_of))
        meant = [row for row in rows if row.role == "normal" and row.sha256 == _looked_at(state, row.id)]
        change_roles(meant, "unlabelled", sequence, now)
        repository.note_dropped(session, context.id, ((row.id, choice.score_of[row.id]) for row in meant))
        result = {
            **choice.facts,
            "scored": choice.scored,
            "dropped": len(meant),
            "changed_meanwhile": len(choice.score_of) - len(meant),
            "images": [{"id": row.image_id, "score": choice.score_of[row.id]} for row in meant[:LISTED_MAX]],
            "largest_score_kept": choice.largest_kept,
            "sequence": sequence,
        }
        standing = [*_standing(repository.cleanings(session, state.id)), (context.id, result)]
        result["biased"] = note = bias_note(standing)
        session.get_one(CollectionRow, state.id).bank_note = note
        session.flush()
        context.conclude(session, result)
    core.shelf.get(state.name)
    return result


def _by_distance(context: JobContext, state: CollectionState, parameters: CleanParameters) -> Choice:
    """Every image of the bank is scored against the rest; the worst share."""
    assert parameters.fraction is not None
    k = parameters.k or cleaning_k(len(state.dn2.bank), parameters.fraction)
    found = cleaned(
        state.dn2,
        parameters.fraction,
        k=k,
        progress=lambda done, total: context.progress(done, total, "scoring"),
    )
    score_of = dict(zip(found.ids.tolist(), found.scores.tolist(), strict=True))
    dropped = found.dropped.tolist()
    kept = score_of.keys() - set(dropped)
    return Choice(
        score_of={pk: score_of[pk] for pk in dropped},
        scored=len(score_of),
        largest_kept=max((score_of[pk] for pk in kept), default=None),
        facts={"fraction": parameters.fraction, "k": k, "scorer": None},
    )


def _by_scorer(core: Core, state: CollectionState, name: str) -> Choice:
    """What a fitted scorer ignored; images that have other bytes than when it was fitted are not meant."""
    fit = cleaner_of(core, state, name)
    assert isinstance(fit.scorer, BankCleaner)
    found = fit.scorer.cleaned_bank()
    with core.database.read() as session:
        row = scorers.fit(session, fit.id)
        if row is None:
            raise Conflict(f"Scorer `{name}` was fitted again just now; clean again.", "scorer_not_fitted")
        marks = dict(zip(fit.members.tolist(), np.frombuffer(row.member_marks, "<u8").tolist(), strict=True))
    score_of = {}
    for pk, score in zip(found.dropped.tolist(), found.scores.tolist(), strict=True):
        sha256 = _looked_at(state, pk)
        if sha256 is not None and scorers.marks_of([sha256]).tolist() == [marks.get(pk)]:
            score_of[pk] = score
    return Choice(
        score_of=score_of,
        scored=int(found.kept.size + found.dropped.size),
        largest_kept=None,
        facts={"fraction": None, "k": None, "scorer": name},
    )


def cleaner_of(core: Core, state: CollectionState, name: str) -> LoadedFit:
    """The fit that serves under this name, which chose what to keep of the bank.

    Raises:
        Conflict: nothing is fitted under this name, or it was fitted on another embedding.
        Invalid: it chose nothing.
    """
    fit = fit_of(core, state, ScoreParameters(scorer=name))
    if not isinstance(fit.scorer, BankCleaner):
        raise Invalid(
            f"`scorer`: `{name}` does not choose which images to keep; name one whose card lists `cleaned_bank`, or "
            "give `fraction`.",
            "cleaning_not_offered",
        )
    return fit


def _looked_at(state: CollectionState, pk: int) -> str | None:
    """SHA-256 of the bytes of an image when the job read the collection; None where it was not there."""
    return state.entries[pk].sha256 if pk in state.entries else None


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
    facts = {name: result.get(name) for name in SHOWN}
    at = None if job.finished_at is None else shown(job.finished_at)
    return {"job": job.id, **facts, "cleaned_at": at, "undone": result.get("undone")}
