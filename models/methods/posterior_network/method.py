"""Evidence for normal images, as densities of classes in a latent space trained to tell the classes apart."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from index import kmeans
from models.contract import FittedState, Inputs, Params, Progress, Reference, Scores
from models.errors import FitRefused
from models.float32 import as_float32
from models.held_out import BankRows, bank_rows, stacked_vectors
from models.methods.posterior_network.network import PosteriorNet, bayesian_loss, concentrations, warm_up_loss
from models.network_arrays import arrays_of, loaded
from models.training import TrainingPlan, each_alone, part_of, seeded, train

BANK_MIN = 32
IMAGES_PER_CLASS = 16  # of the bank, at least, on average over its pseudo-classes


class Evidence(StrEnum):
    """Whose evidence counts against an anomaly."""

    BANK = "bank"
    ALL = "all"


class PosteriorNetworkParams(Params):
    """Parameters of `posterior_network`."""

    latent: int = Field(default=6, ge=2, le=16, description="Width of the latent space, in dimensions.")
    flow_layers: int = Field(default=8, ge=1, le=32, description="Radial layers of each class's flow.")
    hidden: int = Field(default=64, ge=8, le=512, description="Width of the encoder's hidden layers.")
    pseudo_classes: int = Field(
        default=8, ge=2, le=64, description="Clusters of the bank that serve as its classes, at most one per 16 images."
    )
    evidence: Evidence = Field(
        default=Evidence.BANK,
        description="`bank`: an image that only a registered class explains is anomalous; `all`: it is not.",
    )
    entropy_weight: float = Field(
        default=1e-5, ge=0.0, le=1.0, description="Weight of the Dirichlet distribution's entropy in the loss, per nat."
    )
    warm_up: int = Field(
        default=20, ge=0, le=200, description="Passes over the bank that first bring every flow over its class."
    )
    epochs: int = Field(default=60, ge=1, le=500, description="Passes over the bank, at most.")
    learning_rate: float = Field(default=5e-3, gt=0.0, le=1.0, description="Step of the optimiser (Adam).")


@dataclass(frozen=True, slots=True, eq=False)
class FittedPosteriorNetwork:
    """The trained network; its first classes are the bank's."""

    net: PosteriorNet
    shape: dict[str, int]
    counts: tuple[int, ...]
    """Training images of each class."""
    bank_classes: int
    labels: tuple[str, ...]
    """Of the classes after the bank's."""
    evidence: Evidence
    epochs: int
    """Epochs trained."""
    method: str = "posterior_network"

    def score(self, inputs: Inputs) -> Scores:
        """Minus the log evidence, -log sum over classes of N_c p_c(z), in nats; class probabilities and uncertainties.

        `terms` are `aleatoric` (entropy of the mean class probabilities, nats), `epistemic` (classes over total
        concentration, 1 where nothing is known) and `log_evidence` (B, K) of every class.

        Raises:
            ParameterInvalid: no vectors are given.
            WidthMismatch, NotFinite: the vectors are not of the bank's width, or not finite.
        """
        rows = stacked_vectors([inputs], method=self.method, width=self.shape["width"])
        counted = self.bank_classes if self.evidence is Evidence.BANK else len(self.counts)

        def of_row(row: torch.Tensor) -> tuple[torch.Tensor, ...]:
            log_evidence = self.net.log_evidence(row)
            alpha = concentrations(log_evidence)
            total = alpha.sum(dim=-1, keepdim=True)
            mean = alpha / total
            entropy = -(mean * mean.log()).sum(dim=-1)
            return (
                -torch.logsumexp(log_evidence[:, :counted], dim=-1),
                log_evidence,
                mean,
                entropy,
                alpha.shape[-1] / total[:, 0],
            )

        if not len(rows):
            kinds = len(self.counts)
            parts = [torch.zeros(0), torch.zeros(0, kinds), torch.zeros(0, kinds), torch.zeros(0), torch.zeros(0)]
        else:
            parts = list(each_alone(of_row, torch.from_numpy(rows).double()))
        image, log_evidence, mean, aleatoric, epistemic = (as_float32(part.numpy()) for part in parts)
        return Scores(
            image=image,
            probabilities=self._probabilities(mean),
            terms={"aleatoric": aleatoric, "epistemic": epistemic, "log_evidence": log_evidence},
        )

    def export(self) -> FittedState:
        """The state from which `PosteriorNetwork.restore` builds a scorer with equal scores."""
        return FittedState(
            arrays=arrays_of(self.net),
            values={
                "shape": self.shape,
                "counts": list(self.counts),
                "bank_classes": self.bank_classes,
                "labels": list(self.labels),
                "evidence": self.evidence.value,
                "epochs": self.epochs,
            },
        )

    def _probabilities(self, mean: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        # A label holds no parentheses, so these names are never one.
        if not self.labels:
            return {f"(bank {place + 1})": mean[:, place] for place in range(self.bank_classes)}
        of_labels = {label: mean[:, self.bank_classes + place] for place, label in enumerate(self.labels)}
        # Merging classes of a Dirichlet distribution adds their concentrations, hence their means.
        bank = np.zeros(len(mean), dtype=np.float64)
        for place in range(self.bank_classes):
            bank += mean[:, place]
        return {"(bank)": bank.astype(np.float32), **of_labels}


class PosteriorNetwork:
    """A Dirichlet posterior over classes whose evidence is the density of each class."""

    name: ClassVar[str] = "posterior_network"
    Params: ClassVar[type[Params]] = PosteriorNetworkParams

    def __init__(self, params: PosteriorNetworkParams) -> None:
        self.params = params

    def fit(self, reference: Reference, *, seed: int, progress: Progress | None = None) -> FittedPosteriorNetwork:
        """The network of this bank, its clusters as classes, and the registered classes beside them.

        Raises:
            BankTooSmall: fewer than 32 images.
            FitRefused: the bank falls into a single cluster: the loss of one class is 0 whatever the network.
            ParameterInvalid: there are no vectors, or the learning rate is too large.
            WidthMismatch, NotFinite: the vectors cannot be used.
        """
        params = self.params
        bank = bank_rows(reference, method=self.name, bank_min=BANK_MIN)
        width = bank.vectors.shape[1]
        part_of(progress, 0.0, 0.05)(0, 1)
        rows, targets, is_held_out, bank_classes = self._classes(bank, reference, seed)
        labels = tuple(sorted(reference.labels))
        learnt = ~is_held_out
        counts = tuple(np.bincount(targets[learnt], minlength=bank_classes + len(labels)).tolist())
        shape = {"width": width, "hidden": params.hidden, "latent": params.latent, "layers": params.flow_layers}
        generator = seeded(seed)
        net = PosteriorNet(**shape, counts=counts, generator=generator)
        spread = rows[learnt].std(axis=0)
        net.mean.copy_(torch.from_numpy(rows[learnt].mean(axis=0)))
        net.scale.fill_(float(np.sqrt(np.square(spread).mean())))
        inputs, classes = torch.from_numpy(rows), torch.from_numpy(targets)
        training, stopping = inputs[learnt], inputs[is_held_out]

        def loss_of(chosen: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            return bayesian_loss(concentrations(net.log_evidence(chosen)), wanted, params.entropy_weight)

        plan = TrainingPlan(
            epochs=params.epochs,
            batch=min(128, max(16, len(training) // 32)),
            learning_rate=params.learning_rate,
            patience=8,
            gradient_norm_max=10.0,
        )
        warm = 0.05 + 0.95 * params.warm_up / (params.warm_up + params.epochs)
        train(
            net,
            lambda chosen: warm_up_loss(net, training[chosen], classes[learnt][chosen]),
            rows=len(training),
            plan=replace(plan, epochs=params.warm_up),
            generator=generator,
            method=self.name,
            progress=part_of(progress, 0.05, warm),
        )
        report = train(
            net,
            lambda chosen: loss_of(training[chosen], classes[learnt][chosen]),
            rows=len(training),
            plan=plan,
            generator=generator,
            method=self.name,
            held_out_loss=lambda: loss_of(stopping, classes[is_held_out]),
            progress=part_of(progress, warm, 1.0),
        )
        return FittedPosteriorNetwork(
            net=_frozen(net),
            shape=shape,
            counts=counts,
            bank_classes=bank_classes,
            labels=labels,
            evidence=params.evidence,
            epochs=report.epochs,
        )

    def restore(self, state: FittedState) -> FittedPosteriorNetwork:
        """The scorer that was exported."""
        values = state.values
        net = PosteriorNet(**values["shape"], counts=values["counts"], generator=seeded(0))
        return FittedPosteriorNetwork(
            net=loaded(net, state.arrays),
            shape=dict(values["shape"]),
            counts=tuple(values["counts"]),
            bank_classes=int(values["bank_classes"]),
            labels=tuple(values["labels"]),
            evidence=Evidence(values["evidence"]),
            epochs=int(values["epochs"]),
        )

    def _classes(
        self, bank: BankRows, reference: Reference, seed: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_], int]:
        """Rows of bank and classes, their class numbers, which are held out, and how many classes are the bank's."""
        asked = min(self.params.pseudo_classes, len(bank.ids) // IMAGES_PER_CLASS)
        _, clusters = kmeans(bank.vectors, asked, seed=seed)
        # A cluster that only held-out images fell into would be a class without training images.
        occupied = np.unique(clusters[~bank.is_held_out])
        places = np.searchsorted(occupied, clusters)
        known = (places < occupied.size) & (occupied[np.minimum(places, occupied.size - 1)] == clusters)
        distinct = np.unique(bank.vectors[~bank.is_held_out], axis=0)
        if occupied.size < 2 or len(distinct) < 2:
            raise FitRefused(
                f"The bank of method `{self.name}` must fall into at least two clusters; got {len(distinct)} "
                f"different images in {min(occupied.size, len(distinct))}."
            )
        rows = [bank.vectors[known]]
        targets, held_out = [places[known]], [bank.is_held_out[known]]
        for place, label in enumerate(sorted(reference.labels)):
            examples = stacked_vectors(reference.labels[label], method=self.name, width=bank.vectors.shape[1])
            rows.append(examples)
            targets.append(np.full(len(examples), occupied.size + place))
            held_out.append(np.zeros(len(examples), dtype=np.bool_))
        return (
            np.concatenate(rows).astype(np.float64),
            np.concatenate(targets).astype(np.int64),
            np.concatenate(held_out),
            int(occupied.size),
        )


def _frozen(net: PosteriorNet) -> PosteriorNet:
    return net.eval().requires_grad_(False)
