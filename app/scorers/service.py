"""Fitted scorers of a collection: asking for a fit, showing what serves and how stale it is, deleting."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from app.clock import shown
from app.collections.repository import require
from app.core import Core
from app.db.tables import CollectionRow, FitRow, ScorerRow
from app.errors import Conflict, Invalid, NotFound
from app.jobs.runner import Handler
from app.jobs.service import has_ended, submit
from app.jobs.service import show as show_job
from app.scorers import repository
from app.scorers.fitting import run_fit
from app.scorers.needs import check_needs, held
from app.scorers.schemas import FitParameters
from models.catalog import installed
from models.contract import FindingsGiver, Give, Need
from models.errors import MethodUnknown, StateDamaged
from models.judging import VERDICT_MIN

HANDLERS: Mapping[str, Handler] = {"fit": run_fit}
SCORERS_MAX = 64  # of one collection


def put_scorer(core: Core, name: str, scorer: str, parameters: FitParameters) -> tuple[dict[str, Any], bool]:
    """The queued fit, and whether the same fit was queued or running already (then that one).

    What can be known to fail fails here. A scorer that serves goes on serving until the fit is done.

    Raises:
        NotFound: there is no such collection.
        Invalid: there is no such method.
        ParameterInvalid: a parameter of the method is unknown or out of range.
        Conflict: the collection lacks what the method needs, the method is live, or the name is another method's.
        BankTooSmall: too few images to fit and calibrate.
    """
    method = parameters.method or scorer
    asked = _checked_method(scorer, method, parameters)
    with core.database.read() as session:
        row = require(session, name)
        card = installed()[method]
        check_needs(card, held(session, row.id, card))
        if repository.find(session, row.id, scorer) is None and repository.count(session, row.id) >= SCORERS_MAX:
            raise Conflict(f"`{name}` has {SCORERS_MAX} scorers already; delete one first.", "too_many_scorers")
        running = _same_fit(session, row, scorer, asked, core)
    if running is not None:
        return running, True

    def enter(session: Session, job_id: str) -> None:
        now = core.clock()
        collection = require(session, name, locked=True)
        found = repository.find(session, collection.id, scorer, locked=True)
        if found is None:
            found = ScorerRow(collection_id=collection.id, name=scorer, created_at=now)
            session.add(found)
        else:
            repository.cancel_job(session, found.job_id, now)
        found.method, found.parameters, found.seed = method, asked["params"], parameters.seed
        found.job_id, found.updated_at = job_id, now

    return submit(core, "fit", name, {"scorer": scorer, **asked}, also=enter)


def _checked_method(scorer: str, method: str, parameters: FitParameters) -> dict[str, Any]:
    """Method, parameters with their defaults, and seed, as the job gets them."""
    catalogue = installed()
    try:
        card = catalogue[method]
    except MethodUnknown as error:
        raise Invalid(str(error).replace("`scorer`", "`method`"), "method_unknown") from error
    if card.live:
        raise Conflict(
            f"`{method}` follows the collection by itself: it is always ready, and nothing is to be fitted.",
            "scorer_live",
        )
    if scorer in catalogue and scorer != method:
        raise Conflict(f"The id `{scorer}` is that of another method; choose another for `{method}`.", "scorer_taken")
    params = catalogue.method(method).Params.parse(method, parameters.params)
    return {"method": method, "params": params.model_dump(mode="json"), "seed": parameters.seed}


def get_scorer(core: Core, name: str, scorer: str) -> dict[str, Any]:
    """One scorer of a collection, with what its fit found where the method tells that. Raises NotFound."""
    with core.database.read() as session:
        collection = require(session, name)
        collection_id = collection.id
        told = _shown(core, session, collection, _require(session, collection, scorer))
    if told["fit"] is not None:
        told["fit"]["findings"] = _findings(core, collection_id, scorer)
    return told


def list_scorers(core: Core, name: str) -> list[dict[str, Any]]:
    """Every scorer of a collection, the live ones first."""
    with core.database.read() as session:
        collection = require(session, name)
        live = [
            {"id": card.name, "method": card.name, "state": "ready", "live": True, "serving": True}
            for card in installed().values()
            if card.live
        ]
        return live + [_shown(core, session, collection, row) for row in repository.all_of(session, collection.id)]


def delete_scorer(core: Core, name: str, scorer: str) -> None:
    """Delete a scorer with what it learnt; a fit that is under way is cancelled. Raises NotFound."""
    with core.database.write() as session:
        collection = require(session, name, locked=True)
        row = _require(session, collection, scorer)
        repository.cancel_job(session, row.job_id, core.clock())
        fit_id = row.fit_id
        repository.drop(session, row)
    if fit_id is not None:
        core.fitted.forget([fit_id])


def _same_fit(
    session: Session, collection: CollectionRow, scorer: str, asked: dict[str, Any], core: Core
) -> dict[str, Any] | None:
    """The job that is doing just this already."""
    row = repository.find(session, collection.id, scorer)
    job = None if row is None else repository.job(session, row.job_id)
    if job is None or job.parameters != {"scorer": scorer, **asked} or job.cancel_requested:
        return None
    told = show_job(job, collection.name, core.clock())
    return None if has_ended(told) else told


def _require(session: Session, collection: CollectionRow, scorer: str) -> ScorerRow:
    row = repository.find(session, collection.id, scorer)
    if row is None:
        live = scorer in installed() and installed()[scorer].live
        hint = "it is live, GET /v1/scorers shows its card" if live else f"PUT .../scorers/{scorer} fits one"
        raise NotFound(f"Collection `{collection.name}` has no fitted scorer `{scorer}`; {hint}.", "scorer_unknown")
    return row


def _shown(core: Core, session: Session, collection: CollectionRow, row: ScorerRow) -> dict[str, Any]:
    job = repository.job(session, row.job_id)
    fit = repository.fit(session, row.fit_id)
    told = None if job is None else show_job(job, collection.name, core.clock())
    is_stale_embedding = fit is not None and fit.embedding_id != collection.embedding_id
    is_fitting = told is not None and not has_ended(told)
    return {
        "id": row.name,
        "method": row.method,
        "params": row.parameters,
        "seed": row.seed,
        "state": "fitting" if is_fitting else "failed" if fit is None else "ready",
        "live": False,
        "serving": fit is not None and not is_stale_embedding,
        "job": row.job_id,
        "problem": None if told is None else told["problem"],
        "fit": None if fit is None else _shown_fit(session, collection, fit),
        "created_at": shown(row.created_at),
        "updated_at": shown(row.updated_at),
    }


def _shown_fit(session: Session, collection: CollectionRow, fit: FitRow) -> dict[str, Any]:
    added, removed = repository.changes_since(session, collection.id, fit, repository.marks_of)
    calibration = np.frombuffer(fit.calibration, "<f4")
    gives = installed()[fit.method].gives.outputs if fit.method in installed() else ()
    return {
        "method": fit.method,
        "params": fit.parameters,
        "seed": fit.seed,
        "revision": fit.sequence,
        "images": fit.fitted_images,
        "calibration": {"n": int(calibration.size), "verdict": bool(calibration.size >= VERDICT_MIN)},
        "fingerprint": fit.fingerprint,
        "runtime": fit.runtime,
        "seconds": fit.seconds,
        "bytes": fit.state_bytes,
        "sha256": fit.state_sha256,
        "heatmap": Give.HEAT_MAP in gives,
        "stale": {
            "added": added,
            "removed": removed,
            **_answers(session, collection.id, fit),
            "revisions": collection.sequence - fit.sequence,
            "embedding": fit.embedding_id != collection.embedding_id,
        },
        "fitted_at": shown(fit.created_at),
    }


def _findings(core: Core, collection_id: int, scorer: str) -> dict[str, Any] | None:
    """What the fit that serves tells about itself; None where it tells nothing, or cannot be read any more."""
    with suppress(NotFound, Conflict, StateDamaged):
        fit = core.fitted.serving(collection_id, scorer)
        if fit is not None and isinstance(fit.scorer, FindingsGiver):
            return dict(fit.scorer.findings())
    return None


def _answers(session: Session, collection_id: int, fit: FitRow) -> dict[str, int]:
    """Of a method that learns from comparisons: how many more, or fewer, stand now."""
    if fit.answers is None or fit.method not in installed() or Need.PAIRS not in installed()[fit.method].needs.required:
        return {}
    return {"answers": repository.answer_kinds(session, collection_id).get("pair", 0) - fit.answers}
