"""Reconstruction error and divergence under an autoencoder that saw rare normal images as often as common ones."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import ParameterInvalid
from models.float32 import as_float32
from models.held_out import BankRows, bank_rows, images_alike, stacked_vectors
from models.methods.db_vae.maths import (
    LatentHistograms,
    effective_sample_size,
    false_alarm_rates,
    histogram_entropy,
    latent_histograms,
    sampling_weights,
)
from models.methods.db_vae.network import VariationalAutoencoder, trained
from models.network_arrays import arrays_of, loaded
from models.training import TrainingPlan, each_alone, part_of, seeded

BANK_MIN = 32
SIDE = 16  # pixels of a reduced image's side
COMPARED_RATE = 0.05  # false-alarm rate at which latent groups are compared
TAIL = 0.1  # share of the bank in each outer latent group


class Source(StrEnum):
    """What is encoded."""

    VECTORS = "vectors"
    PIXELS = "pixels"


class DebiasingParams(Params):
    """Parameters of `db_vae`."""

    source: Source = Field(
        default=Source.VECTORS, description="Encode the embedding's `vectors`, or `pixels` reduced to 16 x 16."
    )
    latents: int = Field(default=8, ge=1, le=64, description="Width of the latent space, in dimensions.")
    hidden: int = Field(default=128, ge=8, le=1024, description="Width of the hidden layers.")
    alpha: float = Field(
        default=0.5,
        ge=1e-6,
        le=1e6,
        description="Added to each latent's density: small debiases fully, large not at all.",
    )
    bins: int = Field(default=10, ge=2, le=100, description="Bins of each latent's histogram.")
    compare: bool = Field(
        default=True, description="Train the plain autoencoder as well, to report false alarms before and after."
    )
    epochs: int = Field(default=80, ge=1, le=1000, description="Passes over the bank, at most.")
    learning_rate: float = Field(default=3e-3, gt=0.0, le=1.0, description="Step of the optimiser (Adam).")


@dataclass(frozen=True, slots=True, eq=False)
class FittedDebiasing:
    """The autoencoder, and the histograms by which it was last judged who is rare."""

    net: VariationalAutoencoder
    histograms: LatentHistograms
    params: DebiasingParams
    report: dict[str, Any]
    """Effective sample size, entropy of the latents' histograms, and false alarms by latent group."""
    method: str = "db_vae"

    def score(self, inputs: Inputs) -> Scores:
        """Reconstruction plus divergence in nats, both returned as `terms`, with `rarity`.

        `rarity` is how many times as often as an average bank image the sampler would draw this one, as a
        natural logarithm.

        Raises:
            ParameterInvalid: no vectors, or no pixels, are given.
            WidthMismatch, NotFinite: they are not of the bank's width, or not finite.
        """
        rows = _read(inputs, self.params.source, self.method, self.net.mean.numel())
        if not len(rows):
            empty = np.zeros(0, dtype=np.float32)
            return Scores(image=empty, terms={"reconstruction": empty, "divergence": empty, "rarity": empty})
        reconstruction, divergence, latents = each_alone(
            lambda row: (*self.net.terms(row), self.net.encode(row)[0]), torch.from_numpy(rows).double()
        )
        densities = self.histograms.densities_at(latents.numpy())
        rarity = -np.log(densities + self.params.alpha).sum(axis=1) - float(self.report["log_average_weight"])
        return Scores(
            image=as_float32((reconstruction + divergence).numpy()),
            terms={
                "reconstruction": as_float32(reconstruction.numpy()),
                "divergence": as_float32(divergence.numpy()),
                "rarity": as_float32(rarity),
            },
        )

    def findings(self) -> dict[str, Any]:
        """The report."""
        return self.report

    def export(self) -> FittedState:
        """The state from which `Debiasing.restore` builds a scorer with equal scores."""
        arrays = arrays_of(self.net, "net.")
        arrays |= {"edges": self.histograms.edges, "densities": self.histograms.densities}
        return FittedState(arrays=arrays, values={"params": self.params.model_dump(mode="json"), "report": self.report})


