"""Making a snapshot: one state of the record, and the bytes of its images, in one file."""

import io
import json
import re
import shutil
from array import array
from collections.abc import Iterable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from app.collections.repository import embedding as active_embedding
from app.collections.repository import role_counts
from app.core import Core
from app.db.tables import CompressionRow, EmbeddingRow, FeedbackRow, GroupRow, ImageRow, SnapshotRow
from app.errors import BytesDamaged, NotFound
from app.jobs.context import JobContext, LeaseLost
from app.projections import as_bytes, base_of, read_projection
from app.snapshots import repository
from app.snapshots.tape import FORMAT, MANIFEST, TapeWriter, sha256_of
from app.uploads import sync_folder

PROJECTION = "projection.bin"
PARTS = ("images.jsonl", "vectors.f32", "groups.jsonl", "feedback.jsonl", "bank.json")
BANK_ARRAYS = {
    "centres": "<f4",
    "centre_pks": "<i8",
    "member_pks": "<i8",
    "member_marks": "<u8",
    "member_places": "<i4",
}
GONE = -2  # number of the first image of a compressed bank that is no longer there; further ones count down
_OURS = re.compile(r"([0-9a-f]{32})\.(tar|part|making)")
_EMBEDDING = ("specification", "identity", "fingerprint", "weights", "width")
_SUMMARY = ("revision", "images", "groups", "feedback", "files", "with_images")


def snapshots_folder(core: Core) -> Path:
    """Where snapshots lie."""
    return core.settings.data / "snapshots"


def snapshot_path(core: Core, snapshot_id: str) -> Path:
    """The file of a snapshot."""
    return snapshots_folder(core) / f"{snapshot_id}.tar"


