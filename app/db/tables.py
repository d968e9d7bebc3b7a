"""The record: table classes without behaviour.

Every change of a collection takes the next value of `collections.sequence` inside its own transaction (a counter
row, not a database sequence, because those become visible out of order). Followers read the rows and deletions
above the sequence they know.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Date,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.clock import utc_now
from app.vector_checksums import checksum_of_row

# SQLite counts rows up by itself only for the exact type INTEGER.
BigId = BigInteger().with_variant(Integer, "sqlite")
# In the order of code points on both databases, whatever the locale of the server.
OrderedName = String(128).with_variant(String(128, collation="C"), "postgresql")
# SQLite otherwise gives the number of a deleted last row to the next one: a process that follows the record would take
# a collection that was deleted and made again for the one it knows.
NEVER_AGAIN = {"sqlite_autoincrement": True}


class Base(DeclarativeBase):
    """Parent of every table."""


class CollectionRow(Base):
    """A named set of images with one active embedding."""

    __tablename__ = "collections"
    __table_args__ = NEVER_AGAIN

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(OrderedName, unique=True)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    embedding_id: Mapped[int] = mapped_column(BigId, default=0)  # active row of `embeddings`
    previous_embedding_id: Mapped[int | None] = mapped_column(BigInteger, default=None)  # active before that one
    # The change that made it active: a state that knows an earlier one answers by the embedding before.
    embedding_sequence: Mapped[int] = mapped_column(BigInteger, default=0)
    sequence: Mapped[int] = mapped_column(BigInteger, default=0)  # one step a change
    # Deletions up to here are no longer kept: a follower that knows less must read the collection afresh.
    pruned_sequence: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    bank_note: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)  # why calibration is biased, if so
    index_version: Mapped[int] = mapped_column(
        BigInteger, default=0
    )  # one step each time that states are to be renewed
    created_at: Mapped[datetime] = mapped_column(DateTime)
    updated_at: Mapped[datetime] = mapped_column(DateTime)


class EmbeddingRow(Base):
    """A version of a collection's embedding: what vectors must share to be comparable.

    A version is a network's own vectors (`base_id` null) or a projection of those, which its parts hold. Every write of
    an image gives it a vector under each version of the active base; what was there before, a job fills in.
    """

    __tablename__ = "embeddings"
    __table_args__ = NEVER_AGAIN

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), index=True)
    specification: Mapped[dict[str, Any]] = mapped_column(JSON)
    identity: Mapped[dict[str, Any]] = mapped_column(JSON)
    fingerprint: Mapped[str] = mapped_column(String(64))
    weights: Mapped[str] = mapped_column(String(1024))
    width: Mapped[int] = mapped_column(Integer)
    base_id: Mapped[int | None] = mapped_column(BigInteger, default=None)
    is_complete: Mapped[bool] = mapped_column(default=True)  # every image has its vector
    job_id: Mapped[str | None] = mapped_column(String(36), default=None)  # that learnt it
    method: Mapped[str | None] = mapped_column(String(64), default=None)
    parameters: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    seed: Mapped[int | None] = mapped_column(BigInteger, default=None)
    sequence: Mapped[int | None] = mapped_column(BigInteger, default=None)  # the change that was learnt from
    report: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)  # figures before and after
    state_sha256: Mapped[str | None] = mapped_column(String(64), default=None)  # of its parts together
    activated_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)  # last
    created_at: Mapped[datetime] = mapped_column(DateTime)


class EmbeddingPartRow(Base):
    """A piece of the matrices of a projection: together, in order, a safetensors file."""

    __tablename__ = "embedding_parts"

    embedding_id: Mapped[int] = mapped_column(ForeignKey("embeddings.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class RuntimeRow(Base):
    """Engine, precision and versions that computed a batch of vectors."""

    __tablename__ = "runtimes"

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    description: Mapped[dict[str, Any]] = mapped_column(JSON)


class ImageRow(Base):
    """An image of a collection; its bytes lie in the image store under `sha256`."""

    __tablename__ = "images"
    __table_args__ = (
        UniqueConstraint("collection_id", "image_id"),
        Index("ix_images_sequence", "collection_id", "sequence", "id"),
        Index("ix_images_arrival", "collection_id", "id"),  # for pages in order of arrival
        Index("ix_images_sha256", "sha256"),
        NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    image_id: Mapped[str] = mapped_column(String(256))
    sha256: Mapped[str] = mapped_column(String(64))
    pixel_sha256: Mapped[str | None] = mapped_column(String(64), default=None)  # where a search has needed it
    role: Mapped[str] = mapped_column(String(16))
    role_before: Mapped[str | None] = mapped_column(String(16), default=None)  # of an `example`: what it was until then
    label: Mapped[str | None] = mapped_column(String(128), default=None)
    group: Mapped[str | None] = mapped_column("group_name", String(128), default=None)
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    format: Mapped[str] = mapped_column(String(16))
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sequence: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime)
    updated_at: Mapped[datetime] = mapped_column(DateTime)


class VectorRow(Base):
    """The embedding of one image: `width` little-endian float32."""

    __tablename__ = "vectors"
    __table_args__ = (Index("ix_vectors_embedding", "embedding_id"),)  # for the end of an embedding

    image_pk: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    embedding_id: Mapped[int] = mapped_column(ForeignKey("embeddings.id", ondelete="CASCADE"), primary_key=True)
    runtime_id: Mapped[int] = mapped_column(ForeignKey("runtimes.id"))
    vector: Mapped[bytes] = mapped_column(LargeBinary)
    checksum: Mapped[int | None] = mapped_column(BigInteger, default=checksum_of_row)  # null: from before there was one


class DeletionRow(Base):
    """An image or a group that is gone, for processes that follow the record. A group's images may stay."""

    __tablename__ = "deletions"
    __table_args__ = (Index("ix_deletions_sequence", "collection_id", "sequence"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    image_pk: Mapped[int | None] = mapped_column(BigInteger, default=None)
    group_pk: Mapped[int | None] = mapped_column(BigInteger, default=None)
    sequence: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime | None] = mapped_column(DateTime, default=utc_now)  # when it may be pruned


class GroupRow(Base):
    """A registered normal set of images."""

    __tablename__ = "groups"
    __table_args__ = (
        UniqueConstraint("collection_id", "name"),
        Index("ix_groups_sequence", "collection_id", "sequence"),
        NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(128))
    details: Mapped[dict[str, Any]] = mapped_column("metadata", JSON)
    sequence: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime)
    updated_at: Mapped[datetime] = mapped_column(DateTime)


