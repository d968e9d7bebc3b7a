"""Versions of a collection's embedding: learning one, comparing, going over to it and back, deleting."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy.orm import Session

from app.clock import shown
from app.collections.repository import next_sequence, require
from app.core import Core
from app.db.tables import CollectionRow, EmbeddingRow
from app.embeddings import repository
from app.embeddings.learning import run_learn
from app.embeddings.schemas import LearnParameters
from app.errors import Busy, Conflict, Invalid, NotFound
from app.idempotency import Answer, Request
from app.jobs.runner import Handler
from app.jobs.service import submit
from app.scorers.repository import cancel_job
from models.catalog import installed
from models.contract import Give, Need
from models.errors import MethodUnknown

HANDLERS: Mapping[str, Handler] = {"embed": run_learn}
VERSIONS_MAX = 8  # of one collection: each keeps a vector of every image
CLASSES_MIN, CLASS_IMAGES_MIN = 2, 2


def submit_learn(
    core: Core, name: str, parameters: LearnParameters, request: Request | None
) -> tuple[dict[str, Any], bool]:
    """The queued job that learns a new version. What can be known to fail fails here.

    Raises:
        NotFound: there is no such collection.
        Invalid: there is no such method, or it gives no embedding.
        ParameterInvalid: a parameter of the method is unknown or out of range.
        Conflict: too few images have a class, or there are too many versions.
    """
    asked = _checked_method(parameters)

    def enter(session: Session, _job_id: str) -> None:
        collection = require(session, name, locked=True)
        repository.drop_given_up(session, collection.id)
        if len(repository.versions(session, collection)) >= VERSIONS_MAX:
            raise Conflict(
                f"`{name}` has {VERSIONS_MAX} versions of its embedding already; delete one first.",
                "too_many_embeddings",
            )
        found = repository.classes(session, collection.id, CLASS_IMAGES_MIN)
        if found < CLASSES_MIN:
            raise Conflict(
                f"`{name}` must have at least {CLASSES_MIN} classes of {CLASS_IMAGES_MIN} images to learn an embedding "
                f"from; got {found}. PUT /v1/collections/{name}/classes/LABEL registers one, and PATCH gives an image "
                "a `label`.",
                "embedding_needs",
            )

    return submit(core, "embed", name, {**asked, "activate": parameters.activate}, request, also=enter)


def list_versions(core: Core, name: str) -> list[dict[str, Any]]:
    """Every version of a collection's embedding, oldest first. Raises NotFound."""
    with core.database.read() as session:
        collection = require(session, name)
        rows = repository.versions(session, collection)
        counts = repository.counts(session, [row.id for row in rows])
        return [_shown(collection, row, counts.get(row.id, 0)) for row in rows]


def get_version(core: Core, name: str, version: int) -> dict[str, Any]:
    """One version. Raises NotFound."""
    with core.database.read() as session:
        collection = require(session, name)
        row = _require(session, collection, version)
        return _shown(collection, row, repository.counts(session, [row.id]).get(row.id, 0))


def activate(
    core: Core, name: str, version: int, *, force: bool, request: Request | None
) -> tuple[dict[str, Any], bool]:
    """Have the collection answer by this version, from one transaction on; and whether that was answered before.

    Raises:
        NotFound: there is no such collection or version.
        Conflict: it is not complete yet, or not better than the network's own vectors and `force` is not given.
    """

    def chosen(session: Session, collection: CollectionRow) -> EmbeddingRow:
        row = _require(session, collection, version)
        is_better = row.base_id is None or bool((row.report or {}).get("better"))
        if row.id != collection.embedding_id and not is_better and not force:
            raise Conflict(_not_better(row), "embedding_not_better", report=row.report)
        return row

    return _go_over(core, name, chosen, request)


def roll_back(core: Core, name: str, request: Request | None) -> tuple[dict[str, Any], bool]:
    """Have the collection answer by the version that was active before; done twice, by the later one again.

    Raises:
        NotFound: there is no such collection.
        Conflict: there is none to go back to.
    """

    def chosen(session: Session, collection: CollectionRow) -> EmbeddingRow:
        before = collection.previous_embedding_id
        row = None if before is None else repository.find(session, collection, before)
        if row is None:
            raise Conflict(f"`{name}` has no version of its embedding to go back to.", "nothing_to_roll_back")
        return row

    return _go_over(core, name, chosen, request)


