"""A score learnt from comparisons: the mean of an ensemble's standardised rewards."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from models.contract import FittedState, Inputs, Params, Progress, Question, Reference, Scores
from models.errors import FitRefused
from models.float32 import as_float32
from models.held_out import bank_rows, stacked_vectors
from models.methods.preferences.features import Features, features_from
from models.methods.preferences.maths import disagreements, left_shares, most_telling
from models.methods.preferences.rewards import BATCH, Rewards, train_rewards
from models.network_arrays import arrays_of, loaded
from models.principal_directions import Directions
from models.training import TrainingPlan, each_alone, part_of, seeded

BANK_MIN = 2
ANSWERS_MIN = 5
BANK_KEPT = 2000  # images that raw scores are distances to


class PreferencesParams(Params):
    """Parameters of `preferences`."""

    members: int = Field(default=10, ge=2, le=20, description="Reward models in the ensemble.")
    components: int = Field(default=32, ge=1, le=256, description="Principal directions that a reward sees, at most.")
    hidden: int = Field(default=0, ge=0, le=256, description="Hidden units of a reward model; with 0 it is linear.")
    neighbours: int = Field(default=2, ge=1, le=16, description="Nearest bank images that the raw score is taken over.")
    weight_decay: float = Field(default=1.0, ge=0.0, le=10.0, description="Pull of every weight towards 0.")
    epochs: int = Field(default=60, ge=1, le=1000, description="Passes over the answers.")
    learning_rate: float = Field(default=0.05, gt=0.0, le=1.0, description="Step size of the optimiser.")


@dataclass(frozen=True, slots=True)
class FittedPreferences:
    """An ensemble of rewards, and the scale on which each member gives them."""

    features: Features
    net: Rewards
    middle: NDArray[np.float64]
    """(M,) mean reward of the images known when it was fitted"""
    spread: NDArray[np.float64]
    """(M,)"""
    params: PreferencesParams
    answers: int
    method: str = "preferences"

    def score(self, inputs: Inputs) -> Scores:
        """The mean standardised reward of each image; `raw` is its distance from the bank, `spread` the disagreement.

        Raises:
            ParameterInvalid: no vectors are given.
            WidthMismatch, NotFinite: the vectors are not of the bank's width, or not finite.
        """
        rewards, raw = self._rewards(inputs)
        standard = (rewards - self.middle) / self.spread
        return Scores(
            image=as_float32(standard.mean(axis=1)),
            terms={"raw": as_float32(raw), "spread": as_float32(standard.std(axis=1))},
        )

    def next_pairs(self, candidates: Inputs, asked: Collection[tuple[int, int]], most: int) -> Sequence[Question]:
        """The pairs on which the members' predictions vary most.

        Memory: 32 C C bytes for C candidates.
        """
        rewards, _ = self._rewards(candidates)
        return most_telling(disagreements(rewards), candidates.ids, asked, most)

    def export(self) -> FittedState:
        """The state from which `Preferences.restore` builds a scorer with equal scores."""
        features = self.features
        return FittedState(
            arrays={
                "mean": features.directions.mean,
                "components": features.directions.components,
                "variances": features.directions.variances,
                "bank": features.bank,
                "bank_ids": features.bank_ids,
                "middle": self.middle,
                "spread": self.spread,
                **arrays_of(self.net, "net."),
            },
            values={
                "raw_middle": features.middle,
                "raw_spread": features.spread,
                "answers": self.answers,
                "params": self.params.model_dump(mode="json"),
            },
        )

    def _rewards(self, inputs: Inputs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """As each member gives them (B, M), and raw scores (B,)."""
        vectors = stacked_vectors([inputs], method=self.method, width=self.features.directions.mean.size)
        rows, raw = self.features.of(vectors, inputs.ids)
        if not len(rows):
            return np.zeros((0, self.params.members)), raw
        return each_alone(lambda row: (self.net(row),), torch.from_numpy(rows))[0].numpy(), raw


class Preferences:
    """An ensemble of rewards learnt from which of two images people found more anomalous."""

    name: ClassVar[str] = "preferences"
    Params: ClassVar[type[Params]] = PreferencesParams

    def __init__(self, params: PreferencesParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedPreferences:
        """The rewards that explain the answers.

        Raises:
            BankTooSmall: fewer than 2 images.
            FitRefused: fewer than 5 answers that say something, or images that are all alike.
            ParameterInvalid: there are no vectors, or the learning rate is too large.
            WidthMismatch, NotFinite: the vectors cannot be used.
        """
        params = self.params
        bank = bank_rows(reference, method=self.name, bank_min=BANK_MIN)
        width = bank.vectors.shape[1]
        compared = stacked_vectors(reference.compared, method=self.name, width=width)
        ids = np.concatenate([np.zeros(0, np.int64), *(inputs.ids for inputs in reference.compared)])
        place_of = {one: place for place, one in enumerate(ids.tolist())}
        told, shares = left_shares([one for one in reference.pairs if one.left in place_of and one.right in place_of])
        if len(told) < ANSWERS_MIN:
            raise FitRefused(
                f"The answers of method `{self.name}` must be at least {ANSWERS_MIN} that say left, right or same; "
                f"got {len(told)}."
            )
        # By ascending hash of their ids, so the first ones are drawn by chance, always the same.
        kept, kept_ids = bank.vectors[:BANK_KEPT], bank.ids[:BANK_KEPT]
        features = features_from(
            kept, kept_ids, compared, ids, components=params.components, neighbours=params.neighbours
        )
        if not features.directions.variances.size:
            raise FitRefused(f"The images of method `{self.name}` must differ; got {len(kept) + len(compared)} alike.")
        rows = torch.from_numpy(features.of(compared, ids)[0]).float()
        generator = seeded(seed)
        net = Rewards(rows.shape[1], params.hidden, params.members, generator)
        train_rewards(
            net,
            rows[[place_of[one.left] for one in told]],
            rows[[place_of[one.right] for one in told]],
            torch.from_numpy(shares),
            plan=TrainingPlan(
                epochs=params.epochs,
                batch=min(BATCH, len(told)),
                learning_rate=params.learning_rate,
                weight_decay=params.weight_decay,
            ),
            generator=generator,
            method=self.name,
            progress=part_of(progress, 0.0, 1.0),
        )
        net = net.double().eval().requires_grad_(False)
        everything = np.concatenate([features.of(kept, kept_ids)[0], rows.double().numpy()])
        rewards = net(torch.from_numpy(everything)).numpy()
        spread = rewards.std(axis=0)
        return FittedPreferences(
            features=features,
            net=net,
            middle=rewards.mean(axis=0),
            spread=np.where(spread > 0, spread, 1.0),
            params=params,
            answers=len(told),
        )

    def restore(self, state: FittedState) -> FittedPreferences:
        """The scorer that was exported."""
        arrays, values = state.arrays, state.values
        params = PreferencesParams.model_validate(values["params"])
        directions = Directions(arrays["mean"], arrays["components"], arrays["variances"])
        net = Rewards(len(directions.variances) + 1, params.hidden, params.members, seeded(0)).double()
        features = Features(
            directions=directions,
            bank=arrays["bank"],
            bank_ids=arrays["bank_ids"],
            neighbours=params.neighbours,
            middle=float(values["raw_middle"]),
            spread=float(values["raw_spread"]),
        )
        return FittedPreferences(
            features=features,
            net=loaded(net, arrays, "net."),
            middle=arrays["middle"],
            spread=arrays["spread"],
            params=params,
            answers=int(values["answers"]),
        )