class GroupMemberRow(Base):
    """An image in a registered set, at its place (concatenation pools in this order)."""

    __tablename__ = "group_members"
    __table_args__ = (Index("ix_group_members_image", "image_pk"),)

    group_pk: Mapped[int] = mapped_column(ForeignKey("groups.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    image_pk: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"))


class FeedbackRow(Base):
    """What a person said about an image or two, with what it changed, so that it can be undone."""

    __tablename__ = "feedback"

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    image_id: Mapped[str] = mapped_column(String(256))
    sha256: Mapped[str] = mapped_column(String(64))  # the bytes that were meant
    role_before: Mapped[str | None] = mapped_column(String(16))  # null: the feedback brought the image
    role_after: Mapped[str] = mapped_column(String(16))
    # A comparison: `image_id` is the left one, this the right one.
    other_image_id: Mapped[str | None] = mapped_column(String(256), default=None)
    other_sha256: Mapped[str | None] = mapped_column(String(64), default=None)
    answer: Mapped[str | None] = mapped_column(String(16), default=None)  # left, right, same, cannot_say
    value: Mapped[float | None] = mapped_column(default=None)  # a rating
    rater: Mapped[str | None] = mapped_column(String(128), default=None)
    note: Mapped[str | None] = mapped_column(Text, default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime)
    undone_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)


