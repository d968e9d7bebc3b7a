"""What is explained: a number that some scorer says of an image, as a function of the pixels the network is fed.

The number is the one that is served. Changed pixels take the way that every image takes: through the network's queue,
then through the scorer's own score function.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.classes.classifier import current
from app.classes.schemas import ClassifyParameters
from app.classes.service import classify_vectors
from app.compressed import scorer_of
from app.core import Core
from app.errors import Invalid
from app.explaining.schemas import ExplainParameters
from app.fitted_shelf import LoadedFit
from app.limits import remaining_s
from app.scoring.fitted import Pictures, fit_of, score_with_fit
from app.scoring.images import Vectors
from app.scoring.schemas import ScoreParameters
from app.scoring.service import LIVE_SCORER, score_live
from app.shelf import CollectionState
from models.backbones.gradients import Read, pixel_gradients
from models.contract import Inputs, Need, SlopeGiver, Slopes
from models.errors import DeadlinePassed
from models.fitting import scores_of
from models.inputs import EmbedderBackbone, LazyInputs, LazyMaps, StagesAsked
from models.methods.explain import Gradient, Score
from models.methods.few_shot_lr import METHOD as CLASSIFIER

Floats = NDArray[np.float32]
Answer = tuple[dict[str, Any], int]
SlopesAt = Callable[[Floats, Read], Slopes]


@dataclass(frozen=True, slots=True)
class Explained:
    """The number of one image that is explained."""

    label: str | None
    """The class whose probability it is; None: the score."""
    score: Score
    slopes: SlopesAt | None
    """None: the scorer knows no gradient."""


class Subject(Protocol):
    """A scorer about the images of one request."""

    def answer(self) -> Answer:
        """The answer as it is served without an explanation."""
        ...

    def explained(self, row: int, result: dict[str, Any], /) -> Explained:
        """What is explained of one image, given its result in the answer."""
        ...

    def calibration_scores(self) -> NDArray[np.float32]:
        """Scores of usual images: the scale of the map."""
        ...


def subject_of(core: Core, state: CollectionState, images: Vectors, parameters: ExplainParameters) -> Subject:
    """The scorer asked for. Raises Conflict, Invalid: there is none, or not with these parameters."""
    if parameters.label is not None and parameters.target == "score":
        raise Invalid("`label`: is of `target=probability`; a score has none.", "conflicting_parameters")
    if parameters.scorer == CLASSIFIER.name:
        if parameters.k is not None:
            raise Invalid(f"`k`: is of `{LIVE_SCORER}`, not of `{CLASSIFIER.name}`.", "k_not_offered")
        return ClassesSubject(core, state, images, parameters)
    if parameters.scorer == LIVE_SCORER:
        if parameters.target == "probability" or parameters.label is not None:
            raise _no_probabilities(parameters.scorer)
        return LiveSubject(core, state, images, parameters)
    return FittedSubject(core, state, images, parameters)


def gradient_of(core: Core, state: CollectionState, slopes: SlopesAt) -> Gradient:
    """The gradient of a number with respect to pixels, through the network of the collection."""
    engine = core.embedders.with_gradients(state)

    def gradient(pixels: Floats) -> Floats:
        check_deadline(core)
        return pixel_gradients(engine, pixels, slopes if state.projection is None else projected)

    def projected(pixels: Floats, read: Read) -> Slopes:
        """As the scorer sees them: behind the collection's projection."""
        assert state.projection is not None
        vectors, maps = read
        told = slopes(pixels, (state.projection.apply(vectors), maps))
        if told.vectors is None:
            return told
        return replace(told, vectors=state.projection.pulled_back(vectors, told.vectors))

    return gradient


def check_deadline(core: Core) -> None:
    """Raise DeadlinePassed when the time of the request is up."""
    if not remaining_s(core.settings.deadline_s):
        raise DeadlinePassed(
            f"The map must be done within {core.settings.deadline_s:g} s; ask for fewer images, `evaluations` or "
            "`steps`, or a smaller `grid`."
        )


class LiveSubject:
    """The score of the scorer that follows the bank."""

    def __init__(self, core: Core, state: CollectionState, images: Vectors, parameters: ExplainParameters) -> None:
        self._core, self._state, self._images, self._parameters = core, state, images, parameters
        self._k = parameters.k or state.settings.k

    def answer(self) -> Answer:
        """As /anomaly answers."""
        return score_live(self._state, self._images, _score_parameters(self._parameters))

    def explained(self, row: int, _: dict[str, Any]) -> Explained:
        """The score; a stored image is scored without itself, however it is changed."""
        own = _own(self._images, row)

        def score(pixels: Floats) -> NDArray[np.float64]:
            vectors = _embedded(self._core, self._state, pixels)
            with self._state.lock.read():
                found = scorer_of(self._state).score(
                    vectors, k=self._k, neighbours=0, exclude=np.full(len(vectors), own)
                )
            return found.score.astype(np.float64)

        def slopes(_: Floats, read: Read) -> Slopes:
            with self._state.lock.read():
                scorer = scorer_of(self._state)
                return Slopes(vectors=scorer.slopes(read[0], k=self._k, exclude=np.full(len(read[0]), own)))

        return Explained(None, score, slopes)

    def calibration_scores(self) -> NDArray[np.float32]:
        """Leave-one-out scores of the bank."""
        with self._state.lock.read(), self._state.calibrating:
            return scorer_of(self._state).calibration(self._k).scores


