"""What a snapshot says, and the parameters of its paths."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.bodies import plain_json
from app.collections.settings import CollectionSettings
from app.images.schemas import Role
from app.names import ImageId, Name, Text

IMAGES_MAX = 10**9
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Metadata = Annotated[dict[str, Any], BeforeValidator(plain_json)]
SnapshotId = Annotated[str, Path(alias="id", pattern="^[0-9a-f]{32}$", description="Id of the snapshot.")]


def _naive(moment: datetime) -> datetime:
    if moment.tzinfo is not None:
        raise ValueError("must be in UTC, without a zone")
    return moment


Moment = Annotated[datetime, AfterValidator(_naive)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Member(_Part):
    """A member of the archive before the images."""

    name: Annotated[str, Field(pattern=r"^[a-z_.0-9]{1,64}$")]
    bytes: Annotated[int, Field(ge=0, le=2**44)]
    sha256: Sha256


class EmbeddingFacts(_Part):
    """What computed the vectors."""

    specification: dict[str, Any]
    identity: dict[str, Any]
    fingerprint: Sha256
    weights: Annotated[str, Field(max_length=1024)]
    width: Annotated[int, Field(ge=1, le=2**16)]


class ProjectionFacts(_Part):
    """What the collection answered by, where that was a projection of the vectors; its matrices are a member."""

    fingerprint: Sha256
    sha256: Sha256  # of the member
    width: Annotated[int, Field(ge=1, le=2**16)]
    method: Annotated[str, Field(max_length=64)]
    parameters: dict[str, Any]
    seed: Annotated[int, Field(ge=0)]
    report: dict[str, Any]


class ScorerFacts(_Part):
    """A fitted scorer by its recipe; what it learnt is not part of a snapshot."""

    id: Name
    method: Annotated[str, Field(max_length=64)]
    params: dict[str, Any]
    seed: Annotated[int, Field(ge=0)]


class Manifest(_Part):
    """manifest.json."""

    format: Literal[1, 2, 3]  # from 2 on there may be a projection, from 3 on images without a hash of their pixels
    oddity: str
    collection: Name
    created_at: Moment
    settings: CollectionSettings
    bank_note: dict[str, Any] | None
    embedding: EmbeddingFacts
    projection: ProjectionFacts | None = None
    runtimes: Annotated[list[dict[str, Any]], Field(max_length=10_000)]
    revision: int
    images: Annotated[int, Field(ge=0, le=IMAGES_MAX)]
    groups: Annotated[int, Field(ge=0, le=IMAGES_MAX)]
    feedback: Annotated[int, Field(ge=0, le=IMAGES_MAX)]
    files: Annotated[int, Field(ge=0, le=IMAGES_MAX)]  # image bytes that follow; 0 where they were left out
    with_images: bool
    members: Annotated[list[Member], Field(max_length=16)]
    scorers: Annotated[list[ScorerFacts], Field(max_length=1000)] = []


class ImageFacts(_Part):
    """A line of images.jsonl."""

    id: ImageId
    sha256: Sha256
    pixel_sha256: Sha256 | None
    role: Role
    role_before: Role | None = None
    label: Name | None
    group: Name | None
    metadata: Metadata
    format: Annotated[str, Field(max_length=16)]
    width: Annotated[int, Field(ge=1, le=10**6)]
    height: Annotated[int, Field(ge=1, le=10**6)]
    bytes: Annotated[int, Field(ge=1, le=2**31)]
    created_at: Moment
    updated_at: Moment
    runtime: Annotated[int, Field(ge=0)]


class GroupFacts(_Part):
    """A line of groups.jsonl."""

    name: Name
    metadata: Metadata
    members: list[Annotated[int, Field(ge=0)]]
    created_at: Moment
    updated_at: Moment


class FeedbackFacts(_Part):
    """A line of feedback.jsonl."""

    kind: Annotated[str, Field(max_length=32)]
    image_id: ImageId
    sha256: Sha256
    role_before: Role | None
    role_after: Role
    other_image_id: ImageId | None = None
    other_sha256: Sha256 | None = None
    answer: Annotated[str | None, Field(max_length=16)] = None
    value: Annotated[float | None, Field(allow_inf_nan=False)] = None
    rater: Annotated[Text | None, Field(max_length=128)] = None
    note: Text | None
    created_at: Moment
    undone_at: Moment | None


class BankFacts(_Part):
    """bank.json: a compressed bank; its arrays are members of their own."""

    method: Literal["kmeans", "coreset"]
    parameters: dict[str, Any]
    report: dict[str, Any]
    created_at: Moment


class RestoreParameters(_Part):
    """Parameters of POST /restore."""

    snapshot: Annotated[
        str | None, Field(pattern="^[0-9a-f]{32}$", description="Id of a snapshot of this service, instead of a file.")
    ] = None
