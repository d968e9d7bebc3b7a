"""Collecting what nobody needs any more: files of images, old notes of deletions, answers, ended jobs.

An image's bytes are stored before the row that names them is committed, so a file without a row may be one that is
about to get it. It is taken only when it is an hour old (storing bytes that are there makes their file young again),
and both are looked at once more while nobody may store bytes: whoever comes later finds the file gone, and stores it
anew.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.collecting import repository
from app.core import Core
from app.jobs.repository import uploads_wanted
from app.storage import IMAGES_LOCK, Files
from app.uploads import sweep

STARTS = tuple(f"{number:02x}" for number in range(256))  # of names; each is looked through by itself
GRACE = timedelta(hours=1)
DELETIONS_KEPT = timedelta(days=7)
JOBS_KEPT = timedelta(days=30)
BATCH_ROWS = 10_000


@dataclass(slots=True)
class Collected:
    """How many of each were deleted, or would be."""

    images: int = 0
    thumbnails: int = 0
    unfinished: int = 0
    deletions: int = 0
    answers: int = 0
    jobs: int = 0

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


def collect_files(core: Core, start: str, *, is_dry: bool = False, grace: timedelta = GRACE) -> Collected:
    """Delete the files of images and thumbnails that no image names, of those whose names begin with two digits.

    Nothing is taken while a restore, a snapshot or a fit runs, and no image's file while another process stores some:
    they are met again.
    """
    before = core.clock() - grace
    collected = Collected()
    with core.database.read() as session:
        if repository.are_held(session):
            return collected
        images = _unreferenced(core.store.files, start, session)
        thumbnails = _unreferenced(core.thumbnails.files, start, session)
    for name in images:
        collected.images += _is_old(core.store.files, name, before) if is_dry else _take_image(core, name, before)
    for name in thumbnails:  # one that is missed is made anew: nothing to be careful about
        if _is_old(core.thumbnails.files, name, before):
            if not is_dry:
                core.thumbnails.files.remove(name)
            collected.thumbnails += 1
    if not is_dry:
        collected.unfinished = sum(one.sweep(start, before) for one in (core.store.files, core.thumbnails.files))
    return collected


def prune(core: Core, *, is_dry: bool = False) -> Collected:
    """Drop old deletions (who follows the record and missed them reads afresh), answers and jobs from the record."""
    now = core.clock()
    keys_before = now - timedelta(hours=core.settings.idempotency_hours)
    with core.database.read() as session:
        collected = Collected(
            deletions=repository.old_deletions(session, now - DELETIONS_KEPT),
            answers=repository.old_keys(session, keys_before),
            jobs=len(repository.old_jobs(session, now - JOBS_KEPT, BATCH_ROWS)),
        )
        collections = repository.collections_with_deletions(session, now - DELETIONS_KEPT)
        uploads = uploads_wanted(session)
    if is_dry:
        return collected
    for collection_id in collections:
        _prune_collection(core, collection_id, now - DELETIONS_KEPT)
    if collected.answers:
        with core.database.write() as session:
            repository.drop_keys(session, keys_before)
    if collected.jobs:
        _drop_jobs(core, now - JOBS_KEPT)
    sweep(core.settings.data / "uploads", uploads)
    return collected


def _unreferenced(files: Files, start: str, session: Session) -> Sequence[str]:
    names = list(files.names(start))
    kept = repository.referenced(session, names)
    return [name for name in names if name not in kept]


def _take_image(core: Core, name: str, before: datetime) -> bool:
    """Whether the file was deleted."""
    if not _is_old(core.store.files, name, before):
        return False
    with core.database.lock(IMAGES_LOCK, shared=False) as is_alone:
        # The row is looked for in a session that begins now: it sees whatever was committed by anybody who stored
        # these bytes more than an hour ago, and whoever did it since has made the file young.
        if not is_alone or not _is_old(core.store.files, name, before):
            return False
        with core.database.read() as session:
            if repository.are_held(session) or repository.referenced(session, [name]):
                return False
        core.store.files.remove(name)
    return True


def _is_old(files: Files, name: str, before: datetime) -> bool:
    changed_at = files.changed_at(name)
    return changed_at is not None and changed_at < before


def _prune_collection(core: Core, collection_id: int, before: datetime) -> None:
    is_done = False
    while not is_done:
        with core.database.write() as session:
            is_done = not repository.prune_deletions(session, collection_id, before, BATCH_ROWS)


def _drop_jobs(core: Core, before: datetime) -> None:
    with core.database.write() as session:
        job_ids = repository.old_jobs(session, before, repository.PARAMETERS_MAX)
        repository.drop_jobs(session, job_ids)
