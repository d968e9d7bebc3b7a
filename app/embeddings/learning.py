"""The job that learns a version of an embedding, measures it, and gives every stored image its vector under it.

From the transaction on in which the version appears, whoever writes an image gives it a vector under it too; the images
that were there before are filled in by pages, each in a transaction that holds the collection, so that no image is ever
missed or given the vector of other bytes. A job that is taken up again goes on with the version it had learnt.
"""

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from app.collections.repository import find as find_collection
from app.collections.repository import next_sequence
from app.core import Core
from app.db.tables import CollectionRow, EmbeddingRow
from app.embeddings import repository
from app.errors import Conflict
from app.jobs.context import Cancelled, JobContext, LeaseLost
from app.projections import add_parts, as_bytes, base_of
from app.scorers.fitting import scratch_folder
from app.scorers.material import Material, Reader, Split, read_material, reference_of
from app.vector_checksums import damaged, is_intact
from models.catalog import installed
from models.contract import EmbeddingReport, ProjectionGiver
from models.errors import FitRefused
from models.projection import Projection

PAGE_ROWS = 500  # filled in one transaction: writers wait for no more


def run_learn(core: Core, context: JobContext) -> dict[str, Any]:
    """The job. Raises FitRefused when the collection holds too little to learn from, Conflict when its network changed.

    Nothing answers by the new version before it is complete, and only then, with `activate`, if it is better.
    """
    with core.database.read() as session:
        known = repository.of_job(session, context.id)
    version = _learnt(core, context) if known is None else known.id
    try:
        _fill(core, context, version)
        return _conclude(core, context, version)
    except Cancelled:
        with core.database.write() as session:
            _locked(session, context)
            row = repository.of_job(session, context.id)
            if row is not None:
                repository.drop(session, row)
        raise


def _learnt(core: Core, context: JobContext) -> int:
    """Learn a version and enter it; its number."""
    asked = context.parameters
    kind = installed().method(asked["method"])
    method = kind(kind.Params.parse(asked["method"], asked["params"]))
    assert context.collection is not None
    with ExitStack() as undo:
        folder = scratch_folder(core, context)
        undo.callback(shutil.rmtree, folder)
        context.progress(0, None, "reading the record")
        material = read_material(core, context.collection, folder, context.check, of_base=True)
        bank = material.rows_of("normal")
        nothing = np.zeros(0, np.int64)
        reader = Reader(core, material, folder, core.settings.fit_cache_limit_bytes, context.check)
        fitted = method.fit(
            reference_of(material, Split(bank, bank, nothing, nothing), reader),
            seed=asked["seed"],
            progress=lambda done, total: context.progress(done, total, "learning"),
        )
    if not isinstance(fitted, ProjectionGiver):
        raise FitRefused(
            f"Method `{asked['method']}` must give a projection of the collection's vectors; it gives an embedding of "
            "another kind, which collections cannot go over to."
        )
    return _enter(core, context, material, fitted.projection(), fitted.report())


def _enter(core: Core, context: JobContext, material: Material, projection: Projection, report: EmbeddingReport) -> int:
    data = as_bytes(projection)
    if len(data) > core.settings.scorer_limit_bytes:
        raise FitRefused(
            f"What method `{context.parameters['method']}` learnt must take at most {core.settings.scorer_limit_bytes} "
            f"bytes; it takes {len(data)}. The setting ODDITY_SCORER_LIMIT_BYTES raises that."
        )
    fingerprint = projection.fingerprint(material.fingerprint)
    with core.database.write() as session:
        collection = _locked(session, context)
        if base_of(session, collection.id) != material.embedding_id:
            raise Conflict("The network changed while the embedding was learnt; learn it again.", "embedding_changed")
        base = session.get_one(EmbeddingRow, material.embedding_id)
        row = EmbeddingRow(
            collection_id=collection.id,
            specification=base.specification,
            identity={**base.identity, "projection": projection.sha256(), "fingerprint": fingerprint},
            fingerprint=fingerprint,
            weights=base.weights,
            width=projection.width,
            base_id=base.id,
            is_complete=False,
            job_id=context.id,
            method=context.parameters["method"],
            parameters=context.parameters["params"],
            seed=context.parameters["seed"],
            sequence=material.sequence,
            report=asdict(report),
            state_sha256=hashlib.sha256(data).hexdigest(),
            created_at=core.clock(),
        )
        session.add(row)
        session.flush()
        add_parts(session, row.id, data)
        return row.id


def _fill(core: Core, context: JobContext, version: int) -> None:
    """Give every image that lacks one its vector under this version."""
    after, done = 0, 0
    while True:
        context.progress(done, None, "backfilling")
        with core.database.write() as session:
            _locked(session, context)
            row = _require(session, version)
            assert row.base_id is not None
            page = repository.missing(session, row.base_id, row.id, after, PAGE_ROWS)
            if not page:
                return
            _check_intact(page, session.get_one(EmbeddingRow, row.base_id).width)
            base = np.frombuffer(b"".join(one.vector for one in page), "<f4").reshape(len(page), -1)
            vectors = core.projections.get(session, row.id).apply(base)
            repository.add_vectors(
                session,
                [
                    {
                        "image_pk": one.image_pk,
                        "embedding_id": row.id,
                        "runtime_id": one.runtime_id,
                        "vector": vector.astype("<f4").tobytes(),
                    }
                    for one, vector in zip(page, vectors, strict=True)
                ],
            )
        after, done = page[-1].image_pk, done + len(page)


def _check_intact(page: Sequence[Any], width: int) -> None:
    """Raise BytesDamaged: what is projected from a damaged vector would look sound."""
    for one in page:
        if not is_intact(one.image_pk, one.vector, one.checksum, width):
            raise damaged(one.image_id)


def _conclude(core: Core, context: JobContext, version: int) -> dict[str, Any]:
    with core.database.read() as session:  # once more as a whole, without holding up writers: they serve it already
        row = _require(session, version)
        assert row.base_id is not None
        if not repository.is_complete(session, row.base_id, row.id):
            raise Conflict(
                f"Version {version} must hold a vector of every image; some came without. Learn it again.",
                "embedding_incomplete",
            )
    with core.database.write() as session:
        collection = _locked(session, context)
        row = _require(session, version)
        assert row.report is not None
        row.is_complete = True
        is_wanted = bool(context.parameters["activate"] and row.report["better"])
        if is_wanted:
            now = core.clock()
            sequence = next_sequence(session, collection.id, now)
            session.refresh(collection)
            repository.activate(session, collection, row, sequence, now)
        result = {
            "version": row.id,
            "fingerprint": row.fingerprint,
            "width": row.width,
            "revision": row.sequence,
            **row.report,
            "activated": is_wanted,
        }
        session.flush()
        context.conclude(session, result)
    return result


def _require(session: Session, version: int) -> EmbeddingRow:
    row = session.get(EmbeddingRow, version)
    if row is None:
        raise Cancelled  # deleted meanwhile
    return row


def _locked(session: Session, context: JobContext) -> CollectionRow:
    assert context.collection is not None
    row = find_collection(session, context.collection, locked=True)
    if row is None or row.id != context.collection_id:  # deleted, or made again under the same name
        raise LeaseLost
    return row
