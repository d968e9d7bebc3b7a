"""Error of the predicted noise, or distance to what is left of an image after noising and denoising."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores
from models.float32 import as_float32
from models.held_out import bank_rows, images_alike
from models.methods.ddpm.diffusion import Schedule, ancestral, ddim, linear_schedule, noised
from models.methods.ddpm.network import NoisePredictor, PixelCorrection, VectorCorrection
from models.methods.ddpm.reading import Coordinates, Source, coordinates, read
from models.network_arrays import arrays_of, loaded
from models.training import TrainingPlan, each_alone, part_of, seeded, train

BANK_MIN = 16
BATCH = {Source.VECTORS: 128, Source.PIXELS: 32}
STEPS_PER_EPOCH = 25  # at least: a small bank is gone through several times before it is judged
JUDGED = 256  # most held-out images that judge an epoch, and weigh the timesteps


class ScoredBy(StrEnum):
    """What the score is."""

    NOISE = "noise"
    RECONSTRUCTION = "reconstruction"


class Sampler(StrEnum):
    """How a noisy image is denoised."""

    DDIM = "ddim"
    ANCESTRAL = "ancestral"


class DdpmParams(Params):
    """Parameters of `ddpm`."""

    source: Source = Field(
        default=Source.VECTORS, description="Noise the embedding's `vectors`, or `pixels` reduced to 32 x 32."
    )
    scored_by: ScoredBy = Field(
        default=ScoredBy.NOISE,
        description="`noise`: error of the predicted noise at several timesteps; `reconstruction`: distance between "
        "the image and itself noised to the strongest of them and denoised.",
    )
    sampler: Sampler = Field(
        default=Sampler.DDIM,
        description="For reconstruction: `ddim` takes few steps and draws nothing, `ancestral` is the paper's.",
    )
    timesteps: int = Field(default=1000, ge=50, le=4000, description="Steps of the noise schedule.")
    levels: int = Field(default=6, ge=1, le=50, description="Timesteps at which the error of the noise is taken.")
    strongest: float = Field(
        default=0.4, ge=0.02, le=1.0, description="The noisiest of them, as a share of the schedule."
    )
    draws: int = Field(default=8, ge=1, le=64, description="Noises per timestep, the same for every image.")
    ddim_steps: int = Field(default=10, ge=1, le=200, description="Steps of the `ddim` sampler.")
    hidden: int = Field(default=256, ge=8, le=1024, description="Width of the network's hidden layers, for vectors.")
    channels: int = Field(
        default=16, ge=4, le=64, multiple_of=4, description="Channels of the network's finest layer, for pixels."
    )
    steps: int = Field(default=2500, ge=1, le=100_000, description="Steps of the optimiser, at most.")
    learning_rate: float = Field(default=1e-3, gt=0.0, le=1.0, description="Step of the optimiser (Adam).")


@dataclass(frozen=True, slots=True, eq=False)
class FittedDdpm:
    """The trained network, and the noises that every image gets."""

    net: NoisePredictor
    schedule: Schedule
    seen_as: Coordinates
    noise: Tensor
    """(draws, ...) of one row's shape."""
    weights: NDArray[np.float64]
    """(levels,), of each timestep's error; sum 1."""
    params: DdpmParams
    noise_seed: int
    """Of the noises that the ancestral sampler draws, the same for every image."""
    method: str = "ddpm"

    def score(self, inputs: Inputs) -> Scores:
        """The weighted mean squared error of the predicted noise, or the reconstruction's root mean squared distance.

        By noise, the term `errors` (B, levels) is the error at each timestep, least noisy first.

        Raises:
            ParameterInvalid: no vectors, or no pixels, are given.
            WidthMismatch, NotFinite: they are not of the bank's width, or not finite.
        """
        rows = self.seen_as.of(read(inputs, self.params.source, self.method, len(self.seen_as.mean)))
        if self.params.scored_by is ScoredBy.RECONSTRUCTION:
            distances = each_alone(lambda row: [self._distance(row)], rows)[0] if len(rows) else torch.zeros(0)
            return Scores(image=as_float32(distances.numpy()))
        errors = self.errors(rows)
        # Each row by itself: the sum of a matrix product may round otherwise beside mates.
        image = np.array([float((self.weights * row).sum()) for row in errors], np.float64)
        return Scores(image=as_float32(image), terms={"errors": as_float32(errors)})

    def errors(self, rows: Tensor) -> NDArray[np.float64]:
        """Mean squared error of the predicted noise at each timestep; (B, ...) -> (B, levels)."""
        levels = levels_of(self.params)
        if not len(rows):
            return np.zeros((0, len(levels)))
        t = torch.tensor(levels).repeat_interleave(len(self.noise))
        noise = self.noise.repeat(len(levels), *[1] * (self.noise.dim() - 1))

        def of_row(row: Tensor) -> list[Tensor]:
            noisy = noised(row.expand_as(noise), t, noise, self.schedule)
            squares = (self.net(noisy, t) - noise).square().flatten(1).mean(dim=1)
            return [squares.reshape(1, len(levels), -1).mean(dim=2)]

        found: NDArray[np.float64] = each_alone(of_row, rows)[0].numpy()
        return found

    def export(self) -> FittedState:
        """The state from which `Ddpm.restore` builds a scorer with equal scores."""
        arrays = arrays_of(self.net, "net.")
        arrays |= {"mean": self.seen_as.mean, "noise": self.noise.numpy().copy(), "weights": self.weights}
        arrays["variances"] = self.seen_as.variances
        if self.seen_as.axes is not None:
            arrays["axes"] = self.seen_as.axes
        values = {
            "params": self.params.model_dump(mode="json"),
            "scale": self.seen_as.scale,
            "noise_seed": self.noise_seed,
        }
        return FittedState(arrays=arrays, values=values)

    def _distance(self, row: Tensor) -> Tensor:
        start = levels_of(self.params)[-1]
        t = torch.full((len(self.noise),), start)
        noisy = noised(row.expand_as(self.noise), t, self.noise, self.schedule)
        if self.params.sampler is Sampler.DDIM:
            path = np.unique(np.linspace(0, start, self.params.ddim_steps + 1).round().astype(int))[::-1].tolist()
            clean = ddim(noisy, path, self.net, self.schedule)
        else:
            clean = ancestral(noisy, start, self.net, self.schedule, seeded(self.noise_seed))
        return (clean - row).square().mean().sqrt()[None]