class Debiasing:
    """A variational autoencoder whose own latents decide which images it sees more often."""

    name: ClassVar[str] = "db_vae"
    Params: ClassVar[type[Params]] = DebiasingParams

    def __init__(self, params: DebiasingParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedDebiasing:
        """The autoencoder of this bank.

        Raises:
            BankTooSmall: fewer than 32 images.
            FitRefused: the images are all alike, or `alpha` leaves fewer than 20 of them in the drawing.
            ParameterInvalid: there is nothing to read, or the learning rate is too large.
            WidthMismatch, NotFinite: what is read cannot be used.
        """
        params = self.params
        bank = bank_rows(
            reference,
            method=self.name,
            bank_min=BANK_MIN,
            read=lambda inputs: _read(inputs, params.source, self.name, None),
        )
        rows, held_out = bank.vectors[~bank.is_held_out], bank.vectors[bank.is_held_out]
        if not np.ptp(rows, axis=0).any():
            raise images_alike(self.name, len(bank.ids))
        share = 0.5 if params.compare else 1.0
        net = self._net(rows, held_out, params.alpha, seed, part_of(progress, 0.0, share))
        plain = self._net(rows, held_out, None, seed, part_of(progress, share, 1.0)) if params.compare else None
        latents = _latents(net, rows)
        histograms = latent_histograms(latents, params.bins)
        return FittedDebiasing(net, histograms, params, _report(net, plain, bank, histograms, params.alpha))

    def restore(self, state: FittedState) -> FittedDebiasing:
        """The scorer that was exported."""
        params = DebiasingParams.model_validate(state.values["params"])
        net = VariationalAutoencoder(
            width=len(state.arrays["net.mean"]), hidden=params.hidden, latents=params.latents, generator=seeded(0)
        )
        return FittedDebiasing(
            net=loaded(net, state.arrays, "net."),
            histograms=LatentHistograms(state.arrays["edges"], state.arrays["densities"]),
            params=params,
            report=dict(state.values["report"]),
        )

    def _net(
        self,
        rows: NDArray[np.float32],
        held_out: NDArray[np.float32],
        alpha: float | None,
        seed: int,
        progress: Progress,
    ) -> VariationalAutoencoder:
        net, _ = trained(
            rows,
            held_out,
            latents=self.params.latents,
            hidden=self.params.hidden,
            bins=self.params.bins,
            alpha=alpha,
            plan=TrainingPlan(
                epochs=self.params.epochs,
                batch=min(128, max(16, len(rows) // 32)),
                learning_rate=self.params.learning_rate,
                patience=12,
                gradient_norm_max=100.0,
            ),
            generator=seeded(seed),
            method=self.name,
            progress=progress,
        )
        return net


def _read(inputs: Inputs, source: Source, method: str, width: int | None) -> NDArray[np.float32]:
    if source is Source.VECTORS:
        return stacked_vectors([inputs], method=method, width=width)
    if inputs.pixels is None:
        raise ParameterInvalid(f"`pixels` of the inputs of method `{method}` must be given; got none.")
    # One image at a time, so that its mates have no say in the last bit.
    reduced = [
        torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(image.copy()), SIDE).flatten().numpy()
        for image in inputs.pixels
    ]
    flat = np.stack(reduced) if reduced else np.zeros((0, 3 * SIDE * SIDE), dtype=np.float32)
    return stacked_vectors([Inputs(ids=inputs.ids, vectors=flat)], method=method, width=width)


def _latents(net: VariationalAutoencoder, rows: NDArray[np.float32]) -> NDArray[np.float64]:
    latents: NDArray[np.float64] = net.encode(torch.from_numpy(rows).double())[0].numpy()
    return latents


def _report(
    net: VariationalAutoencoder,
    plain: VariationalAutoencoder | None,
    bank: BankRows,
    histograms: LatentHistograms,
    alpha: float,
) -> dict[str, Any]:
    """What the sampler did to the bank, and to the false alarms of held-out images by latent group."""
    rows, held_out = bank.vectors[~bank.is_held_out], bank.vectors[bank.is_held_out]
    latents = _latents(net, rows)
    densities = histograms.densities_at(latents)
    log_weights = -np.log(densities + alpha).sum(axis=1)
    weights, alike = sampling_weights(densities, alpha), np.full(len(rows), 1 / len(rows))
    report: dict[str, Any] = {
        "effective_sample_size": effective_sample_size(weights),
        "images": len(rows),
        "entropy_before": histogram_entropy(latents, alike, histograms),
        "entropy_after": histogram_entropy(latents, weights, histograms),
        "log_average_weight": float(log_weights.max() + np.log(np.exp(log_weights - log_weights.max()).mean())),
    }
    if plain is None:
        return report
    # Groups of each latent: its lowest tenth, its middle, its highest tenth.
    asked, scores = torch.from_numpy(held_out).double(), {}
    for name, one in (("before", plain), ("after", net)):
        scores[name] = torch.stack(one.terms(asked)).sum(dim=0).numpy()
    places = _latents(net, held_out)
    groups = []
    for latent in range(latents.shape[1]):
        low, high = np.quantile(latents[:, latent], [TAIL, 1 - TAIL])
        group = (places[:, latent] > low).astype(np.int64) + (places[:, latent] > high)
        rates = {name: false_alarm_rates(one, group, 3, COMPARED_RATE) for name, one in scores.items()}
        for place, side in enumerate(("low", "middle", "high")):
            groups.append(
                {
                    "latent": latent + 1,
                    "group": side,
                    "images": int(rates["after"][1][place]),
                    "before": float(rates["before"][0][place]),
                    "after": float(rates["after"][0][place]),
                }
            )
    return report | {"false_alarm_rate": COMPARED_RATE, "false_alarms": groups}
