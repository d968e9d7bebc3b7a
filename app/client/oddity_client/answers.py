"""What the service answers, typed. Fields may be added by newer servers: they are kept, and found as attributes."""

import base64
from array import array
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

Role = Literal["normal", "anomalous", "unlabelled", "example"]
JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
T = TypeVar("T")


class Answer(BaseModel):
    """Base of all answers: unknown fields are kept, nothing can be changed."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class Page(Answer, Generic[T]):
    """One page of a list."""

    items: list[T]
    next: str | None = None


class Problem(Answer):
    """Why one item of a request could not be dealt with."""

    code: str
    detail: str
    status: int | None = None


class ItemProblem(Answer):
    """Stands in the place of a result, where an image could not be read."""

    problem: Problem


# Collections and images


class CollectionRecord(Answer):
    """A collection: what it is set to, and what it holds."""

    name: str
    backbone: str
    weights: str
    stages: list[int]
    image_size: int | None
    fit: str
    pooling: str = "mean"
    metric: str
    normalize: bool
    k: int
    neighbours: int
    false_alarm_rate: float
    description: str
    fingerprint: str
    embedding: dict[str, Any]
    embedding_version: int
    weights_label: str
    runtime: dict[str, Any] | None = None
    """What computed the first of its vectors: engine, precision, and what they may be compared with."""
    width: int
    images: int
    roles: dict[str, int]
    revision: int
    sequence: int
    created_at: datetime
    updated_at: datetime


class ImageRecord(Answer):
    """What is known of a stored image."""

    id: str
    sha256: str
    pixel_sha256: str | None
    """Of size and pixels; None until a search for duplicates has needed it."""
    role: Role
    label: str | None
    group: str | None
    metadata: dict[str, Any]
    format: str
    width: int
    height: int
    bytes: int
    sequence: int
    created_at: datetime
    updated_at: datetime


class AddedImage(Answer):
    """What became of one image that was sent."""

    id: str
    status: Literal["created", "updated", "duplicate", "refused"]
    sha256: str | None
    problem: Problem | None = None
    before: dict[str, Any] | None = None  # role and label of a stored image that a class has taken


class AddedImages(Answer):
    """What became of the images of a request, in order."""

    items: list[AddedImage]
    created: int
    updated: int
    duplicate: int
    refused: int
    sequence: int


class DeletedImages(Answer):
    """How many images were deleted, and which ids were not there."""

    deleted: int
    missing: list[str]
    sequence: int


# Scores, searches, sets, classes


class Neighbour(Answer):
    """A stored image and how far it is."""

    id: str
    distance: float
    metadata: dict[str, Any] = {}


class Calibration(Answer):
    """What a verdict promises: on how many images it rests, and the rate that these support."""

    n: int
    requested: float
    supported: bool
    false_alarm_rate: float
    threshold: float | None
    spread: list[float] | None = None
    biased: dict[str, Any] | None = None


class HeatMap(Answer):
    """Where in the image it is strange, on a scale that is fixed for the scorer."""

    shape: list[int]
    values: str  # base64 of little-endian float32, row by row
    low: float
    border: float
    high: float
    region: dict[str, float]
    overlay: str  # a transparent PNG, as a data URL

    def rows(self) -> list[list[float]]:
        """The cells as numbers, row by row."""
        cells = array("f", base64.b64decode(self.values))
        height, width = self.shape
        return [cells[row * width : (row + 1) * width].tolist() for row in range(height)]


class ImageScore(Answer):
    """The score of one image: a larger one is stranger."""

    score: float
    p_value: float | None
    anomalous: bool | None
    neighbours: list[Neighbour] = []
    known_anomaly: Neighbour | None = None
    id: str | None = None
    flagged: bool | None = None
    took_part: bool | None = None
    heatmap: HeatMap | None = None
    details: dict[str, Any] = {}


class Scores(Answer):
    """Scores of the images of a request, in order."""

    scorer: str
    fingerprint: str
    weights: str
    k: int | None
    metric: str
    sequence: int
    calibration: Calibration
    results: list[ImageScore | ItemProblem]
    method: str | None = None
    fit: dict[str, Any] | None = None


class StoredScore(Answer):
    """A stored image and its score; on a map, also its place."""

    id: str
    role: Role
    label: str | None
    metadata: dict[str, Any]
    score: float
    p_value: float | None
    anomalous: bool | None = None
    took_part: bool | None = None  # a fitted scorer has learnt from it
    x: float | None = None
    y: float | None = None


class CalibrationScores(Calibration):
    """What verdicts promise, and the scores that they rest on, ascending."""

    scores: list[float]


class StoredScores(Answer):
    """Stored images by score, strangest first; on a map without a calibration."""

    scorer: str
    fingerprint: str
    weights: str
    k: int | None
    metric: str
    sequence: int
    stored: int
    images: list[StoredScore]
    calibration: CalibrationScores | None = None
    layout: str | None = None
    method: str | None = None
    fit: dict[str, Any] | None = None


class Found(Answer):
    """The nearest images of each query, nearest first."""

    fingerprint: str
    weights: str
    metric: str
    sequence: int
    exact: bool
    results: list[list[Neighbour] | ItemProblem]


class GroupRecord(Answer):
    """A registered set of images."""

    name: str
    members: list[str]
    metadata: dict[str, Any]
    refused: list[AddedImage] = []
    sequence: int | None = None


class GroupNeighbour(Answer):
    """A normal set and how far it is; sets drawn from the bank have no name, which `id` is."""

    id: str | None
    distance: float
    members: list[str]
    metadata: dict[str, Any] = {}


class GroupMember(Answer):
    """How much of a set's score an image brings, and its own score where images are what is scored."""

    share: float
    id: str | None = None
    score: float | None = None
    p_value: float | None = None
    took_part: bool | None = None


