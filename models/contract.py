"""What a method is: its card, its parameters, what it is given and what it gives back.

A method is the recipe of one paper. Fitting it to a collection gives a fitted scorer, which never changes
again and may therefore be called by many threads. A *live* method has no fit: its scorer follows the bank
as it changes.

Calibration is not a method's business: whoever fits holds images of the bank back, whole groups of them,
before `fit` sees any, and scores them afterwards with the code that serves. `fit` may use every image that
it is given.

Letters used in docstrings: B images, C channels, H W pixels, h w map cells, D vector width, N reference
images, K classes.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, ValidationError

from models.errors import ParameterInvalid
from models.projection import Projection

Progress = Callable[[int, int], None]
"""Called with (steps done, steps in all); raising from it cancels the work."""


class Need(StrEnum):
    """Something a collection must hold before a method can be fitted to it."""

    VECTORS = "vectors"
    MAPS = "maps"
    PIXELS = "pixels"
    LABELS = "labels"
    UNLABELLED = "unlabelled"
    GROUPS = "groups"
    SEQUENCE = "sequence"
    BOXES = "boxes"
    RATINGS = "ratings"
    PAIRS = "pairs"


class Give(StrEnum):
    """Something a fitted scorer can answer with."""

    IMAGE_SCORE = "image_score"
    HEAT_MAP = "heat_map"
    CLASS_PROBABILITIES = "class_probabilities"
    GROUP_SCORE = "group_score"
    BOXES = "boxes"
    EMBEDDING = "embedding"
    CLEANED_BANK = "cleaned_bank"
    EXPLANATION = "explanation"
    NEXT_PAIR = "next_pair"


def _one_line(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError("must be one line that is not empty")
    return text


Line = Annotated[str, AfterValidator(_one_line)]


class _CardPart(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Paper(_CardPart):
    """Where the recipe comes from."""

    authors: Line
    year: int = Field(ge=1900, le=2100)
    title: Line
    link: HttpUrl
    parts: Line = Field(description="Sections and equations implemented.")


class Needs(_CardPart):
    """What a collection must hold; a fit without it is refused with a sentence that names what is missing."""

    required: tuple[Need, ...] = Field(description="All of these.")
    either: tuple[Need, ...] = Field(default=(), description="At least one of these; which one is a parameter.")
    optional: tuple[Need, ...] = Field(default=(), description="Used when present.")
    bank_min: int = Field(default=1, ge=0, description="Smallest bank, in images.")

    def missing(self, held: frozenset[Need]) -> tuple[Need, ...]:
        """What a collection that holds `held` lacks; all of `either` when it has none of them."""
        lacking = tuple(need for need in self.required if need not in held)
        if self.either and not held.intersection(self.either):
            lacking += self.either
        return lacking


class Gives(_CardPart):
    """What comes out."""

    outputs: tuple[Give, ...] = Field(min_length=1)
    unit: Line = Field(description="Unit of the raw score; larger is always stranger.")
    low: float = Field(description="Smallest score possible; -inf allowed.")
    high: float = Field(description="Largest score possible; inf allowed.")


class Costs(_CardPart):
    """How time and memory grow, with the letters explained in the text itself."""

    fit: Line
    score: Line
    memory: Line


class MethodCard(_CardPart):
    """Facts of one method for machines, as declared in its `card.toml`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]{1,63}$", description="The id; equals the folder name.")
    title: Line
    sentence: Line
    status: Literal["trial", "supported", "retiring"]
    replaced_by: str | None = None
    role: Literal["scorer", "classifier", "embedding", "cleaner", "explainer", "trainer_option"]
    live: bool = Field(default=False, description="Follows the bank as it changes; nothing is fitted.")
    paper: Paper
    origin: Line = Field(description="`written from the paper`, or what it was adapted from.")
    needs: Needs
    gives: Gives
    repeatable: Line = Field(description="`bitwise`, `to 1e-5`, or `no` with the reason.")
    costs: Costs
    differs: tuple[Line, ...] = Field(default=(), description="Where it departs from the paper, and why.")
    beware: tuple[Line, ...] = ()
    quick: dict[str, Any] = Field(
        default_factory=dict, description="Parameters with which a fit on fifty tiny images takes about a second."
    )
    exceptions: dict[str, Line] = Field(
        default_factory=dict, description="Checks of the contract suite that do not hold, each with the reason."
    )