class JobRow(Base):
    """Long work: this row is the truth about it."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_state", "state", "created_at"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(String(32))
    collection_id: Mapped[int | None] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), index=True)
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    state: Mapped[str] = mapped_column(String(16))  # queued, running, succeeded, failed, cancelled
    done: Mapped[int] = mapped_column(BigInteger, default=0)
    total: Mapped[int | None] = mapped_column(BigInteger, default=None)
    stage: Mapped[str] = mapped_column(String(128), default="")
    stage_started_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)  # the rate is counted from here
    attempts: Mapped[int] = mapped_column(Integer, default=0)  # how often it was begun
    log: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON, default=None)  # lines, oldest first: at, text
    result: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    problem: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    lease_owner: Mapped[str | None] = mapped_column(String(64), default=None)
    lease_until: Mapped[datetime | None] = mapped_column(DateTime, default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime)
    started_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)
    finished_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)


class CleaningRow(Base):
    """An image that a cleaning took out of the bank; undoing puts it back."""

    __tablename__ = "cleanings"
    __table_args__ = (Index("ix_cleanings_image", "image_pk"),)  # for the end of an image

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    image_pk: Mapped[int] = mapped_column(ForeignKey("images.id", ondelete="CASCADE"), primary_key=True)
    score: Mapped[float] = mapped_column()


class CompressionRow(Base):
    """A small bank that stands for the whole one: centres or chosen images, and the rows kept for calibration."""

    __tablename__ = "compressions"

    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True)
    method: Mapped[str] = mapped_column(String(16))
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    report: Mapped[dict[str, Any]] = mapped_column(JSON)
    embedding_id: Mapped[int] = mapped_column(BigInteger)
    sequence: Mapped[int] = mapped_column(BigInteger)  # the change of the collection that made it
    centres: Mapped[bytes] = mapped_column(LargeBinary)  # (m, width) little-endian float32
    centre_pks: Mapped[bytes] = mapped_column(LargeBinary)  # (m,) int64: nearest member or the image itself
    member_pks: Mapped[bytes] = mapped_column(LargeBinary)  # (n,) int64: the whole bank it was made from
    member_marks: Mapped[bytes] = mapped_column(LargeBinary)  # (n,) uint64 of each image's bytes: is it still the same?
    member_places: Mapped[bytes] = mapped_column(LargeBinary)  # (n,) int32: centre; -1: set aside to calibrate
    created_at: Mapped[datetime] = mapped_column(DateTime)


class ScorerRow(Base):
    """A scorer of a collection under the name its caller gave: what was asked for, and the fit that serves."""

    __tablename__ = "scorers"
    __table_args__ = (UniqueConstraint("collection_id", "name"), NEVER_AGAIN)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(OrderedName)
    method: Mapped[str] = mapped_column(String(64))  # with parameters and seed: what the newest PUT asked for
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    seed: Mapped[int] = mapped_column(BigInteger)
    job_id: Mapped[str] = mapped_column(String(36))  # of the newest PUT
    fit_id: Mapped[int | None] = mapped_column(BigInteger, default=None)  # serves; null until a fit has succeeded
    created_at: Mapped[datetime] = mapped_column(DateTime)
    updated_at: Mapped[datetime] = mapped_column(DateTime)


class FitRow(Base):
    """What one fit of a scorer learnt; never changed, only replaced by the next."""

    __tablename__ = "fits"
    __table_args__ = NEVER_AGAIN

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    scorer_id: Mapped[int] = mapped_column(ForeignKey("scorers.id", ondelete="CASCADE"), index=True)
    method: Mapped[str] = mapped_column(String(64))
    parameters: Mapped[dict[str, Any]] = mapped_column(JSON)
    seed: Mapped[int] = mapped_column(BigInteger)
    sequence: Mapped[int] = mapped_column(BigInteger)  # the change of the collection that was fitted on
    embedding_id: Mapped[int] = mapped_column(BigInteger)
    fingerprint: Mapped[str] = mapped_column(String(64))
    seconds: Mapped[float] = mapped_column()
    state_sha256: Mapped[str] = mapped_column(String(64))
    state_bytes: Mapped[int] = mapped_column(BigInteger)
    fitted_images: Mapped[int] = mapped_column(Integer)
    answers: Mapped[int | None] = mapped_column(Integer, default=None)  # comparisons that stood then
    runtime: Mapped[dict[str, Any] | None] = mapped_column(JSON, default=None)  # engine, precision… it was made under
    calibration: Mapped[bytes] = mapped_column(LargeBinary)  # (n,) float32: scores of images held out
    member_pks: Mapped[bytes] = mapped_column(LargeBinary)  # (N,) int64, ascending: the whole bank, held out or not
    member_marks: Mapped[bytes] = mapped_column(LargeBinary)  # (N,) uint64 of each image's bytes
    heat_low: Mapped[float | None] = mapped_column(default=None)  # the one scale of its heat maps, where it gives any
    heat_border: Mapped[float | None] = mapped_column(default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime)


class FitPartRow(Base):
    """A piece of the state of a fit: together, in order, a safetensors file."""

    __tablename__ = "fit_parts"

    fit_id: Mapped[int] = mapped_column(ForeignKey("fits.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(Integer, primary_key=True)
    data: Mapped[bytes] = mapped_column(LargeBinary)


class PValueRow(Base):
    """P-values of a collection's answers within one hour, counted; see `app.drift`."""

    __tablename__ = "p_values"
    __table_args__ = (Index("ix_p_values_at", "at"),)  # for the end of old ones

    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"), primary_key=True)
    scorer: Mapped[str] = mapped_column(OrderedName, primary_key=True)
    at: Mapped[datetime] = mapped_column(DateTime, primary_key=True)  # the full hour
    counts: Mapped[list[int]] = mapped_column(JSON)  # at the edges of models.drift
    expected: Mapped[list[float]] = mapped_column(JSON)  # up to each of them
    calibration_n: Mapped[int] = mapped_column(Integer)  # fewest calibration images behind an answer


