"""Submitting snapshots and restores, listing and deleting snapshots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.bodies import parse
from app.clock import shown
from app.collections.repository import find as find_collection
from app.core import Core
from app.db.tables import SnapshotRow
from app.errors import Invalid, NotFound
from app.idempotency import Key, Request
from app.jobs.repository import uploads_wanted
from app.jobs.runner import Handler
from app.jobs.service import submit
from app.snapshots import repository
from app.snapshots.making import run_snapshot, snapshot_path, snapshots_folder
from app.snapshots.restoring import parse_manifest, refuse_taken, run_restore, settings_of, uploads_folder
from app.snapshots.schemas import RestoreParameters
from app.snapshots.tape import TapeReader, checked_manifest
from app.uploads import Received, sweep, sync_folder

HANDLERS: Mapping[str, Handler] = {"snapshot": run_snapshot, "restore": run_restore}


def submit_snapshot(core: Core, name: str, images: bool, keyed: Request | None) -> tuple[dict[str, Any], bool]:
    """The queued job. Raises NotFound."""
    return submit(core, "snapshot", name, {"images": images}, keyed)


def submit_restore(
    core: Core, caller: Caller, name: str, file: Received | None, given: dict[str, Any], key: Key
) -> tuple[dict[str, Any], bool]:
    """The queued job, once the manifest was read: what can be known to fail fails here.

    Raises NotFound where the caller sees no such snapshot, Conflict where the name is taken or the embedding is not
    here, Invalid where this is no snapshot. The uploaded file is deleted unless a new job has taken it.
    """
    is_taken = False
    try:
        parameters = parse(RestoreParameters, given)
        if (file is None) == (parameters.snapshot is None):
            raise Invalid("Send a `snapshot` file, or name one as JSON; one of the two.", "snapshot_missing")
        with core.database.read() as session:
            refuse_taken(session, name)
        path = _snapshot_seen(core, caller, str(parameters.snapshot)) if file is None else file.path
        with path.open("rb") as handle:
            settings_of(core, checked_manifest(TapeReader(handle, lambda: None), parse_manifest))
        described = {"snapshot": parameters.snapshot} if file is None else {"upload": file.described()}
        told = {"snapshot": parameters.snapshot, "sha256": None if file is None else file.sha256}
        job, is_repeat = submit(core, "restore", None, {"collection": name, **described}, key.over(told))
        is_taken = not is_repeat
    finally:
        if file is not None and not is_taken:
            file.path.unlink(missing_ok=True)
        with core.database.read() as session:
            wanted = uploads_wanted(session)
        sweep(uploads_folder(core), wanted)
    return job, is_repeat


def list_snapshots(core: Core, name: str, before: str, limit: int) -> tuple[list[dict[str, Any]], str | None]:
    """Snapshots of collections of this name, newest first, also of one that was deleted since.

    Raises NotFound when there is neither a collection nor a snapshot of this name.
    """
    with core.database.read() as session:
        rows = repository.page(session, name, before, limit + 1)
        if not rows and find_collection(session, name) is None:
            raise NotFound(f"There is no collection `{name}` and no snapshot of one.", "collection_unknown")
    return [_shown(row) for row in rows[:limit]], (rows[limit - 1].id if len(rows) > limit else None)


def _snapshot_seen(core: Core, caller: Caller, snapshot_id: str) -> Path:
    with core.database.read() as session:
        row = _require(session, None, snapshot_id)
    if not caller.sees(row.collection):
        raise NotFound(f"There is no snapshot `{snapshot_id}`.", "snapshot_unknown")
    return snapshot_file(core, row.collection, snapshot_id)


def snapshot_file(core: Core, name: str | None, snapshot_id: str) -> Path:
    """The file of a snapshot, of a collection of this name if one is given. Raises NotFound."""
    with core.database.read() as session:
        _require(session, name, snapshot_id)
    path = snapshot_path(core, snapshot_id)
    if not path.is_file():
        raise NotFound(f"The file of snapshot `{snapshot_id}` is gone.", "snapshot_unknown")
    return path


def get_snapshot(core: Core, name: str, snapshot_id: str) -> tuple[Path, dict[str, Any]]:
    """The file of a snapshot, and what is known of it. Raises NotFound."""
    path = snapshot_file(core, name, snapshot_id)
    with core.database.read() as session:
        return path, _shown(_require(session, name, snapshot_id))


def delete_snapshot(core: Core, name: str, snapshot_id: str) -> None:
    """Delete a snapshot and its file. Raises NotFound."""
    with core.database.write() as session:
        _require(session, name, snapshot_id)
        repository.drop(session, snapshot_id)
    snapshot_path(core, snapshot_id).unlink(missing_ok=True)
    sync_folder(snapshots_folder(core))


def _require(session: Session, name: str | None, snapshot_id: str) -> SnapshotRow:
    row = repository.find(session, snapshot_id)
    if row is None or name not in (None, row.collection):
        raise NotFound(f"There is no snapshot `{snapshot_id}`{f' of `{name}`' if name else ''}.", "snapshot_unknown")
    return row


def _shown(row: SnapshotRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "collection": row.collection,
        **row.facts,
        "bytes": row.size_bytes,
        "sha256": row.sha256,
        "created_at": shown(row.created_at),
    }