class Params(BaseModel):
    """Parameters of a method: frozen; every field has a range, a unit and a sentence."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, method: str, values: Mapping[str, Any]) -> Self:
        """Parameters from outside values, missing ones at their defaults.

        Raises:
            ParameterInvalid: an unknown name, a wrong type or a value out of range; the sentence names the
            first.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"]) or "the combination of parameters"
            if first["type"] == "extra_forbidden":
                known = ", ".join(f"`{name}`" for name in cls.model_fields)
                sentence = f"`{place}` of method `{method}` is not one of its parameters; they are {known}."
            else:
                rule = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
                sentence = f"`{place}` of method `{method}` must be {rule}; got {first['input']!r}."
            raise ParameterInvalid(sentence) from error


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in an image, in shares of the backbone's input from its top left corner, each in [0, 1]."""

    kind: str
    left: float
    top: float
    right: float
    bottom: float
    score: float | None = None
    """Evidence, larger = surer; None where a person drew the box."""


@dataclass(frozen=True, slots=True)
class Relation:
    """How two boxes of one image stand to each other: `head` *kind* `tail`, by their places in its boxes."""

    kind: str
    head: int
    tail: int
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Rating:
    """What one rater said of one image; larger = more anomalous."""

    rater: str
    value: float


@dataclass(frozen=True, slots=True)
class Pair:
    """What somebody answered to "which of these two is more anomalous?"; images by their ids."""

    left: int
    right: int
    answer: Literal["left", "right", "same", "cannot_say"]
    rater: str | None = None