def delete_version(core: Core, name: str, version: int) -> None:
    """Delete a version with its vectors; a job that is at work on it is cancelled.

    Raises:
        NotFound: there is no such collection or version.
        Conflict: the collection answers by it, or others rest on it.
    """
    with core.database.write() as session:
        collection = require(session, name, locked=True)
        row = _require(session, collection, version)
        if row.id == collection.embedding_id:
            raise Conflict(f"`{name}` answers by version {version}; go over to another first.", "embedding_active")
        if row.base_id is None:
            raise Conflict(
                f"Version {version} of `{name}` holds the network's own vectors, from which the others are made; it "
                "stays.",
                "embedding_is_base",
            )
        if row.job_id is not None:
            cancel_job(session, row.job_id, core.clock())
        repository.drop(session, row)


def _go_over(core: Core, name: str, chosen: Any, request: Request | None) -> tuple[dict[str, Any], bool]:
    with core.idempotency.once(request) as answered:
        if answered is not None:
            return answered.body, True
        with core.database.write() as session:
            now = core.clock()
            collection = require(session, name, locked=True)
            row = chosen(session, collection)
            if not row.is_complete:
                raise Conflict(
                    f"Version {row.id} of `{name}` does not hold every image yet; GET /v1/jobs/{row.job_id} shows how "
                    "far it is.",
                    "embedding_incomplete",
                )
            if row.id != collection.embedding_id:
                sequence = next_sequence(session, collection.id, now)
                session.refresh(collection)
                repository.activate(session, collection, row, sequence, now)
            answer = {
                "active": row.id,
                "previous": collection.previous_embedding_id,
                "fingerprint": row.fingerprint,
                "sequence": collection.sequence,
                "stale_scorers": repository.stale_scorers(session, collection),
            }
            core.idempotency.remember(session, request, Answer(200, answer))
    # Other processes change over by themselves; this one does so before it answers, if that takes no longer than a
    # request may wait for a change.
    with suppress(Busy):
        core.shelf.get(name, answer["sequence"])
    return answer, False


def _checked_method(parameters: LearnParameters) -> dict[str, Any]:
    """Method, parameters with their defaults, and seed, as the job gets them."""
    catalogue = installed()
    try:
        card = catalogue[parameters.method]
    except MethodUnknown as error:
        raise Invalid(str(error).replace("`scorer`", "`method`"), "method_unknown") from error
    asked_of_images = {*card.needs.required, *card.needs.either} - {Need.VECTORS, Need.LABELS}
    if card.live or Give.EMBEDDING not in card.gives.outputs or asked_of_images:
        giving = [
            name for name, one in catalogue.items() if Give.EMBEDDING in one.gives.outputs and one.role == "embedding"
        ]
        told = ", ".join(f"`{one}`" for one in giving) or "none that is installed"
        raise Invalid(
            f"`method` must be one that gives an embedding made from vectors: {told}; got `{card.name}`.",
            "method_gives_no_embedding",
        )
    params = catalogue.method(card.name).Params.parse(card.name, parameters.params)
    return {"method": card.name, "params": params.model_dump(mode="json"), "seed": parameters.seed}


def _require(session: Session, collection: CollectionRow, version: int) -> EmbeddingRow:
    row = repository.find(session, collection, version)
    if row is None:
        raise NotFound(
            f"`{collection.name}` has no version {version} of its embedding; GET "
            f"/v1/collections/{collection.name}/embeddings lists them.",
            "embedding_unknown",
        )
    return row


def _not_better(row: EmbeddingRow) -> str:
    report = row.report or {}
    if report.get("better") is None:
        told = "nothing tells whether it is, for there were too few classes to keep some apart"
    else:
        told = f"its MAP@R is {report['after']['map_at_r']:.3f}, {report['before']['map_at_r']:.3f} without it"
    return f"Version {row.id} must be better than the network's own vectors: {told}. `force=true` goes over to it."


def _shown(collection: CollectionRow, row: EmbeddingRow, vectors: int) -> dict[str, Any]:
    is_active = row.id == collection.embedding_id
    report = row.report or {}
    return {
        "version": row.id,
        "state": "active" if is_active else "ready" if row.is_complete else "backfilling",
        "previous": row.id == collection.previous_embedding_id,
        "fingerprint": row.fingerprint,
        "embedding": row.identity,
        "width": row.width,
        "base": row.base_id,
        "method": row.method,
        "params": row.parameters,
        "seed": row.seed,
        "job": row.job_id,
        "revision": row.sequence,
        "images": vectors,
        "before": report.get("before"),
        "after": report.get("after"),
        "better": report.get("better"),
        "details": report.get("details"),
        "created_at": shown(row.created_at),
        "activated_at": None if row.activated_at is None else shown(row.activated_at),
    }
