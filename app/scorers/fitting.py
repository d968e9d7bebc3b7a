"""The job that fits a method to a collection and puts the scorer to use."""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.collections.repository import find as find_collection
from app.core import Core
from app.db.tables import CollectionRow, FitRow
from app.errors import Conflict
from app.jobs.context import Cancelled, JobContext, LeaseLost
from app.scorers import repository
from app.scorers.material import Material, Reader, Split, read_material, reference_of, split_of
from app.scorers.needs import check_needs, held_by
from app.snapshots.repository import living_jobs
from models.catalog import installed
from models.errors import FitRefused
from models.fitting import Fitted, fit


def run_fit(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: set calibration images aside, fit on the others, score those set aside, store, and put it to use.

    The new fit serves from the one transaction that also ends the job; until then the old one does. Raises Conflict
    when the collection lacks what the method needs, BankTooSmall, FitRefused.
    """
    asked = context.parameters
    card = installed()[asked["method"]]
    kind = installed().method(card.name)
    method = kind(kind.Params.parse(card.name, asked["params"]))
    assert context.collection is not None
    with ExitStack() as undo:
        folder = scratch_folder(core, context)
        undo.callback(shutil.rmtree, folder)
        context.progress(0, None, "reading the record")
        material = read_material(core, context.collection, folder, context.check)
        check_needs(card, held_by(material))
        split = split_of(material, card.needs.bank_min)
        reader = Reader(core, material, folder, core.settings.fit_cache_limit_bytes, context.check)
        started = time.monotonic()
        fitted = fit(
            method,
            reference_of(material, split, reader),
            reader.batches(split.calibration, 1),  # one at a time, as requests are scored: to the last bit the same
            seed=asked["seed"],
            progress=lambda done, total: context.progress(done, total, "fitting"),
            calibrating=lambda done, total: context.progress(done, total, "calibrating"),
        )
        seconds, runtime = time.monotonic() - started, reader.runtime
    if len(fitted.state) > core.settings.scorer_limit_bytes:
        raise FitRefused(
            f"What method `{card.name}` learnt must take at most {core.settings.scorer_limit_bytes} bytes; it takes "
            f"{len(fitted.state)}. The setting ODDITY_SCORER_LIMIT_BYTES raises that."
        )
    context.progress(1, 1, "storing")
    return _activate(core, context, material, split, fitted, seconds, runtime)


def _activate(
    core: Core,
    context: JobContext,
    material: Material,
    split: Split,
    fitted: Fitted,
    seconds: float,
    runtime: dict[str, object],
) -> dict[str, Any]:
    asked = context.parameters
    pks = material.pks[split.bank]
    with core.database.write() as session:
        now = core.clock()
        collection = _collection(session, context)
        scorer = repository.find(session, collection.id, asked["scorer"], locked=True)
        if scorer is None:
            raise LeaseLost  # deleted meanwhile
        if scorer.job_id != context.id:
            raise Cancelled  # somebody asked for another fit meanwhile
        if collection.embedding_id != material.embedding_id:
            raise Conflict("The embedding changed while the scorer was fitted; fit again.", "embedding_changed")
        marks = repository.marks_of([material.images[one].sha256 for one in split.bank])
        row = FitRow(
            scorer_id=scorer.id,
            method=asked["method"],
            parameters=asked["params"],
            seed=asked["seed"],
            sequence=material.sequence,
            embedding_id=material.embedding_id,
            fingerprint=material.fingerprint,
            seconds=seconds,
            state_sha256=fitted.sha256,
            state_bytes=len(fitted.state),
            fitted_images=int(split.fit.size),
            answers=material.answers,
            runtime=runtime,
            calibration=fitted.calibration.astype("<f4").tobytes(),
            member_pks=pks.astype("<i8").tobytes(),
            member_marks=marks.astype("<u8").tobytes(),
            heat_low=None if fitted.heat_scale is None else fitted.heat_scale.low,
            heat_border=None if fitted.heat_scale is None else fitted.heat_scale.border,
            created_at=now,
        )
        replaced = scorer.fit_id
        repository.activate(session, scorer, row, fitted.state)
        scorer.updated_at = now
        result = {
            "scorer": scorer.name,
            "method": row.method,
            "revision": row.sequence,
            "images": row.fitted_images,
            "calibration": int(fitted.calibration.size),
            "seconds": seconds,
            "bytes": row.state_bytes,
            "sha256": row.state_sha256,
        }
        session.flush()
        context.conclude(session, result)
    if replaced is not None:
        core.fitted.forget([replaced])
    return result


def _collection(session: Session, context: JobContext) -> CollectionRow:
    assert context.collection is not None
    row = find_collection(session, context.collection, locked=True)
    if row is None or row.id != context.collection_id:  # deleted, or made again under the same name
        raise LeaseLost
    return row


def scratch_folder(core: Core, context: JobContext) -> Path:
    """An empty folder of this job's own; what killed fits left is deleted."""
    folder = core.settings.data / "fitting"
    folder.mkdir(exist_ok=True)
    found = {path.name: path for path in folder.iterdir()}
    with core.database.read() as session:
        living = living_jobs(session, set(found)) - {context.id}
    for name, path in found.items():
        if name not in living:
            shutil.rmtree(path, ignore_errors=True)  # another worker may be at it too
    own = folder / context.id
    own.mkdir()
    return own
