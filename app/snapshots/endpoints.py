"""POST, GET /v1/collections/{c}/snapshots; GET, DELETE …/snapshots/{id}; POST /v1/collections/{c}/restore."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import FileResponse, JSONResponse

from app.dependencies import CallerDependency, CoreDependency, KeyDependency, SlotsDependency
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName
from app.openapi import file_body
from app.snapshots import service
from app.snapshots.restoring import uploads_folder
from app.snapshots.schemas import SnapshotId
from app.uploads import Receiver

router = APIRouter(tags=["snapshots"])
KINDS = frozenset({"application/x-tar", "application/octet-stream"})
BODY = file_body(
    "snapshot",
    "A snapshot, as it was downloaded.",
    sorted(KINDS),
    snapshot="As JSON: id of a snapshot of this service.",
)


@router.post("/v1/collections/{c}/snapshots", status_code=202, responses=RESPONSES)
async def make_snapshot(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    images: Annotated[bool, Query(description="Whether the images' bytes are part of it; vectors always are.")] = True,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Write the collection as it stands into one file (job)."""
    submitted = await slots.run(service.submit_snapshot, core, c, images, key.over({"images": images}))
    return await answer(core, slots, wake, submitted, wait)


@router.get("/v1/collections/{c}/snapshots")
async def list_snapshots(
    c: CollectionName,
    core: CoreDependency,
    slots: SlotsDependency,
    cursor: Annotated[str, Query(pattern="^([0-9a-f]{32})?$", description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Snapshots, newest first; those of a collection that was deleted are kept under its name."""
    snapshots, following = await slots.run(service.list_snapshots, core, c, cursor, limit)
    return {"snapshots": snapshots, "next": following}


@router.get(
    "/v1/collections/{c}/snapshots/{id}",
    response_class=FileResponse,
    responses={200: {"content": {"application/x-tar": {}}, "description": "The snapshot, as one file."}},
)
async def download_snapshot(
    c: CollectionName, snapshot_id: SnapshotId, core: CoreDependency, slots: SlotsDependency
) -> FileResponse:
    """The file of a snapshot; ranges are answered, so that a broken download can go on."""
    path, facts = await slots.run(service.get_snapshot, core, c, snapshot_id)
    headers = {"ETag": f'"{facts["sha256"]}"', "Cache-Control": "private, immutable"}
    return FileResponse(path, media_type="application/x-tar", filename=f"{c}-{snapshot_id}.tar", headers=headers)


@router.delete("/v1/collections/{c}/snapshots/{id}", status_code=204)
async def delete_snapshot(
    c: CollectionName, snapshot_id: SnapshotId, core: CoreDependency, slots: SlotsDependency
) -> None:
    """Delete a snapshot and its file."""
    await slots.run(service.delete_snapshot, core, c, snapshot_id)


@router.post("/v1/collections/{c}/restore", status_code=202, responses=RESPONSES, openapi_extra=BODY)
async def restore(
    c: CollectionName,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    caller: CallerDependency,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Make a new collection from a snapshot (job): checked as a whole first, and visible only when complete."""
    receiver = Receiver(
        field="snapshot",
        folder=uploads_folder(core),
        limit_bytes=core.settings.snapshot_limit_bytes,
        limit_setting="ODDITY_SNAPSHOT_LIMIT_BYTES",
        kinds=KINDS,
    )
    file, given = await receiver.read(request)
    given.pop("wait", None)
    submitted = await slots.run(service.submit_restore, core, caller, c, file, given, key)
    return await answer(core, slots, wake, submitted, wait)
