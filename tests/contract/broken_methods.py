"""A sound method, and one broken in a single way for each check of the contract suite."""

import time
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from models.contract import FittedState, Inputs, MethodCard, Params, Reference, Scores
from models.errors import BankTooSmall
from tests.contract.method_world import Subject

NAME = "sound"
STAGE = 2

CARD = MethodCard.model_validate(
    {
        "name": NAME,
        "title": "Distance to the mean map",
        "sentence": "Distance to the mean map.",
        "status": "trial",
        "role": "scorer",
        "paper": {
            "authors": "A. Nobody",
            "year": 2020,
            "title": "On means",
            "link": "https://example.org/1",
            "parts": "all",
        },
        "origin": "written for the tests",
        "needs": {"required": ["maps"], "bank_min": 2},
        "gives": {"outputs": ["image_score", "heat_map"], "unit": "one", "low": 0.0, "high": float("inf")},
        "repeatable": "bitwise",
        "costs": {"fit": "O(N)", "score": "O(1)", "memory": "O(1)"},
    }
)


class SoundParams(Params):
    """Parameters of the sound method."""

    power: int = Field(2, ge=1, le=4, description="Power of the distance.")
    share: float = Field(0.5, gt=0.0, lt=1.0, description="A share.")
    is_loud: bool = Field(False, description="Nothing.")


@dataclass
class FittedSound:
    """The mean map."""

    mean: np.ndarray
    power: int
    method: str = NAME

    def score(self, inputs: Inputs) -> Scores:
        """Distance of each cell from the mean cell, and their largest."""
        maps = inputs.maps[STAGE]
        heat = (np.abs(maps - self.mean) ** self.power).mean(axis=3)
        return Scores(image=heat.reshape(len(heat), -1).max(axis=1), pixels=heat)

    def export(self) -> FittedState:
        """All of it."""
        return FittedState({"mean": self.mean}, {"power": self.power})


class Sound:
    """Mean map of the bank."""

    name: ClassVar[str] = NAME
    Params: ClassVar[type[Params]] = SoundParams
    Fitted: ClassVar[type[FittedSound]] = FittedSound

    def __init__(self, params: SoundParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Any = None) -> FittedSound:
        """The mean, with a little noise of the seed's."""
        if sum(map(len, reference.bank)) < 2:
            raise BankTooSmall("The bank of method `sound` must hold at least 2 images; got fewer.")
        mean = np.concatenate([batch.maps[STAGE] for batch in reference.bank]).mean(axis=0)
        noise = np.random.default_rng(seed).normal(0, 1e-3, mean.shape)
        return self.Fitted((mean + noise).astype(np.float32), self.params.power)

    def restore(self, state: FittedState) -> FittedSound:
        """What was exported."""
        return self.Fitted(state.arrays["mean"], state.values["power"])


# What follows is wrong on purpose, each in one way.


class MatesMatter(FittedSound):
    """Scores relative to the batch, as batch normalisation in training mode does."""

    def score(self, inputs: Inputs) -> Scores:
        found = super().score(inputs)
        return replace(found, image=found.image / found.image.mean())


class Unseeded(Sound):
    """Draws from chance that nobody seeded."""

    def fit(self, reference: Reference, *, seed: int, progress: Any = None) -> FittedSound:
        return super().fit(reference, seed=int(np.random.SeedSequence().entropy % 2**32))


class Learning(FittedSound):
    """Goes on learning while it scores."""

    def score(self, inputs: Inputs) -> Scores:
        found = super().score(inputs)
        self.mean = 0.99 * self.mean + 0.01 * inputs.maps[STAGE].mean(axis=0)
        return found


class Writing(FittedSound):
    """Centres its input in place."""

    def score(self, inputs: Inputs) -> Scores:
        maps = inputs.maps[STAGE]
        maps -= self.mean
        heat = (np.abs(maps) ** self.power).mean(axis=3)
        return Scores(image=heat.reshape(len(heat), -1).max(axis=1), pixels=heat)


class Sharing(FittedSound):
    """Keeps what it works on in itself, where other threads overwrite it."""

    def score(self, inputs: Inputs) -> Scores:
        self.current = inputs.maps[STAGE]
        time.sleep(0.001)  # another thread comes in between, as while torch computes
        maps = self.current
        heat = (np.abs(maps[: len(inputs)] - self.mean) ** self.power).mean(axis=3)
        return Scores(image=heat.reshape(len(heat), -1).max(axis=1), pixels=heat)


class Forgetful(Sound):
    """Restores with the default instead of what was used."""

    def restore(self, state: FittedState) -> FittedSound:
        return FittedSound(state.arrays["mean"], 1)


class Infinite(FittedSound):
    """Gives a score that is no number."""

    def score(self, inputs: Inputs) -> Scores:
        found = super().score(inputs)
        return replace(found, image=np.where(np.arange(len(inputs)) == 2, np.inf, found.image).astype(np.float32))


class UpsideDown(FittedSound):
    """Larger for what is more normal."""

    def score(self, inputs: Inputs) -> Scores:
        found = super().score(inputs)
        return replace(found, image=1 / (1 + found.image))


class Elsewhere(FittedSound):
    """Points at another place than the score comes from."""

    def score(self, inputs: Inputs) -> Scores:
        found = super().score(inputs)
        assert found.pixels is not None
        return replace(found, pixels=found.pixels[:, ::-1, ::-1])


class OpenParams(SoundParams):
    """Takes any power."""

    power: int = Field(2, description="Power of the distance.")


class OpenRange(Sound):
    """A parameter without a range."""

    Params: ClassVar[type[Params]] = OpenParams


class Careless(Sound):
    """Fails on an empty bank with whatever comes."""

    def fit(self, reference: Reference, *, seed: int, progress: Any = None) -> FittedSound:
        mean = np.concatenate([batch.maps[STAGE] for batch in reference.bank]).mean(axis=0)
        return FittedSound(mean.astype(np.float32), self.params.power)


class Seeding(Sound):
    """Seeds chance for everybody."""

    def fit(self, reference: Reference, *, seed: int, progress: Any = None) -> FittedSound:
        np.random.seed(seed)
        return super().fit(reference, seed=seed)


class Promising(FittedSound):
    """Says on its card that a heat map comes, and gives none."""

    def score(self, inputs: Inputs) -> Scores:
        return Scores(image=super().score(inputs).image)


def with_scorer(kind: type[FittedSound]) -> Subject:
    """The sound method with another scorer."""
    return Subject(CARD, type(kind.__name__, (Sound,), {"Fitted": kind}), {})


BROKEN = {
    "batch_mates": with_scorer(MatesMatter),
    "seeds": Subject(CARD, Unseeded),
    "state_stays": with_scorer(Learning),
    "inputs_stay": with_scorer(Writing),
    "threads": with_scorer(Sharing),
    "restoring": Subject(CARD, Forgetful),
    "shapes": with_scorer(Infinite),
    "planted_defect": with_scorer(UpsideDown),
    "parameters": Subject(CARD, OpenRange),
    "degenerate_banks": Subject(CARD, Careless),
    "global_state_stays": Subject(CARD, Seeding),
    "card_claims": with_scorer(Promising),
}
ALSO_BROKEN = [("planted_defect", with_scorer(Elsewhere))]
