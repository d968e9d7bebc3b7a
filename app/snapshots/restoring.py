"""Restoring a snapshot into a new collection: checked as a whole first, hidden until it is complete."""

import itertools
import json
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.bodies import plain_json
from app.collections.repository import HIDDEN, add_embedding, drop, find
from app.collections.service import embedding_facts
from app.collections.settings import CollectionSettings
from app.core import Core
from app.db.tables import CollectionRow, CompressionRow, EmbeddingRow, FeedbackRow, GroupRow
from app.errors import Conflict, Invalid, NotFound, TooLarge
from app.images.repository import runtime_id
from app.jobs.context import JobContext, LeaseLost
from app.jobs.service import new_id
from app.projections import add_parts, of_bytes
from app.snapshots import repository
from app.snapshots.making import BANK_ARRAYS, GONE, PARTS, PROJECTION, snapshot_path
from app.snapshots.schemas import (
    BankFacts,
    EmbeddingFacts,
    FeedbackFacts,
    GroupFacts,
    ImageFacts,
    Manifest,
    ProjectionFacts,
)
from app.snapshots.tape import FORMATS, TapeReader, checked_manifest
from app.uploads import consumed
from models.errors import ModelsError, StateDamaged

BATCH_ROWS = 1000
BATCH_FILES = 32
BATCH_BYTES = 32 * 2**20
LINE_SPARE_BYTES = 64 * 1024  # of a line, beside the metadata
GROUP_LINE_BYTES = 64 * 2**20
SEQUENCE = 1  # of everything in a restored collection
_FILE = re.compile(rb"([0-9a-f]{64}) ([0-9]{1,10})\n")
Facts = TypeVar("Facts", bound=BaseModel)
Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Checked:
    """A snapshot whose every byte was compared: its manifest, and where each member begins and how long it is."""

    manifest: Manifest
    members: dict[str, tuple[int, int]]
    files_at: int


def uploads_folder(core: Core) -> Path:
    """Where uploaded snapshots wait for their job."""
    return core.settings.data / "uploads"


def run_restore(core: Core, context: JobContext) -> dict[str, Any]:
    """The job: nothing is written before the whole file was checked, nothing is visible before all is written."""
    name = context.parameters["collection"]
    hidden = f"{HIDDEN}restoring/{context.id}"
    _sweep(core, hidden)
    with _file(core, context.parameters) as handle:
        checked = check(handle, context)
        settings = settings_of(core, checked.manifest)
        _store_files(core, context, handle, checked)
        builder = _Builder(core, context, handle, checked, settings)
        with ExitStack() as undo:
            undo.callback(builder.discard)
            builder.fill(hidden)
            result = _publish(core, context, checked.manifest, hidden, name)
            undo.pop_all()
    return result


def check(handle: IO[bytes], context: JobContext) -> Checked:
    """The snapshot after every byte was compared. Raises Invalid, which names the place that differs."""
    reader = TapeReader(handle, context.check)
    manifest: Manifest = checked_manifest(reader, parse_manifest)
    members: dict[str, tuple[int, int]] = {}
    for member in manifest.members:
        context.progress(reader.position, None, "checking")
        members[member.name] = (reader.position + 512, member.bytes)
        for _ in reader.pieces(member.name, member.bytes, member.sha256):
            pass
    _check_members(manifest, members)
    files_at = reader.position
    number = 0
    for number, (sha256, size) in enumerate(_files(handle, members), 1):
        context.progress(number, manifest.files, "checking")
        handle.seek(reader.position)
        for _ in reader.pieces(f"images/{sha256}", size, sha256):
            pass
    handle.seek(reader.position)
    if number != manifest.files:
        raise _wrong(f"`files` must be {number}, as files.txt says; got {manifest.files}")
    reader.end()
    return Checked(manifest, members, files_at)