def run_snapshot(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: the collection as it stands, written beside and renamed when it is complete and on disk."""
    folder = snapshots_folder(core)
    folder.mkdir(exist_ok=True)
    _sweep(core, context.id)
    parts = folder / f"{context.id}.making"
    parts.mkdir()
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, parts)
        manifest = _write_parts(core, context, parts)
        writer = TapeWriter(snapshot_path(core, context.id))
        undo.callback(writer.discard)
        _assemble(core, context, parts, manifest, writer)
        sha256 = writer.close()
        sync_folder(folder)
    facts = {name: manifest[name] for name in _SUMMARY}
    facts.update({name: manifest["embedding"][name] for name in ("fingerprint", "weights", "width")})
    facts.update({name: manifest["projection"][name] for name in ("fingerprint", "width") if "projection" in manifest})
    result = {"snapshot": context.id, "bytes": writer.size, "sha256": sha256, **facts}
    with core.database.write() as session:
        row = SnapshotRow(
            id=context.id,
            collection=manifest["collection"],
            facts=facts,
            size_bytes=writer.size,
            sha256=sha256,
            created_at=core.clock(),
        )
        session.merge(row)
        session.flush()
        context.conclude(session, result)
    return result


def _sweep(core: Core, own: str) -> None:
    """Delete what jobs left that ended without a snapshot, and what an earlier run of this one did."""
    found = {path: match[1] for path in snapshots_folder(core).iterdir() if (match := _OURS.fullmatch(path.name))}
    with core.database.read() as session:
        wanted = repository.living_jobs(session, set(found.values())) - {own}
        wanted |= {one for one in found.values() if repository.find(session, one) is not None}
    for path, job_id in found.items():
        if job_id in wanted:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _write_parts(core: Core, context: JobContext, parts: Path) -> dict[str, Any]:
    """Everything but the images' bytes, each part a file of its own, and the manifest without their hashes."""
    assert context.collection_id is not None
    with core.database.read() as session:
        row = repository.collection(session, context.collection_id)
        if row is None:
            raise LeaseLost
        active = active_embedding(session, row)
        # The vectors are always the network's own: those of a projection are made from them again.
        embedding = session.get_one(EmbeddingRow, base_of(session, row.id))
        total = sum(role_counts(session, [row.id])[row.id].values())
        pks, runtimes = _write_images(session, context, parts, (row.id, embedding.id), total)
        groups = _write_lines(
            parts / "groups.jsonl",
            (_group(group, members, pks) for group, members in repository.groups(session, row.id)),
        )
        feedback = _write_lines(parts / "feedback.jsonl", map(_feedback, repository.feedback(session, row.id)))
        compression = repository.compression(session, row.id)
        if compression is not None and compression.embedding_id == active.id:
            _write_bank(parts, compression, pks)
        files = 0
        if context.parameters["images"]:
            with (parts / "files.txt").open("w") as handle:
                for sha256, size in repository.files(session, row.id):
                    handle.write(f"{sha256} {size}\n")
                    files += 1
        return {
            "format": FORMAT,
            "oddity": version("oddity"),
            "collection": row.name,
            "created_at": core.clock().isoformat(),
            "settings": row.settings,
            "bank_note": row.bank_note,
            "embedding": {name: getattr(embedding, name) for name in _EMBEDDING},
            "runtimes": [repository.runtime(session, one) for one in runtimes],
            "revision": row.sequence,
            "images": int(pks.size),
            "groups": groups,
            "feedback": feedback,
            "files": files,
            "with_images": context.parameters["images"],
            "scorers": repository.scorers(session, row.id),
            **({} if active is embedding else {"projection": _write_projection(session, parts, active)}),
        }


def _write_projection(session: Session, parts: Path, row: EmbeddingRow) -> dict[str, Any]:
    """The matrices of the active version; its facts."""
    data = as_bytes(read_projection(session, row.id))
    (parts / PROJECTION).write_bytes(data)
    facts = {name: getattr(row, name) for name in ("fingerprint", "width", "method", "parameters", "seed", "report")}
    return {**facts, "sha256": sha256_of(io.BytesIO(data))}


def _write_images(
    session: Session, context: JobContext, parts: Path, keys: tuple[int, int], total: int
) -> tuple[NDArray[np.int64], list[int]]:
    """Facts and vectors side by side; returns the images' keys in order, and the runtimes met."""
    pks = array("q")  # of a million images 8 MB; as a list four times that
    runtimes: dict[int, int] = {}
    with (parts / "images.jsonl").open("w") as lines, (parts / "vectors.f32").open("wb") as vectors:
        for image, runtime_id, vector in repository.images(session, *keys):
            runtime = runtimes.setdefault(runtime_id, len(runtimes))
            lines.write(json.dumps({**_image(image), "runtime": runtime}) + "\n")
            vectors.write(vector)
            pks.append(image.id)
            if len(pks) % repository.PAGE_ROWS == 0:
                context.progress(len(pks), total, "reading the record")
    return np.frombuffer(pks, np.int64), list(runtimes)


def _assemble(core: Core, context: JobContext, parts: Path, manifest: dict[str, Any], writer: TapeWriter) -> None:
    names = [*PARTS, PROJECTION, *(f"bank_{name}.bin" for name in BANK_ARRAYS), "files.txt"]
    members: list[dict[str, Any]] = []
    for path in (parts / name for name in names):
        if path.exists():
            context.check()
            members.append({"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path)})
    data = json.dumps({**manifest, "members": members}, indent=1).encode()
    for name, content in ((MANIFEST, data), ("manifest.sha256", f"{sha256_of(io.BytesIO(data))}\n".encode())):
        writer.add(name, io.BytesIO(content), len(content), context.check)
    for member in members:
        with (parts / member["name"]).open("rb") as source:
            writer.add(member["name"], source, member["bytes"], context.check)
    if not manifest["with_images"]:
        return
    with (parts / "files.txt").open() as lines:
        for number, line in enumerate(lines):
            context.progress(number, manifest["files"], "copying images")
            sha256, _, size = line.strip().partition(" ")
            _add_file(core, context, writer, sha256, int(size))


def _add_file(core: Core, context: JobContext, writer: TapeWriter, sha256: str, size: int) -> None:
    try:
        data = core.store.get(sha256)
    except NotFound as error:
        raise NotFound(f"{error.detail} images=false makes a snapshot without bytes.", error.code) from error
    if len(data) != size:
        raise BytesDamaged(f"The record must say that image {sha256} has {len(data)} bytes; it says {size}.")
    writer.add(f"images/{sha256}", io.BytesIO(data), size, context.check)


def _write_lines(path: Path, facts: Iterable[dict[str, Any]]) -> int:
    count = 0
    with path.open("w") as handle:
        for one in facts:
            handle.write(json.dumps(one) + "\n")
            count += 1
    return count


def _write_bank(parts: Path, row: CompressionRow, pks: NDArray[np.int64]) -> None:
    """A compressed bank; its keys become numbers of images, those of images that are gone numbers below zero."""
    facts = {"method": row.method, "parameters": row.parameters, "report": row.report}
    _write_lines(parts / "bank.json", [{**facts, "created_at": row.created_at.isoformat()}])
    gone: dict[int, int] = {}
    for name in BANK_ARRAYS:
        data = getattr(row, name)
        if name.endswith("_pks"):
            keys = np.frombuffer(data, "<i8")
            places = np.searchsorted(pks, keys)
            numbers = np.where(np.isin(keys, pks), places, -1)
            for place in np.flatnonzero(numbers < 0).tolist():
                numbers[place] = gone.setdefault(int(keys[place]), GONE - len(gone))
            data = numbers.astype("<i8").tobytes()
        (parts / f"bank_{name}.bin").write_bytes(data)


def _image(row: ImageRow) -> dict[str, Any]:
    return {
        "id": row.image_id,
        "sha256": row.sha256,
        "pixel_sha256": row.pixel_sha256,
        "role": row.role,
        "role_before": row.role_before,
        "label": row.label,
        "group": row.group,
        "metadata": row.details,
        "format": row.format,
        "width": row.width,
        "height": row.height,
        "bytes": row.size_bytes,
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
    }


def _group(row: GroupRow, members: list[int], pks: NDArray[np.int64]) -> dict[str, Any]:
    return {
        "name": row.name,
        "metadata": row.details,
        "members": np.searchsorted(pks, members).tolist(),
        "created_at": row.created_at.isoformat(),
        "updated_at": row.updated_at.isoformat(),
    }


def _feedback(row: FeedbackRow) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "image_id": row.image_id,
        "sha256": row.sha256,
        "role_before": row.role_before,
        "role_after": row.role_after,
        "other_image_id": row.other_image_id,
        "other_sha256": row.other_sha256,
        "answer": row.answer,
        "value": row.value,
        "rater": row.rater,
        "note": row.note,
        "created_at": row.created_at.isoformat(),
        "undone_at": None if row.undone_at is None else row.undone_at.isoformat(),
    }
