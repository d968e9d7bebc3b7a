"""What a method is: its card, its parameters, what it is given and what it gives back.

A method is the recipe of one paper. Fitting it to a collection gives a fitted scorer, which never changes
again and may therefore be called by many threads. A *live* method has no fit: its scorer follows the bank
as it changes.

Letters used in docstrings: B images, C channels, H W pixels, h w map cells, D vector width, N reference
images.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, ValidationError

from models.errors import ParameterInvalid

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
class Inputs:
    """What a method sees of B images; only the kinds its card asks for are filled in."""

    ids: NDArray[np.int64]
    """(B,)"""
    vectors: NDArray[np.float32] | None = None
    """(B, D)"""
    maps: Mapping[int, NDArray[np.float32]] = field(default_factory=dict)
    """stage -> (B, h, w, C)"""
    pixels: NDArray[np.float32] | None = None
    """(B, 3, H, W), as the backbone is fed"""

    def __len__(self) -> int:
        return int(self.ids.size)


@dataclass(frozen=True, slots=True)
class Reference:
    """What a collection holds, read in batches so that it need not fit in memory."""

    bank: Sequence[Inputs]
    """Normal images. Iterated as often as the method likes, always in the same order."""
    keys: NDArray[np.uint64]
    """(N,) hash of each bank image's id, in bank order: for choices that must not depend on that order."""
    groups: Sequence[str | None] = ()
    labels: Mapping[str, Sequence[Inputs]] = field(default_factory=dict)
    unlabelled: Sequence[Inputs] = ()


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw answers for B images."""

    image: NDArray[np.float32]
    """(B,), finite; larger = stranger; unit named in the card."""
    pixels: NDArray[np.float32] | None = None
    """(B, h, w), same unit and direction, on any grid that covers the whole input; None if not offered."""


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
    calibration_scores: NDArray[np.float32]
    """(n,) scores of normal images that took no part in the fit, for `models.judging`."""

    def score(self, inputs: Inputs) -> Scores:
        """Scores that depend on each image alone: never on its batch, never on earlier calls."""
        ...

    def export(self) -> FittedState:
        """The state from which `Method.restore` builds a scorer with equal scores."""
        ...


@runtime_checkable
class Method(Protocol):
    """The recipe of one paper. Holds parameters, never data."""

    name: ClassVar[str]
    Params: ClassVar[type[Params]]

    def __init__(self, params: Any) -> None: ...

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedScorer:
        """A scorer for what this collection holds now; the same seed gives the same scorer."""
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