class GroupScore(Answer):
    """The score of a set of images, judged as one.

    `reference`: which normal sets it was judged among: `registered`, or drawn from the bank (`drawn`, `bank`) or from
    images held out of a fit (`held_out`).
    """

    scorer: str
    fingerprint: str
    weights: str
    pooling: str
    reference: str
    sequence: int
    calibration: Calibration
    score: float
    p_value: float | None
    anomalous: bool | None
    neighbours: list[GroupNeighbour]
    members: list[GroupMember | ItemProblem]
    method: str | None = None
    fit: dict[str, Any] | None = None


class ClassRecord(Answer):
    """A class that is known from a few images."""

    label: str
    count: int
    examples: list[str]
    created_at: datetime


class RegisteredClass(AddedImages):
    """What became of the images of a class."""

    label: str
    count: int
    released: list[str]


class Example(Neighbour):
    """An example of a class and how far it is."""

    label: str


class Classified(Answer):
    """Which class an image belongs to; `label` is None when it is near none of them."""

    label: str | None
    probabilities: dict[str, float]
    unknown: bool | None
    p_value: float | None
    score: float
    nearest: list[Example]
    id: str | None = None


class Classifications(Answer):
    """Classes of the images of a request, in order."""

    scorer: str
    fingerprint: str
    weights: str
    metric: str
    sequence: int
    classes: int
    calibration: Calibration
    results: list[Classified | ItemProblem]


class ShownExample(Neighbour):
    """A stored image that explains an answer."""

    thumbnail: str  # a path of the service


class ClassExamples(Answer):
    """The examples of one class that are nearest, nearest first."""

    label: str
    examples: list[ShownExample]


class Examples(Answer):
    """The nearest images of every kind; the nearest class first."""

    normal: list[ShownExample]
    anomalous: list[ShownExample]
    classes: list[ClassExamples]


class ExplanationMap(HeatMap):
    """How much each cell of an image has to do with `value`: the score, or the probability of a class."""

    target: Literal["score", "probability"]
    label: str | None
    value: float
    baseline: dict[str, Any]
    baseline_value: float
    evaluations: int


class Explained(Answer):
    """What a scorer says of one image, and why; of a score or of classes, as the scorer is."""

    score: float
    p_value: float | None
    examples: Examples
    map: ExplanationMap | None = None
    own: dict[str, Any] | None = None
    id: str | None = None
    anomalous: bool | None = None
    took_part: bool | None = None
    details: dict[str, Any] = {}
    label: str | None = None
    probabilities: dict[str, float] = {}
    unknown: bool | None = None


class Explanations(Answer):
    """Explanations of the images of a request, in order."""

    scorer: str
    explained_by: str
    fingerprint: str
    weights: str
    metric: str
    sequence: int
    calibration: Calibration
    results: list[Explained | ItemProblem]
    k: int | None = None
    method: str | None = None
    fit: dict[str, Any] | None = None
    classes: int | None = None


# Methods and fitted scorers


class Method(Answer):
    """The card of a method: where it comes from, what it needs, gives and can be told."""

    id: str
    title: str
    sentence: str
    live: bool
    status: str
    role: str
    paper: dict[str, Any]
    origin: str
    needs: dict[str, Any]
    gives: dict[str, Any]
    params: dict[str, Any]
    repeatable: str
    costs: dict[str, Any]
    replaced_by: str | None = None
    differs: list[str] = []
    beware: list[str] = []
    exceptions: dict[str, str] = {}


class Backbone(Answer):
    """A network that can be built, and where its weights come from."""

    id: str
    stage_widths: list[int]
    default_weights: str
    embedded: dict[str, Any] | None
    torchvision: dict[str, Any]


class Fit(Answer):
    """What a scorer was fitted on, and how stale that is."""

    method: str
    params: dict[str, Any]
    seed: int
    revision: int
    images: int
    calibration: dict[str, Any]
    fingerprint: str
    seconds: float
    bytes: int
    sha256: str
    heatmap: bool
    stale: dict[str, Any]
    findings: dict[str, Any] | None = None
    """What the method tells about the fit; in the answer about one scorer only."""
    fitted_at: datetime


