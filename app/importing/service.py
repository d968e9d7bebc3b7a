"""Importing many images from an archive or a folder: in batches, going on where an interruption left off."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.access.caller import Caller
from app.bodies import Upload, parse
from app.core import Core
from app.db.tables import JobRow
from app.errors import Busy, Conflict, Forbidden, Invalid, NotFound
from app.idempotency import Answer, Key, Request
from app.images.schemas import AddParameters
from app.images.service import add_images
from app.importing import repository
from app.importing.archives import kind_of, open_archive
from app.importing.entries import Entry, Limits, Source
from app.importing.facts import read_facts
from app.importing.folders import Folder, allowed_folder
from app.importing.schemas import ImportParameters
from app.jobs.context import JobContext, LeaseLost
from app.jobs.repository import uploads_wanted
from app.jobs.runner import Handler
from app.jobs.service import submit
from app.uploads import Received, consumed, sweep
from models.errors import DeadlinePassed, QueueFull

BATCH_IMAGES = 32
BATCH_BYTES = 64 * 2**20
BATCH_ENTRIES = 1024  # also a stretch of nothing but refused files is noted now and then
LISTED_MAX = 100  # refused files named in the job itself; its report has them all
TRIES = 8  # at adding a batch while requests keep the service busy
TRY_EVERY_S = 2.0
COUNTS = ("created", "updated", "duplicate", "refused", "ignored")


def uploads_folder(core: Core) -> Path:
    """Where uploaded archives wait for their job."""
    return core.settings.data / "uploads"


def submit_import(
    core: Core, caller: Caller, name: str, archive: Received | None, given: dict[str, Any], key: Key
) -> tuple[dict[str, Any], bool]:
    """The queued job, and whether the same Idempotency-Key had submitted it before.

    Raises NotFound, Invalid, Conflict where the folder is not one the operator allowed, and Forbidden where a key that
    is limited to some collections names a folder: what lies there may belong to others. The archive is deleted
    unless a new job has taken it.
    """
    is_taken = False
    try:
        parameters = parse(ImportParameters, given)
        described = parameters.model_dump(mode="json", exclude_unset=True)
        if (archive is None) == (parameters.folder is None):
            raise Invalid("Send a zip or tar as `archive`, or name a `folder`; one of the two.", "source_missing")
        if parameters.folder is not None and not caller.sees_everything:
            raise Forbidden(f"Key `{caller.name}` is for some collections only; send an archive.", "folder_refused")
        core.shelf.get(name)
        if archive is not None:
            kind_of(archive.path)
            described["upload"] = archive.described()
        else:
            allowed_folder(str(parameters.folder), core.settings.import_folders)
        told = {**described, "upload": None if archive is None else [archive.filename, archive.sha256]}
        job, is_repeat = submit(core, "import", name, described, key.over(told))
        is_taken = not is_repeat
    finally:
        if archive is not None and not is_taken:
            archive.path.unlink(missing_ok=True)
        with core.database.read() as session:
            wanted = uploads_wanted(session)
        sweep(uploads_folder(core), wanted)
    return job, is_repeat


def run_import(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: every image of the source added like an image that is sent, each file that cannot be taken reported.

    A job that is run again goes on behind the last batch that was noted. The batch that an interruption fell into
    is sent under the same key, so it is counted once whether or not it had been stored.
    """
    given = dict(context.parameters)
    upload = given.pop("upload", None)
    parameters = ImportParameters.model_validate(given)
    with _source(core, parameters, upload) as source:
        context.progress(0, None, "looking through")
        total, items = source.scan(context.check)
        return _Importer(core, context, parameters, source, total, items).run()


def show_import(core: Core, name: str, job_id: str, after: int, limit: int) -> dict[str, Any]:
    """How far an import has come, and a page of the files that it could not take. Raises NotFound."""
    state = core.shelf.get(name)
    with core.database.read() as session:
        job = _require(session, state.id, name, job_id)
        row = repository.find(session, job_id)
        found = repository.problems(session, job_id, after, limit + 1)
        problems = [_shown(one) for one in found[:limit]]
    counts = dict.fromkeys(COUNTS, 0) if row is None else row.counts
    following = str(found[limit - 1].id) if len(found) > limit else None
    return {"job": job_id, "state": job.state, **counts, "problems": problems, "next": following}


def report_lines(core: Core, name: str, job_id: str) -> Iterator[str]:
    """Every file that an import could not take, one JSON object a line. Raises NotFound at once."""
    state = core.shelf.get(name)
    with core.database.read() as session:
        _require(session, state.id, name, job_id)
    return _report_lines(core, job_id)


def _report_lines(core: Core, job_id: str) -> Iterator[str]:
    after = 0
    while True:
        with core.database.read() as session:
            page = repository.problems(session, job_id, after, 1000)
        if not page:
            return
        after = page[-1].id
        yield "".join(json.dumps(_shown(one)) + "\n" for one in page)