class Ddpm:
    """A network that learnt to tell noise from normal images."""

    name: ClassVar[str] = "ddpm"
    Params: ClassVar[type[Params]] = DdpmParams

    def __init__(self, params: DdpmParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedDdpm:
        """The network of this bank.

        Raises:
            BankTooSmall: fewer than 16 images.
            FitRefused: the images are all alike.
            ParameterInvalid: there is nothing to read, or the learning rate is too large.
            WidthMismatch, NotFinite: what is read cannot be used.
        """
        params = self.params
        bank = bank_rows(
            reference,
            method=self.name,
            bank_min=BANK_MIN,
            read=lambda inputs: read(inputs, params.source, self.name),
        )
        learnt = bank.vectors[~bank.is_held_out]
        if not np.ptp(learnt, axis=0).any():
            raise images_alike(self.name, len(bank.ids))
        part_of(progress, 0.0, 0.05)(0, 1)
        seen_as = coordinates(learnt, params.source)
        schedule = linear_schedule(params.timesteps)
        generator = seeded(seed)
        net = _predictor(params, seen_as, schedule, generator)
        rows, judged = seen_as.of(learnt).float(), seen_as.of(bank.vectors[bank.is_held_out][:JUDGED])
        _train(net, rows, judged.float(), schedule, params, generator, part_of(progress, 0.05, 0.95))
        noise = torch.randn((params.draws, *judged.shape[1:]), generator=generator, dtype=torch.float64)
        scorer = FittedDdpm(
            net=net.double().eval().requires_grad_(False),
            schedule=schedule,
            seen_as=seen_as,
            noise=noise,
            weights=np.full(params.levels, 1 / params.levels),
            params=params,
            noise_seed=seed,
        )
        if params.scored_by is ScoredBy.RECONSTRUCTION:
            return scorer
        errors = []
        for place, row in enumerate(judged, 1):
            errors.append(scorer.errors(row[None])[0])
            part_of(progress, 0.95, 1.0)(place, len(judged))
        return _with_weights(scorer, np.array(errors))

    def restore(self, state: FittedState) -> FittedDdpm:
        """The scorer that was exported."""
        params = DdpmParams.model_validate(state.values["params"])
        arrays = state.arrays
        seen_as = Coordinates(arrays["mean"], state.values["scale"], arrays.get("axes"), arrays["variances"])
        schedule = linear_schedule(params.timesteps)
        net = _predictor(params, seen_as, schedule, seeded(0)).double()
        return FittedDdpm(
            net=loaded(net, arrays, "net."),
            schedule=schedule,
            seen_as=seen_as,
            noise=torch.from_numpy(arrays["noise"].copy()),
            weights=arrays["weights"],
            params=params,
            noise_seed=state.values["noise_seed"],
        )


def levels_of(params: DdpmParams) -> list[int]:
    """The timesteps of the score, evenly spaced in ratio up to the strongest; least noisy first."""
    strongest = params.strongest * params.timesteps
    spaced = np.geomspace(min(0.01 * params.timesteps, strongest), strongest, params.levels + 1)[1:]
    return [max(1, round(one)) for one in spaced]


def noise_loss(net: NoisePredictor, rows: Tensor, t: Tensor, noise: Tensor, schedule: Schedule) -> Tensor:
    """Mean squared error of the predicted noise, each timestep counting alike; scalar.

    Source: Ho, Jain, Abbeel 2020, arXiv:2006.11239, equation 14.
    """
    predicted: Tensor = net(noised(rows, t, noise, schedule), t)
    return (predicted - noise).square().mean()


def _train(
    net: NoisePredictor,
    rows: Tensor,
    judged: Tensor,
    schedule: Schedule,
    params: DdpmParams,
    generator: torch.Generator,
    progress: Progress,
) -> None:
    batch = min(BATCH[params.source], len(rows))
    passes = math.ceil(STEPS_PER_EPOCH * batch / len(rows))
    epochs = math.ceil(params.steps / math.ceil(passes * len(rows) / batch))

    def drawn(some: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        t = torch.randint(1, schedule.timesteps + 1, (len(some),), generator=generator)
        return some, t, torch.randn(some.shape, generator=generator)

    # The same noises judge every epoch; few images get more of them each.
    asked = drawn(judged.repeat(math.ceil(JUDGED / len(judged)), *[1] * (judged.dim() - 1)))
    train(
        net,
        lambda chosen: noise_loss(net, *drawn(rows[chosen % len(rows)]), schedule),
        rows=passes * len(rows),
        plan=TrainingPlan(
            epochs=epochs, batch=batch, learning_rate=params.learning_rate, patience=10, gradient_norm_max=1.0
        ),
        generator=generator,
        method=Ddpm.name,
        held_out_loss=lambda: noise_loss(net, *asked, schedule),
        progress=progress,
    )


def _predictor(
    params: DdpmParams, seen_as: Coordinates, schedule: Schedule, generator: torch.Generator
) -> NoisePredictor:
    correction: torch.nn.Module
    if params.source is Source.PIXELS:
        correction = PixelCorrection(params.channels, generator)
    else:
        correction = VectorCorrection(len(seen_as.mean), params.hidden, generator)
    return NoisePredictor(correction, torch.from_numpy(seen_as.variances.copy()).float(), schedule)


def _with_weights(scorer: FittedDdpm, errors: NDArray[np.float64]) -> FittedDdpm:
    """Each timestep's error counts by how little it varies among held-out normal images."""
    spread = np.maximum(errors.std(axis=0), 1e-3 * errors.mean(axis=0) + 1e-12)
    weights = 1 / spread if len(errors) > 1 else np.ones(errors.shape[1])
    return FittedDdpm(
        net=scorer.net,
        schedule=scorer.schedule,
        seen_as=scorer.seen_as,
        noise=scorer.noise,
        weights=weights / weights.sum(),
        params=scorer.params,
        noise_seed=scorer.noise_seed,
    )