def parse_manifest(data: bytes) -> Manifest:
    """The manifest. Raises Invalid where this version of the service cannot use it."""
    try:
        document = plain_json(json.loads(data))
        if isinstance(document, dict) and document.get("format", 1) not in FORMATS:
            raise Invalid(
                f"The snapshot has format {document['format']}; this service reads formats "
                f"{', '.join(map(str, FORMATS))}.",
                "snapshot_format",
            )
        return Manifest.model_validate(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise _wrong(f"`{'.'.join(map(str, first['loc']))}` of its manifest: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise _wrong(f"its manifest: {error}") from error


def settings_of(core: Core, manifest: Manifest) -> tuple[CollectionSettings, dict[str, Any]]:
    """The settings of the restored collection and the embedding that they mean here.

    Vectors are only comparable where the embedding is the same to the last bit of its weights. The weights may go by
    another name here: those named in the snapshot are tried first, then this service's default.
    Raises Conflict that says what is missing.
    """
    wanted = manifest.embedding.fingerprint
    problem = ""
    for weights in dict.fromkeys((manifest.settings.weights, core.embedders.default_weights)):
        settings = CollectionSettings(**{**manifest.settings.model_dump(), "weights": weights})
        try:
            facts = embedding_facts(core, settings)
        except (ModelsError, Invalid) as error:
            problem = problem or f" {error}"
            continue
        if facts["fingerprint"] == wanted:
            if facts["width"] != manifest.embedding.width:
                raise _wrong(f"`width` must be {facts['width']} for this embedding; got {manifest.embedding.width}")
            return settings, facts
        problem = problem or f" `{weights}` here are others: their fingerprint is {facts['fingerprint'][:16]}."
    raise Conflict(
        f"The vectors of this snapshot were made by embedding {wanted[:16]} ({manifest.settings.backbone}, weights "
        f"`{manifest.settings.weights}`, sha256 {manifest.embedding.identity.get('weights_sha256', 'unknown')}), which "
        f"is not here.{problem} Put those weights into the data folder's `weights` and restore again.",
        "embedding_missing",
    )


class _Builder:
    """Fills a hidden collection, batch by batch, from a snapshot that was checked."""

    def __init__(
        self,
        core: Core,
        context: JobContext,
        handle: IO[bytes],
        checked: Checked,
        embedding: tuple[CollectionSettings, dict[str, Any]],
    ) -> None:
        self._core = core
        self._context = context
        self._handle = handle
        self._manifest = checked.manifest
        self._members = checked.members
        self._settings, self._embedding = embedding
        self._pks = np.empty(checked.manifest.images, np.int64)
        self._collection_id: int | None = None

    def discard(self) -> None:
        if self._collection_id is not None:
            _drop(self._core, self._collection_id)

    def fill(self, hidden: str) -> None:
        manifest = self._manifest
        with self._core.database.write() as session:
            now = self._core.clock()
            row = CollectionRow(
                name=hidden,
                settings=self._settings.model_dump(mode="json"),
                sequence=SEQUENCE,
                bank_note=manifest.bank_note,
                created_at=now,
                updated_at=now,
            )
            session.add(row)
            session.flush()
            self._collection_id = row.id
            base = add_embedding(session, row.id, self._embedding, now)
            row.embedding_id = self._embedding_id = self._enter_projection(session, base).id
            self._versions = self._core.projections.versions(session, row.id)
            self._runtimes = [runtime_id(session, one) for one in manifest.runtimes]
            session.flush()
        try:
            self._fill_images()
            self._fill_groups()
            self._fill_feedback()
        except IntegrityError as error:
            raise _wrong("it names an image or a group twice") from error
        self._fill_bank()

    def _enter_projection(self, session: Session, base: EmbeddingRow) -> EmbeddingRow:
        """The version that the collection answered by: the network's own, or a projection of it."""
        told = self._manifest.projection
        if told is None:
            return base
        data = _at(self._handle, *self._members[PROJECTION])
        try:
            projection = of_bytes(data, told.sha256)
        except StateDamaged as error:
            raise _wrong(f"{PROJECTION}: {error}") from error
        found = (projection.width_in, projection.width, projection.fingerprint(base.fingerprint))
        wanted = (base.width, told.width, told.fingerprint)
        if found != wanted:
            raise _wrong(
                f"its projection must be from and to the widths, and of the fingerprint, {wanted}; got {found}"
            )
        now = self._core.clock()
        facts = {name: self._embedding[name] for name in ("specification", "weights")}
        identity = {**base.identity, "projection": projection.sha256(), "fingerprint": told.fingerprint}
        more = told.model_dump(include={"fingerprint", "width", "method", "parameters", "seed", "report"})
        row = add_embedding(
            session,
            base.collection_id,
            {
                **facts,
                **more,
                "identity": identity,
                "base_id": base.id,
                "state_sha256": told.sha256,
                "activated_at": now,
            },
            now,
        )
        add_parts(session, row.id, data)
        session.get_one(CollectionRow, base.collection_id).previous_embedding_id = base.id
        return row

    def _fill_images(self) -> None:
        manifest, width = self._manifest, self._embedding["width"]
        line_max = self._core.settings.json_limit_bytes + LINE_SPARE_BYTES
        lines = self._lines("images.jsonl", manifest.images, line_max, ImageFacts)
        start, _ = self._members["vectors.f32"]
        done = 0
        while batch := list(itertools.islice(lines, BATCH_ROWS)):
            self._context.progress(done, manifest.images, "restoring")
            data = _at(self._handle, start + done * width * 4, len(batch) * width * 4)
            vectors = np.frombuffer(data, "<f4").reshape(len(batch), width)
            self._check_batch(batch, vectors, done)
            with self._core.database.write() as session:
                pks = repository.add_images(session, [self._image_row(one) for one in batch])
                repository.add_vectors(session, self._vector_rows(batch, pks, vectors))
            self._pks[done : done + len(batch)] = pks
            done += len(batch)

    def _check_batch(self, batch: Sequence[ImageFacts], vectors: Vectors, done: int) -> None:
        if not np.isfinite(vectors).all():
            raise _wrong(f"vectors.f32 holds numbers that are not finite, behind row {done}")
        for place, one in enumerate(batch):
            if one.runtime >= len(self._runtimes):
                raise _wrong(f"line {done + place + 1} of images.jsonl: `runtime` {one.runtime} is not in the manifest")
            if self._manifest.with_images and not self._core.store.exists(one.sha256):
                raise _wrong(f"line {done + place + 1} of images.jsonl: the bytes {one.sha256} are not among its files")

    def _image_row(self, one: ImageFacts) -> dict[str, Any]:
        return {
            "collection_id": self._collection_id,
            "image_id": one.id,
            "sha256": one.sha256,
            "pixel_sha256": one.pixel_sha256,
            "role": one.role,
            "role_before": one.role_before,
            "label": one.label,
            "group": one.group,
            "details": one.metadata,
            "format": one.format,
            "width": one.width,
            "height": one.height,
            "size_bytes": one.bytes,
            "sequence": SEQUENCE,
            "created_at": one.created_at,
            "updated_at": one.updated_at,
        }

    def _vector_rows(self, batch: Sequence[ImageFacts], pks: Sequence[int], vectors: Vectors) -> list[dict[str, Any]]:
        return [
            {
                "image_pk": pk,
                "embedding_id": embedding_id,
                "runtime_id": self._runtimes[one.runtime],
                "vector": vector.astype("<f4").tobytes(),
            }
            for embedding_id, found in self._versions.of_base(vectors).items()
            for one, pk, vector in zip(batch, pks, found, strict=True)
        ]

    def _fill_groups(self) -> None:
        for one in self._lines("groups.jsonl", self._manifest.groups, GROUP_LINE_BYTES, GroupFacts):
            self._context.check()
            if len(set(one.members)) != len(one.members) or max(one.members, default=0) >= max(self._pks.size, 1):
                raise _wrong(f"group `{one.name}` names an image twice, or one that is not there")
            row = GroupRow(
                collection_id=self._collection_id,
                name=one.name,
                details=one.metadata,
                sequence=SEQUENCE,
                created_at=one.created_at,
                updated_at=one.updated_at,
            )
            with self._core.database.write() as session:
                repository.add_group(session, row, self._pks[one.members].tolist() if one.members else [])

    def _fill_feedback(self) -> None:
        line_max = self._core.settings.json_limit_bytes + LINE_SPARE_BYTES
        rows = self._lines("feedback.jsonl", self._manifest.feedback, line_max, FeedbackFacts)
        while batch := list(itertools.islice(rows, BATCH_ROWS)):
            self._context.check()
            with self._core.database.write() as session:
                session.add_all(
                    FeedbackRow(id=new_id(one.created_at), collection_id=self._collection_id, **one.model_dump())
                    for one in batch
                )

    def _fill_bank(self) -> None:
        if "bank.json" not in self._members:
            return
        (facts,) = self._lines("bank.json", 1, self._members["bank.json"][1], BankFacts)
        arrays = {
            name: np.frombuffer(_at(self._handle, *self._members[f"bank_{name}.bin"]), kind).copy()
            for name, kind in BANK_ARRAYS.items()
        }
        rows, members = arrays["centre_pks"].size, arrays["member_pks"].size
        if (
            arrays["centres"].size != rows * answering(self._manifest).width
            or not np.isfinite(arrays["centres"]).all()
            or {arrays[name].size for name in ("member_marks", "member_places")} != {members}
            or not ((arrays["member_places"] >= -1) & (arrays["member_places"] < rows)).all()
        ):
            raise _wrong("the arrays of its compressed bank do not fit together")
        for name in ("centre_pks", "member_pks"):
            numbers = arrays[name]
            there = numbers >= 0
            if (numbers >= self._pks.size).any() or (numbers[~there] > GONE).any():
                raise _wrong("its compressed bank names an image that is not there")
            numbers[there] = self._pks[numbers[there]]
        with self._core.database.write() as session:
            row = CompressionRow(
                collection_id=self._collection_id,
                embedding_id=self._embedding_id,
                sequence=SEQUENCE,
                **facts.model_dump(),
                **{name: array.tobytes() for name, array in arrays.items()},
            )
            session.add(row)

    def _lines(self, name: str, count: int, line_max: int, kind: type[Facts]) -> Iterator[Facts]:
        """The lines of a member; there must be as many as the manifest says."""
        position, size = self._members[name]
        end = position + size
        number = 0
        while position < end:
            number += 1
            self._handle.seek(position)
            line = self._handle.readline(min(line_max + 1, end - position))
            position += len(line)
            if len(line) > line_max:
                raise TooLarge(
                    f"Line {number} of {name} must have at most {line_max} bytes; the setting ODDITY_JSON_LIMIT_BYTES "
                    "raises that.",
                    "snapshot_line_too_large",
                )
            if number > count:
                break
            try:
                yield kind.model_validate(plain_json(json.loads(line)))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"]))
                raise _wrong(f"line {number} of {name}: `{where}`: {first['msg']}") from error
            except (ValueError, RecursionError) as error:
                raise _wrong(f"line {number} of {name}: {error}") from error
        if number != count:
            raise _wrong(f"{name} must have {count} lines, as the manifest says; got {number} or more")


def _publish(core: Core, context: JobContext, manifest: Manifest, hidden: str, name: str) -> dict[str, Any]:
    """Give the hidden collection its name, and end the job, in one transaction."""
    result = {
        "collection": name,
        "images": manifest.images,
        "groups": manifest.groups,
        "feedback": manifest.feedback,
        "files": manifest.files,
        "fingerprint": answering(manifest).fingerprint,
        "made_from": manifest.collection,
        "made_at": f"{manifest.created_at.isoformat(timespec='milliseconds')}Z",
        "revision": SEQUENCE,
        **_not_restored(manifest, name),
    }
    with core.database.write() as session:
        refuse_taken(session, name)
        row = find(session, hidden)
        if row is None:
            raise LeaseLost
        row.name, row.updated_at = name, core.clock()
        try:
            session.flush()
        except IntegrityError as error:  # made since by somebody else
            raise _taken(name) from error
        context.conclude(session, result)
    return result


def _not_restored(manifest: Manifest, name: str) -> dict[str, Any]:
    """The fitted scorers that the collection had: named with their recipes, so that they can be fitted again."""
    if not manifest.scorers:
        return {}
    told = ", ".join(f"`{one.id}`" for one in manifest.scorers)
    return {
        "scorers_dropped": [one.model_dump() for one in manifest.scorers],
        "notice": f"What a scorer learnt is not part of a snapshot. Fit again what is still wanted: {told}, with "
        f"PUT /v1/collections/{name}/scorers/ and the id.",
    }


def answering(manifest: Manifest) -> EmbeddingFacts | ProjectionFacts:
    """What the collection answered by."""
    return manifest.projection or manifest.embedding


def refuse_taken(session: Session, name: str) -> None:
    """Raise Conflict where there is a collection of this name: a restore never replaces one."""
    if find(session, name) is not None:
        raise _taken(name)


def _taken(name: str) -> Conflict:
    return Conflict(
        f"Collection `{name}` exists; restore into a new name, then delete the one that is not wanted.",
        "collection_exists",
    )


def _store_files(core: Core, context: JobContext, handle: IO[bytes], checked: Checked) -> None:
    """Put the images' bytes into the store, where they are named by what they are and disturb nobody."""
    position = checked.files_at
    most = core.settings.image_limit_bytes
    batch: list[tuple[str, bytes]] = []
    for number, (sha256, size) in enumerate(_files(handle, checked.members)):
        context.progress(number, checked.manifest.files, "storing images")
        if size > most:
            raise TooLarge(
                f"An image must have at most {most} bytes; got {size}. The setting ODDITY_IMAGE_LIMIT_BYTES raises "
                "that.",
                "image_too_large",
            )
        batch.append((sha256, _at(handle, position + 512, size)))
        position += 512 + size + -size % 512
        if len(batch) == BATCH_FILES or sum(len(data) for _, data in batch) >= BATCH_BYTES:
            core.store.put(batch)
            batch = []
    core.store.put(batch)


def _files(handle: IO[bytes], members: dict[str, tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """Hash and size of each image's bytes."""
    position, size = members.get("files.txt", (0, 0))
    end = position + size
    while position < end:
        handle.seek(position)
        line = handle.readline(min(128, end - position))
        position += len(line)
        match = _FILE.fullmatch(line)
        if match is None:
            raise _wrong("files.txt holds a line that is no hash and size")
        yield match[1].decode(), int(match[2])


def _check_members(manifest: Manifest, members: dict[str, tuple[int, int]]) -> None:
    needed = set(PARTS) - {"bank.json"} | ({"files.txt"} if manifest.with_images else set())
    bank = {"bank.json", *(f"bank_{name}.bin" for name in BANK_ARRAYS)}
    needed |= set() if manifest.projection is None else {PROJECTION}
    if set(members) not in (needed, needed | bank) or len(members) != len(manifest.members):
        raise _wrong(f"its members must be {', '.join(sorted(needed))}; got {', '.join(members)}")
    wanted = manifest.images * manifest.embedding.width * 4
    if members["vectors.f32"][1] != wanted:
        raise _wrong(
            f"vectors.f32 must have {wanted} bytes, for {manifest.images} images of width {manifest.embedding.width}; "
            f"got {members['vectors.f32'][1]}"
        )


@contextmanager
def _file(core: Core, parameters: dict[str, Any]) -> Iterator[IO[bytes]]:
    if "upload" in parameters:
        with consumed(uploads_folder(core), parameters["upload"]) as path, path.open("rb") as handle:
            yield handle
        return
    try:
        kept = snapshot_path(core, parameters["snapshot"]).open("rb")
    except FileNotFoundError as error:
        raise NotFound(f"The file of snapshot `{parameters['snapshot']}` is gone.", "snapshot_unknown") from error
    with kept as handle:
        yield handle


def _sweep(core: Core, own: str) -> None:
    """Delete what restores left that were killed: this one's earlier run, and jobs that will not be run again."""
    with core.database.read() as session:
        found = repository.hidden(session)
        living = repository.living_jobs(session, {name.rpartition("/")[2] for name in found.values()})
    for collection_id, name in found.items():
        if name == own or name.rpartition("/")[2] not in living:
            _drop(core, collection_id)


def _drop(core: Core, collection_id: int) -> None:
    with core.database.write() as session:
        drop(session, collection_id)


def _at(handle: IO[bytes], position: int, size: int) -> bytes:
    handle.seek(position)
    return handle.read(size)


def _wrong(what: str) -> Invalid:
    return Invalid(f"The snapshot cannot be used: {what}. Nothing was restored.", "snapshot_invalid")