class Backbone(Protocol):
    """The frozen network of the collection, for images that a method has changed; safe for many threads.

    Pixels are as in `Inputs.pixels`. In calls of one size a row's answer has the same bits whatever its mates;
    between sizes it differs by at most 1e-5 relative.
    """

    @property
    def width(self) -> int:
        """D, features of a vector."""
        ...

    @property
    def mean(self) -> tuple[float, float, float]:
        """What was subtracted from each channel in [0, 1], before `std` divided it."""
        ...

    @property
    def std(self) -> tuple[float, float, float]:
        """What divided each channel; pixels * std + mean lies in [0, 1]."""
        ...

    def vectors(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(B, 3, H, W) -> (B, D)"""
        ...

    def maps(self, pixels: NDArray[np.float32], stages: Sequence[int]) -> Mapping[int, NDArray[np.float32]]:
        """(B, 3, H, W) -> stage from 1 to 4 -> (B, h, w, C)"""
        ...


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a method sees of B images; only the kinds its card asks for are filled in."""

    ids: NDArray[np.int64]
    """(B,)"""
    vectors: NDArray[np.float32] | None = None
    """(B, D)"""
    maps: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    """stage -> (B, h, w, C). Computed when a stage is asked for, so iterate over the stages you want, not over this."""
    pixels: NDArray[np.float32] | None = None
    """(B, 3, H, W), as the backbone is fed"""
    backbone: Backbone | None = None
    """There for `maps` and `pixels`: turns pixels that the method has changed into vectors and maps."""
    labels: Sequence[str | None] = ()
    """B names or None; empty where nothing is known, as in scoring."""
    boxes: Sequence[Sequence[Box]] = ()
    """B lists, or empty where nobody drew any."""
    relations: Sequence[Sequence[Relation]] = ()
    """B lists, or empty."""
    ratings: Sequence[Sequence[Rating]] = ()
    """B lists, or empty."""

    def __len__(self) -> int:
        return int(self.ids.size)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a collection holds, read in batches so that it need not fit in memory.

    A sequence of `Inputs` may be iterated as often as the method likes, always in the same order; each batch is
    read, or computed and kept on disk, when it is reached. Batches hold at most 64 images.
    """

    bank: Sequence[Inputs]
    """Normal images."""
    keys: NDArray[np.uint64]
    """(N,) hash of each bank image's id, in bank order: for choices that must not depend on that order."""
    groups: Sequence[str | None] = ()
    """N names of what bank images were taken together (a part, a camera, a day), or empty."""
    labels: Mapping[str, Sequence[Inputs]] = field(default_factory=dict)
    """Few-shot classes: label -> its examples."""
    unlabelled: Sequence[Inputs] = ()
    """A pool of which nothing is known."""
    anomalous: Sequence[Inputs] = ()
    """Known defects, where there are any: negative evidence."""
    sets: Mapping[str, Sequence[Inputs]] = field(default_factory=dict)
    """`groups`: normal sets by name, each with its members in order."""
    streams: Mapping[str, Sequence[Inputs]] = field(default_factory=dict)
    """`sequence`: normal images by stream, each in order of time."""
    boxed: Sequence[Inputs] = ()
    """`boxes`: images with the boxes and relations that people drew; one without any was looked at and is clean."""
    rated: Sequence[Inputs] = ()
    """`ratings`: images with what raters said."""
    pairs: Sequence[Pair] = ()
    """`pairs`: answers, oldest first."""
    compared: Sequence[Inputs] = ()
    """`pairs`: every image that an answer names, once."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw answers for B images."""

    image: NDArray[np.float32]
    """(B,), finite; larger = stranger; unit named in the card."""
    pixels: NDArray[np.float32] | None = None
    """(B, h, w), same unit and direction, on any grid that covers the whole input; None if not offered."""
    probabilities: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """`class_probabilities`: class -> (B,) in [0, 1], each image's sum 1."""
    boxes: Sequence[Sequence[Box]] = ()
    """`boxes`: B lists of what was found, surest first; empty if not offered."""
    relations: Sequence[Sequence[Relation]] = ()
    """B lists, between the boxes found; empty if not offered."""
    terms: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """What the score is made of, and other numbers worth showing: name -> (B,) or (B, n), finite."""
    tags: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    """Answers in words, such as the direction that raised an alarm: name -> B of them."""


@dataclass(frozen=True, slots=True)
class GroupScores:
    """The raw answer for one set of images."""

    score: float
    """Finite; larger = stranger."""
    shares: NDArray[np.float32]
    """(B,) what each member contributed; larger = more."""


@dataclass(frozen=True, slots=True)
class CleanedBank:
    """Which images of the bank to keep."""

    kept: NDArray[np.int64]
    """Ids, ascending."""
    dropped: NDArray[np.int64]
    """Ids, strangest first."""
    scores: NDArray[np.float64]
    """(n,) of the dropped, in their order, finite; larger = stranger."""
    report: Mapping[str, Any] = field(default_factory=dict)
    """What can be said of the choice (a guarantee, a loss); what JSON can hold."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why B images were scored as they were."""

    maps: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Kind of map -> (B, h, w); larger = speaks more for "anomalous"."""
    examples: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    """What the examples stand for -> (B, n) ids of stored images, most telling first; -1 where there are fewer."""
    sentences: Sequence[str] = ()
    """B of them, or empty."""


@dataclass(frozen=True, slots=True)
class Question:
    """Two images of which somebody is to say which is more anomalous; by their ids."""

    left: int
    right: int
    disagreement: float
    """How much the answer would tell, at least 0; larger = more."""


@dataclass(frozen=True, slots=True)
class Slopes:
    """How the raw scores of B images change with what was read of them; what is not there changes none."""

    vectors: NDArray[np.float64] | None = None
    """(B, D)"""
    maps: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)
    """stage -> (B, h, w, C)"""
    pixels: NDArray[np.float64] | None = None
    """(B, 3, H, W), beside what goes through vectors and maps"""


@dataclass(frozen=True, slots=True)
class FittedState:
    """Everything a fitted scorer is, as arrays and plain values: no code, no pickle."""

    arrays: Mapping[str, NDArray[Any]]
    values: Mapping[str, Any]
    """What JSON can hold."""


@runtime_checkable
class FittedScorer(Protocol):
    """Read-only once built; many threads may call `score` at the same time."""

    method: str
    """Equals the folder name."""

    def score(self, inputs: Inputs) -> Scores:
        """Scores that depend on each image alone: never on its batch, never on earlier calls."""
        ...

    def export(self) -> FittedState:
        """The state from which `Method.restore` builds a scorer with equal scores."""
        ...


# What a fitted scorer may offer beside `score`; its card says which under `gives`.


@runtime_checkable
class GroupScorer(Protocol):
    """`group_score`: a fitted scorer that also judges sets."""

    def score_group(self, members: Inputs) -> GroupScores:
        """The score of these images as one set."""
        ...


@runtime_checkable
class StreamScorer(Protocol):
    """Needs `sequence`: a fitted scorer whose answer for an image depends on those before it in its stream.

    `score` judges every image as the first of a stream of its own.
    """

    def follow(self, inputs: Inputs, memory: FittedState | None) -> tuple[Scores, FittedState]:
        """Scores of the next images of a stream, and the memory to hand in with those that come after them.

        `memory` is None at the start. The scores are the same in whatever pieces a stream is given.
        """
        ...


@runtime_checkable
class EmbeddingGiver(Protocol):
    """`embedding`: a fitted scorer that holds a new embedding."""

    def embed(self, inputs: Inputs) -> NDArray[np.float32]:
        """(B, E), each row from its image alone."""
        ...


@dataclass(frozen=True, slots=True)
class EmbeddingReport:
    """What a new embedding is worth beside the one it rests on, on classes that nothing was learnt or chosen by."""

    before: Mapping[str, float]
    """`precision_at_1`, `r_precision` and `map_at_r`, from 0 to 1; empty where there were too few classes to tell."""
    after: Mapping[str, float]
    """The same of the new embedding."""
    better: bool | None
    """Whether it is to be used: its MAP@R is higher, and surely so; None where nothing could be told."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """How that was found; what JSON can hold."""


@runtime_checkable
class ProjectionGiver(Protocol):
    """`embedding`, learnt on vectors: a collection can go over to it without reading its images again."""

    def projection(self) -> Projection:
        """What turns vectors of the collection into those of the new embedding; `embed` does nothing else."""
        ...

    def report(self) -> EmbeddingReport:
        """What the new embedding is worth."""
        ...


@runtime_checkable
class BankCleaner(Protocol):
    """`cleaned_bank`: a fitted scorer that chose which images of the bank to keep."""

    def cleaned_bank(self) -> CleanedBank:
        """The choice, over the bank that was fitted."""
        ...


@runtime_checkable
class FindingsGiver(Protocol):
    """A fitted scorer that has something to tell about its fit."""

    def findings(self) -> Mapping[str, Any]:
        """What the fit found, by name: sizes, bounds, figures; what JSON can hold."""
        ...


@runtime_checkable
class Explainer(Protocol):
    """`explanation`: a fitted scorer that says why."""

    def explain(self, inputs: Inputs) -> Explanation:
        """Reasons for the scores of these images."""
        ...


@runtime_checkable
class PairAsker(Protocol):
    """`next_pair`: a fitted scorer that learns from comparisons and knows which answers would tell it most."""

    def next_pairs(self, candidates: Inputs, asked: Collection[tuple[int, int]], most: int) -> Sequence[Question]:
        """At most so many pairs of these images, most telling first, no image in two of them.

        Pairs in `asked` are left out, whichever of the two comes first.
        """
        ...


@runtime_checkable
class SlopeGiver(Protocol):
    """A fitted scorer that knows the gradient of its score, so that there is a gradient map of it."""

    def slopes(self, inputs: Inputs) -> Slopes:
        """The gradient of each image's raw score; each from its image alone."""
        ...


@runtime_checkable
class Method(Protocol):
    """The recipe of one paper. Holds parameters, never data."""

    name: ClassVar[str]
    Params: ClassVar[type[Params]]

    def __init__(self, params: Any) -> None: ...

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedScorer:
        """A scorer for what this collection holds now; the same seed gives the same scorer.

        Raises:
            FitRefused: the collection holds too little, or nothing from which this method can learn.
        """
        ...

    def restore(self, state: FittedState) -> FittedScorer:
        """The scorer that was exported."""
        ...


@runtime_checkable
class LiveMethod(Protocol):
    """A method without a fit: the scorer itself, built empty, that follows a bank."""

    name: ClassVar[str]
    Params: ClassVar[type[Params]]

    def __init__(self, *, width: int, params: Any) -> None: ...
