"""Making, changing, showing and deleting collections."""

from typing import Any

from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.clock import shown
from app.collections import repository
from app.collections.settings import EMBEDDING_FIELDS, CollectionSettings
from app.core import Core
from app.db.tables import CollectionRow
from app.errors import Conflict, Invalid, PreconditionFailed

RUNTIME_FIELDS = ("engine", "precision", "comparable_with")  # of those in the record, what a caller may wonder about


def etag(row: CollectionRow) -> str:
    """The entity tag of a collection: changes with every write to it."""
    return f'"{row.id}-{row.sequence}"'


def put_collection(
    core: Core, name: str, given: dict[str, Any], if_match: str | None
) -> tuple[dict[str, Any], str, bool]:
    """The collection as it stands after the PUT, its tag, and whether it is new.

    Idempotent: a repeated PUT changes nothing. On an existing collection only the settings given are changed.
    """
    with core.database.read() as session:
        exists = repository.find(session, name) is not None
    if exists:
        answer, tag = patch_collection(core, name, given, if_match)
        return answer, tag, False
    if if_match is not None:
        raise PreconditionFailed(f"There is no collection `{name}` that If-Match could name.")
    settings = CollectionSettings(**{**_defaults(core), **given})
    facts = embedding_facts(core, settings)
    now = core.clock()
    with core.database.write() as session:
        row = repository.add(session, name, settings.model_dump(mode="json"), now)
        if row is not None:
            row.embedding_id = repository.add_embedding(session, row.id, facts, now).id
            session.flush()
            return _shown(session, row), etag(row), True
    answer, tag = patch_collection(core, name, given, if_match)  # another request was quicker
    return answer, tag, False


def patch_collection(core: Core, name: str, given: dict[str, Any], if_match: str | None) -> tuple[dict[str, Any], str]:
    """The collection after the settings given were changed.

    Raises Conflict when the embedding would change while there are images: their vectors would not be comparable.
    """
    with core.database.read() as session:
        row = repository.require(session, name)
        before = CollectionSettings(**row.settings)
    after = CollectionSettings(**{**before.model_dump(), **given})
    changed = [one for one in EMBEDDING_FIELDS if getattr(before, one) != getattr(after, one)]
    facts = embedding_facts(core, after) if changed else None
    now = core.clock()
    with core.database.write() as session:
        row = repository.require(session, name, locked=True)
        _check_match(row, if_match)
        if CollectionSettings(**row.settings) != before:
            raise Conflict(f"Collection `{name}` was changed by another request just now; repeat yours.")
        if facts is not None:
            if sum(repository.role_counts(session, [row.id])[row.id].values()):
                raise Conflict(
                    f"{', '.join(f'`{one}`' for one in changed)} of `{name}` cannot change while it has images: their "
                    "vectors would not be comparable. Make a new collection, or delete the images first.",
                    "embedding_fixed",
                )
            repository.replace_embedding(session, row, facts, now)
        if after != before:
            row.settings = after.model_dump(mode="json")
            session.flush()
            repository.next_sequence(session, row.id, now)
            session.refresh(row)
        return _shown(session, row), etag(row)


def get_collection(core: Core, name: str, after: int | None = None) -> tuple[dict[str, Any], str]:
    """The collection as it stands, and its tag."""
    if after is not None:
        core.shelf.get(name, after)
    with core.database.read() as session:
        row = repository.require(session, name)
        return _shown(session, row), etag(row)


def list_collections(core: Core, caller: Caller, after: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Collections that a caller sees, in order of name, and the name to go on after when there are more."""
    with core.database.read() as session:
        rows = repository.page(session, caller.seen(CollectionRow.name), after, limit + 1)
        shown_rows = [_shown(session, row) for row in rows[:limit]]
    return shown_rows, (rows[limit - 1].name if len(rows) > limit else None)


def delete_collection(core: Core, name: str, if_match: str | None) -> None:
    """Delete a collection with its images, at once."""
    with core.database.write() as session:
        row = repository.require(session, name, locked=True)
        _check_match(row, if_match)
        repository.drop(session, row.id)
        for verb in ("POST", "PUT"):
            core.idempotency.forget(session, f"{verb} /v1/collections/{name}/")
    core.shelf.drop(name)
    core.fitted.forget_deleted()


def _check_match(row: CollectionRow, if_match: str | None) -> None:
    if if_match is None or {"*", etag(row)} & {one.strip() for one in if_match.split(",")}:
        return
    raise PreconditionFailed(f"Collection `{row.name}` has changed since; its tag is {etag(row)} now.")


def _is_file_name(name: str) -> bool:
    return "/" not in name and "\0" not in name and name not in ("", ".", "..") and len(name.encode()) <= 255


def _defaults(core: Core) -> dict[str, Any]:
    return {
        "backbone": core.embedders.default_backbone,
        "weights": core.embedders.default_weights,
        "image_size": core.embedders.default_image_size,
        "pooling": core.embedders.default_pooling,
    }


def embedding_facts(core: Core, settings: CollectionSettings) -> dict[str, Any]:
    """What the record keeps of the embedding that these settings ask for.

    Loads the embedder, so that a collection that could never embed is refused when it is made. Raises Invalid,
    WeightsMissing, WeightsDamaged, ParameterInvalid.
    """
    named = settings.weights.removeprefix("file:")
    is_callers = settings.weights.startswith("file:") and settings.weights != core.embedders.default_weights
    if is_callers and not _is_file_name(named):
        # A caller must not make the server open any path it likes; the operator's own default may lie anywhere.
        raise Invalid(
            "`weights` must name a file in the data folder's `weights`, as file:<name>, without a path.", "weights_path"
        )
    specification = core.embedders.specification(settings.embedding())
    embedder = core.embedders.get(specification).embedder
    return {
        "specification": settings.model_dump(mode="json", include=set(EMBEDDING_FIELDS)),
        "identity": embedder.identity.describe(),
        "fingerprint": embedder.identity.fingerprint,
        "weights": embedder.identity.weights,
        "width": embedder.width,
    }


def _shown(session: Session, row: CollectionRow) -> dict[str, Any]:
    embedding = repository.embedding(session, row)
    counts = repository.role_counts(session, [row.id])[row.id]
    runtime = repository.runtime(session, row)
    return {
        "name": row.name,
        **CollectionSettings(**row.settings).model_dump(mode="json"),  # with what older rows do not name
        "fingerprint": embedding.fingerprint,
        "embedding": embedding.identity,
        "embedding_version": embedding.id,
        "weights_label": embedding.weights,
        "runtime": None if runtime is None else {name: runtime.get(name) for name in RUNTIME_FIELDS},
        "width": embedding.width,
        "images": sum(counts.values()),
        "roles": counts,
        "revision": row.sequence,
        "sequence": row.sequence,
        "created_at": shown(row.created_at),
        "updated_at": shown(row.updated_at),
    }