class _Importer:
    """One run of one job."""

    def __init__(
        self,
        core: Core,
        context: JobContext,
        parameters: ImportParameters,
        source: Source,
        total: int,
        items: bytes | None,
    ) -> None:
        assert context.collection is not None
        self._core = core
        self._context = context
        self._name = context.collection
        self._source = source
        self._total = total
        self._facts = {} if items is None else read_facts(items)
        self._missing = set(self._facts)
        self._from_folder = [one for one in ("label", "group") if getattr(parameters, f"{one}_from_folder")]
        shared = parameters.model_dump(include={"mode", "role", "label", "group"}, exclude_unset=True)
        self._shared = AddParameters.model_validate(shared)
        with core.database.read() as session:
            row = repository.find(session, context.id)
        self._position = None if row is None else row.position
        self._counts = dict.fromkeys(COUNTS, 0) if row is None else dict(row.counts)
        self._begin()

    def _begin(self) -> None:
        self._uploads: list[Upload] = []
        self._problems: list[dict[str, Any]] = []
        self._waiting = 0  # entries since the last note

    def run(self) -> dict[str, Any]:
        for entry in self._source.entries(self._position, self._missing.discard):
            self._take(entry)
            if (
                len(self._uploads) >= BATCH_IMAGES
                or self._waiting >= BATCH_ENTRIES
                or sum(len(one.data) for one in self._uploads) >= BATCH_BYTES
            ):
                self._note(None)
        for name in sorted(self._missing):
            fault = {"code": "file_missing", "status": 404, "detail": "The items file names it, but it is not there."}
            self._refuse(name, fault)
        result: dict[str, Any] = {}

        def conclude(session: Session) -> None:
            listed = [_shown(one) for one in repository.problems(session, self._context.id, 0, LISTED_MAX)]
            result.update(self._counts)
            result.update(problems=listed, problems_listed_all=len(listed) == self._counts["refused"])
            result["report"] = f"/v1/collections/{self._name}/imports/{self._context.id}/report"
            result["sequence"] = self._core.shelf.get(self._name).sequence
            self._context.conclude(session, result)

        self._note(conclude)
        return result

    def _take(self, entry: Entry) -> None:
        self._position = entry.place
        self._waiting += 1
        if entry.problem is not None:
            self._refuse(entry.name, entry.problem)
        elif entry.data is None:
            self._counts["ignored"] += 1
        else:
            holder = entry.name.rpartition("/")[0].rpartition("/")[2]
            item = dict.fromkeys(self._from_folder, holder) if holder else {}
            self._uploads.append(Upload(entry.data, entry.name, {**item, **self._facts.get(entry.name, {})}))

    def _refuse(self, name: str, problem: Mapping[str, Any]) -> None:
        self._counts["refused"] += 1
        self._problems.append({"name": name, **problem})

    def _note(self, last: Callable[[Session], None] | None) -> None:
        """Add what has gathered, and write down that it was dealt with."""
        scope = f"import {self._context.id}"
        self._context.check()
        if self._uploads:
            self._add(scope)
        with self._core.database.write() as session:
            repository.store(session, self._context.id, self._position, self._counts)
            repository.add_problems(session, self._context.id, self._problems)
            self._core.idempotency.forget(session, scope)
            session.flush()
            if last is not None:
                last(session)
        self._begin()
        if last is None:
            done = sum(self._counts.values())
            self._context.progress(done, max(self._total, done), "importing")

    def _add(self, scope: str) -> None:
        digest = hashlib.sha256(json.dumps(self._position).encode())
        for one in self._uploads:
            digest.update(hashlib.sha256(one.data).digest())
        request = Request(scope, digest.hexdigest(), digest.hexdigest())
        answer = self._patiently(request)
        for upload, told in zip(self._uploads, answer["items"], strict=True):
            if told["status"] == "refused":
                self._refuse(str(upload.filename), told["problem"])
            else:
                self._counts[told["status"]] += 1

    def _patiently(self, request: Request) -> dict[str, Any]:
        """Requests go before jobs: where the service is busy, the batch is tried again a little later."""
        for left in range(TRIES - 1, -1, -1):
            self._context.check()
            if self._core.shelf.get(self._name).id != self._context.collection_id:
                raise LeaseLost  # deleted, and made again under the same name
            try:
                return add_images(self._core, self._name, self._uploads, self._shared, request, self._ours)[0].body
            except (Busy, QueueFull, DeadlinePassed, OperationalError):
                if not left:
                    raise
            except Conflict as error:
                if not left or error.code != "embedding_changed":
                    raise
            threading.Event().wait(TRY_EVERY_S)
        raise AssertionError("the last try returns or raises")

    def _ours(self, session: Session, body: dict[str, Any], _now: datetime) -> Answer:
        """The answer to a batch, in its transaction: a collection that was made again meanwhile gets none of it."""
        if session.get(JobRow, self._context.id) is None:  # went with the collection that it was submitted for
            raise LeaseLost
        return Answer(207 if body["refused"] else 201, body)


@contextmanager
def _source(core: Core, parameters: ImportParameters, upload: dict[str, Any] | None) -> Iterator[Source]:
    settings = core.settings
    limits = Limits(
        file_bytes=settings.image_limit_bytes,
        unpacked_bytes=settings.import_limit_unpacked_bytes,
        ratio=settings.import_limit_ratio,
        entries=settings.import_limit_entries,
    )
    if upload is None:
        yield Folder(allowed_folder(str(parameters.folder), settings.import_folders), limits)
        return
    with consumed(uploads_folder(core), upload) as path:
        yield open_archive(path, limits)


def _require(session: Session, collection_id: int, name: str, job_id: str) -> JobRow:
    row = repository.job(session, collection_id, job_id)
    if row is None:
        raise NotFound(f"No job `{job_id}` imports into collection `{name}`.", "import_unknown")
    return row


def _shown(row: Any) -> dict[str, Any]:
    return {"name": row.name, "problem": {"code": row.code, "status": row.status, "detail": row.detail}}


HANDLERS: Mapping[str, Handler] = {"import": run_import}