class ClassesSubject:
    """The probability of a class, or how far the image is from every class."""

    def __init__(self, core: Core, state: CollectionState, images: Vectors, parameters: ExplainParameters) -> None:
        self._core, self._state, self._images, self._parameters = core, state, images, parameters
        self._fitted, _ = current(state)
        if parameters.label is not None and parameters.label not in self._fitted.labels:
            raise Invalid(f"`label`: must be a class of `{state.name}`; got `{parameters.label}`.", "class_unknown")

    def answer(self) -> Answer:
        """As /classify answers."""
        asked = ClassifyParameters(
            false_alarm_rate=self._parameters.false_alarm_rate, neighbours=self._parameters.neighbours
        )
        return classify_vectors(self._state, self._images, asked)

    def explained(self, row: int, result: dict[str, Any]) -> Explained:
        """The probability of the label asked for, else of the likeliest; an example is judged without itself."""
        own, fitted = _own(self._images, row), self._fitted
        label = None
        if self._parameters.target != "score":
            label = self._parameters.label or next(iter(result["probabilities"]))

        def score(pixels: Floats) -> NDArray[np.float64]:
            vectors = _embedded(self._core, self._state, pixels)
            found = fitted.classify(vectors, nearest=0, exclude=np.full(len(vectors), own))
            if label is None:
                return found.score.astype(np.float64)
            return found.probabilities[:, fitted.labels.index(label)]

        def slopes(_: Floats, read: Read) -> Slopes:
            return Slopes(vectors=fitted.slopes(read[0], label=label, exclude=np.full(len(read[0]), own)))

        return Explained(label, score, slopes)

    def calibration_scores(self) -> NDArray[np.float32]:
        """Scores of the examples, each without itself."""
        return self._fitted.calibration_scores


class FittedSubject:
    """The score, or the probability of a class, of a fitted scorer."""

    def __init__(self, core: Core, state: CollectionState, images: Vectors, parameters: ExplainParameters) -> None:
        self._core, self._state, self._images, self._parameters = core, state, images, parameters
        self.fit = fit_of(core, state, _score_parameters(parameters))
        self._asked = StagesAsked()
        self._embedder = core.embedders.of(state).embedder
        needs = self.fit.card.needs
        self._reads_vectors = Need.VECTORS in (*needs.required, *needs.either, *needs.optional)

    def answer(self) -> Answer:
        """As /anomaly answers."""
        return score_with_fit(self._core, self._state, self.fit, self._images, _score_parameters(self._parameters))

    def explained(self, row: int, result: dict[str, Any]) -> Explained:
        """What the scorer says of changed pixels, each image asked about by itself as requests are."""
        own, label = _own(self._images, row), self._label(result)

        def score(pixels: Floats) -> NDArray[np.float64]:
            check_deadline(self._core)
            vectors = _embedded(self._core, self._state, pixels) if self._reads_vectors else None
            found = list(scores_of(self.fit.scorer, self._inputs(own, pixels, vectors)))
            return np.array(
                [float((one.image if label is None else one.probabilities[label])[0]) for one in found], np.float64
            )

        scorer = self.fit.scorer
        if label is not None or not isinstance(scorer, SlopeGiver):
            return Explained(label, score, None)
        giver: SlopeGiver = scorer

        def slopes(pixels: Floats, read: Read) -> Slopes:
            vectors, maps = read
            inputs = LazyInputs(
                pixels.copy, ids=np.full(len(pixels), own), vectors=vectors, maps=maps, backbone=self._backbone()
            )
            return giver.slopes(inputs)

        return Explained(label, score, slopes)

    def calibration_scores(self) -> NDArray[np.float32]:
        """Scores of the images that were held out of the fit."""
        return self.fit.calibration

    def _label(self, result: dict[str, Any]) -> str | None:
        if self._parameters.target != "probability" and self._parameters.label is None:
            return None
        chances: dict[str, float] = result["details"].get("probabilities", {})
        if not chances:
            raise _no_probabilities(self._parameters.scorer)
        if self._parameters.label is not None and self._parameters.label not in chances:
            raise Invalid(
                f"`label`: must be one of {', '.join(sorted(chances))}; got `{self._parameters.label}`.",
                "class_unknown",
            )
        return self._parameters.label or max(chances, key=lambda one: chances[one])

    def _inputs(self, own: int, pixels: Floats, vectors: Floats | None) -> Inputs:
        def maps(stages: Any) -> dict[int, Floats]:
            return self._embedder.maps(self._embedder.as_prepared(pixels), stages)

        return LazyInputs(
            pixels.copy,
            ids=np.full(len(pixels), own),
            vectors=vectors,
            maps=LazyMaps(maps, self._asked),
            backbone=self._backbone(),
        )

    def _backbone(self) -> EmbedderBackbone:
        return EmbedderBackbone(self._embedder, self._state.projection)


def fit_behind(subject: Subject) -> LoadedFit | None:
    """The fit that a subject asks, if it is one."""
    return subject.fit if isinstance(subject, FittedSubject) else None


def prepared_pixels(pictures: Pictures, row: int) -> Floats:
    """What the network is fed of an image, (3, S, S), in memory of its own."""
    return pictures.prepared(row).tensor.copy()


def _score_parameters(parameters: ExplainParameters) -> ScoreParameters:
    return ScoreParameters(
        scorer=parameters.scorer,
        k=parameters.k,
        neighbours=parameters.neighbours,
        false_alarm_rate=parameters.false_alarm_rate,
    )


def _own(images: Vectors, row: int) -> int:
    entry = images.stored[row]
    return -1 if entry is None else entry.pk


def _embedded(core: Core, state: CollectionState, pixels: Floats) -> Floats:
    check_deadline(core)
    embedder = core.embedders.of(state)
    return embedder.projected(core.embedders.embed(embedder.network, embedder.embedder.as_prepared(pixels)))


def _no_probabilities(scorer: str) -> Invalid:
    return Invalid(
        f"`target`: scorer `{scorer}` gives no probabilities of classes; explain its score.", "probability_not_offered"
    )