class IdempotencyRow(Base):
    """The answer once given under an Idempotency-Key."""

    __tablename__ = "idempotency_keys"

    scope: Mapped[str] = mapped_column(String(512), primary_key=True)  # method and path
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    body_sha256: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(Integer)
    body: Mapped[dict[str, Any]] = mapped_column(JSON)
    created_at: Mapped[datetime] = mapped_column(DateTime, index=True)


class ImportRow(Base):
    """How far an import has come; written with each batch, so that it goes on there after any interruption."""

    __tablename__ = "imports"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[list[Any] | None] = mapped_column(JSON)  # place of the last file dealt with
    counts: Mapped[dict[str, int]] = mapped_column(JSON)


class ImportProblemRow(Base):
    """A file that an import could not take, and why."""

    __tablename__ = "import_problems"
    __table_args__ = (Index("ix_import_problems_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)
    code: Mapped[str] = mapped_column(String(64))
    status: Mapped[int] = mapped_column(Integer)
    detail: Mapped[str] = mapped_column(Text)


class DuplicateRow(Base):
    """An image in a set of duplicates that a job found; ids, not keys: what was found stays as it was told."""

    __tablename__ = "duplicates"
    __table_args__ = (Index("ix_duplicates_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    level: Mapped[str] = mapped_column(String(16))  # exact_bytes, exact_pixels, near, similar
    number: Mapped[int] = mapped_column(Integer)  # of the set within its level
    size: Mapped[int] = mapped_column(Integer)  # of the set
    image_id: Mapped[str] = mapped_column(String(256))
    nearest_id: Mapped[str | None] = mapped_column(String(256))  # of the others of its set
    distance: Mapped[float | None] = mapped_column()
    hash_distance: Mapped[int | None] = mapped_column(Integer)
    copies: Mapped[int] = mapped_column(Integer)  # images with the same bytes or pixels that it stands for


class SnapshotRow(Base):
    """A snapshot file; it outlives its collection, and is found by the name that had."""

    __tablename__ = "snapshots"
    __table_args__ = (Index("ix_snapshots_collection", "collection", "id"),)

    id: Mapped[str] = mapped_column(String(36), primary_key=True)  # of the job that made it
    collection: Mapped[str] = mapped_column(OrderedName)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)  # counts, embedding, revision
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime] = mapped_column(DateTime)


class IndexFileRow(Base):
    """A file with a collection's state at a sequence, vouched for on whichever machine it lies."""

    __tablename__ = "index_files"
    __table_args__ = (Index("ix_index_files_collection", "collection_id", "id"), NEVER_AGAIN)

    id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=True)
    collection_id: Mapped[int] = mapped_column(ForeignKey("collections.id", ondelete="CASCADE"))
    embedding_id: Mapped[int] = mapped_column(BigInteger)
    sequence: Mapped[int] = mapped_column(BigInteger)
    digest: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime)


class ApiKeyRow(Base):
    """A key: what it may do, and hashes of the token it is presented as. Revoked ones stay, for the audit log."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(OrderedName, unique=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    former_sha256: Mapped[str | None] = mapped_column(String(64), default=None)  # before the newest rotation
    former_until: Mapped[datetime | None] = mapped_column(DateTime, default=None)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    collections: Mapped[list[str]] = mapped_column(JSON)  # names, or beginnings of names that end in `*`
    requests_per_s: Mapped[float | None] = mapped_column(default=None)
    requests_per_day: Mapped[int | None] = mapped_column(BigInteger, default=None)
    created_at: Mapped[datetime] = mapped_column(DateTime)
    rotated_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)
    expires_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)
    last_used_at: Mapped[datetime | None] = mapped_column(DateTime, default=None)  # to within a minute


class KeyUsageRow(Base):
    """How many requests a key with a daily quota has made on a day in UTC."""

    __tablename__ = "key_usage"

    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[date] = mapped_column(Date, primary_key=True)
    requests: Mapped[int] = mapped_column(BigInteger)


class AccessRow(Base):
    """The one row that every change of keys counts up, so that a look at it tells whether there was one."""

    __tablename__ = "access"

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    version: Mapped[int] = mapped_column(BigInteger)