class Scorer(Answer):
    """A scorer of a collection: live, or fitted."""

    id: str
    method: str
    state: str
    live: bool
    serving: bool
    params: dict[str, Any] = {}
    seed: int | None = None
    job: str | None = None
    problem: Problem | None = None
    fit: Fit | None = None


class EmbeddingVersion(Answer):
    """A version of a collection's embedding, with its figures beside the network's own vectors."""

    version: int
    state: str
    previous: bool
    fingerprint: str
    embedding: dict[str, Any]
    width: int
    base: int | None
    method: str | None
    params: dict[str, Any] | None
    seed: int | None
    job: str | None
    revision: int | None
    images: int
    before: dict[str, float] | None
    after: dict[str, float] | None
    better: bool | None
    details: dict[str, Any] | None
    created_at: datetime
    activated_at: datetime | None


class ActiveEmbedding(Answer):
    """Which version a collection answers by, and what that leaves behind."""

    active: int
    previous: int | None
    fingerprint: str
    sequence: int
    stale_scorers: list[str]


# Feedback, upkeep, jobs, snapshots


class Feedback(Answer):
    """What a person said: of a verdict, and what that changed; or of two images (`pair`); or of one (`rating`)."""

    id: str
    kind: str
    note: str | None
    created_at: datetime
    undone_at: datetime | None
    image: str | None = None
    sha256: str | None = None
    changed: dict[str, Any] = {}
    left: str | None = None
    right: str | None = None
    answer: str | None = None
    value: float | None = None
    rater: str | None = None
    sequence: int | None = None
    scorers: dict[str, str] = {}
    calibration: dict[str, Any] = {}


class NextPairs(Answer):
    """Pairs of images to compare next, and what chose them."""

    scorer: str | None
    chosen_by: str
    fit: dict[str, Any] | None
    answers: dict[str, Any]
    candidates: int
    pairs: list[dict[str, Any]]


class Drift(Answer):
    """Whether the images that are sent to be scored are still like the normal ones."""

    collection: str
    scorer: str
    n: int
    n_needed: int
    enough: bool
    drifted: bool | None
    direction: str | None
    p_value: float | None


class Progress(Answer):
    """How far a job is: `rate` in steps a second, `remaining_s` at that rate."""

    stage: str
    done: int
    total: int | None
    rate: float | None
    remaining_s: float | None


class JobLine(Answer):
    """A line of a job's log: what happened, and when."""

    at: datetime
    text: str


class Job(Answer):
    """Long work: its state, progress, log, and result or problem."""

    id: str
    kind: str
    collection: str | None
    state: JobState
    parameters: dict[str, Any]
    progress: Progress
    log: list[JobLine] = []
    attempts: int
    cancel_requested: bool
    result: dict[str, Any] | None
    problem: Problem | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def has_ended(self) -> bool:
        """Whether it will not change any more."""
        return self.state in ("succeeded", "failed", "cancelled")


class ImportProblem(Answer):
    """A file that an import could not take."""

    name: str
    problem: Problem


class Cleaning(Answer):
    """A cleaning of the bank: how many images it took out, and whether it was undone."""

    job: str
    fraction: float | None
    k: int | None
    scorer: str | None = None
    scored: int | None
    dropped: int | None
    largest_score_kept: float | None
    cleaned_at: datetime | None
    undone: dict[str, Any] | None


class CleanedImage(Answer):
    """An image that a cleaning took out."""

    id: str
    score: float
    role: Role


class Compression(Answer):
    """The small bank that stands for the whole one, and what that cost."""

    method: str
    size: int
    report: dict[str, Any]
    compressed_at: datetime
    now: dict[str, Any]


class IndexRecord(Answer):
    """What answers a collection's searches, and what it takes."""

    sequence: int
    exact: bool
    parts: dict[str, Any]
    bytes: int
    file: dict[str, Any] | None
    damaged: Any = None  # stored vectors that are no longer what was written, where any are known


class DuplicateImage(Answer):
    """A member of a set of duplicates."""

    id: str
    nearest: str | None
    distance: float | None
    hash_distance: int | None
    copies: int
    metadata: dict[str, Any] | None = None  # None once the image is deleted


class DuplicateSet(Answer):
    """Images that are the same, or nearly; a set that a page cuts goes on in the next entry of the same `group`."""

    level: str
    group: int
    size: int
    images: list[DuplicateImage]


class Snapshot(Answer):
    """A collection as it stood, in one file."""

    id: str
    collection: str
    images: int
    with_images: bool
    bytes: int
    sha256: str
    created_at: datetime


class ApiKey(Answer):
    """An API key without its token."""

    id: str
    name: str
    state: str
    scopes: list[str]
    collections: list[str]
    requests_per_s: float | None
    requests_per_day: int | None
    created_at: datetime
    rotated_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKey(ApiKey):
    """An API key with its token, which is told once."""

    token: str


class AuditEntry(Answer):
    """One request of the audit log; what more it holds is found as attributes."""


class Readiness(Answer):
    """Whether requests would be served."""

    status: str
    checks: dict[str, str] = {}
