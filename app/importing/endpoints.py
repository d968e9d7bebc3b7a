"""POST /v1/collections/{c}/images/import, and what an import could not take."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse

from app.dependencies import CallerDependency, CoreDependency, KeyDependency, SlotsDependency
from app.importing import service
from app.importing.schemas import ImportId
from app.jobs.schemas import Wait
from app.jobs.submission import RESPONSES, WakeDependency, answer
from app.names import CollectionName
from app.openapi import file_body
from app.uploads import Receiver

router = APIRouter(tags=["images"])
KINDS = frozenset({"application/zip", "application/x-tar", "application/gzip", "application/octet-stream"})
BODY = file_body(
    "archive",
    "A zip, tar, tar.gz or tar.bz2. A metadata.jsonl at its root says per line what a file is: file_name, and id, "
    "role, label, group, metadata.",
    sorted(KINDS),
    folder="Instead of an archive: a folder of the service's machine, below one that the operator allowed.",
    mode="upsert or insert_only.",
    role="normal, anomalous, unlabelled or example, for all files.",
    label="Label of all files.",
    group="Group of all files.",
    label_from_folder="true: label each image by the folder that holds it.",
    group_from_folder="true: group images by the folder that holds them.",
)


@router.post("/v1/collections/{c}/images/import", status_code=202, responses=RESPONSES, openapi_extra=BODY)
async def import_images(
    c: CollectionName,
    request: Request,
    core: CoreDependency,
    slots: SlotsDependency,
    key: KeyDependency,
    wake: WakeDependency,
    caller: CallerDependency,
    wait: Wait = 0.0,
) -> JSONResponse:
    """Add the images of an archive or a folder (job): it goes past bad files, and on after an interruption."""
    receiver = Receiver(
        field="archive",
        folder=service.uploads_folder(core),
        limit_bytes=core.settings.import_limit_archive_bytes,
        limit_setting="ODDITY_IMPORT_LIMIT_ARCHIVE_BYTES",
        kinds=KINDS,
    )
    archive, given = await receiver.read(request)
    given.pop("wait", None)
    submitted = await slots.run(service.submit_import, core, caller, c, archive, given, key)
    return await answer(core, slots, wake, submitted, wait)


@router.get("/v1/collections/{c}/imports/{job}")
async def show_import(
    c: CollectionName,
    job: ImportId,
    core: CoreDependency,
    slots: SlotsDependency,
    cursor: Annotated[str, Query(pattern="^[0-9]{0,18}$", description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Counts of an import, and the files that it could not take, page by page."""
    return await slots.run(service.show_import, core, c, job, int(cursor or 0), limit)


@router.get(
    "/v1/collections/{c}/imports/{job}/report",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-ndjson": {}}, "description": "One JSON object a line."}},
)
async def import_report(
    c: CollectionName, job: ImportId, core: CoreDependency, slots: SlotsDependency
) -> StreamingResponse:
    """Every file that an import could not take, and why, as one file."""
    lines = await slots.run(service.report_lines, core, c, job)
    headers = {"Content-Disposition": f'attachment; filename="import-{job}.jsonl"'}
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=headers)
