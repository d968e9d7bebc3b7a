"""From what a user named to a working embedder; the source of the weights is never chosen silently."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.backbones.choice import EngineChoice, Network, choose_engine
from models.backbones.embedder import Embedder, EmbeddingIdentity, EmbeddingSpec
from models.backbones.network import tensor_shapes
from models.backbones.record import BackboneRecord
from models.backbones.resnet import BACKBONES
from models.backbones.stand_in import stand_in_weights
from models.backbones.weights import checked_weights, file_sha256, read_weights, tensors_sha256
from models.errors import ParameterInvalid, WeightsDamaged, WeightsMissing
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from models.runtime import configure_torch

__all__ = ["BACKBONES", "EmbeddingSpec", "EngineChoice", "default_weights", "load_embedder"]

EMBEDDED_FOLDER = Path(__file__).parent / "embedded"

# Untrained weights are for trying things out; small images keep that quick.
STAND_IN_IMAGE_SIZE = 64


@dataclass(frozen=True, slots=True)
class _Source:
    """Weights as found, with the preprocessing they were made for."""

    tensors: dict[str, NDArray[np.float32]]
    described: str  # fits after "got" in a sentence
    image_size: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD


def default_weights(backbone: str = "resnet18", *, embedded_folder: Path = EMBEDDED_FOLDER) -> str:
    """`embedded` where this copy of the service carries trained weights for the backbone, else `stand-in`.

    For whoever fills in a default and shows it; load_embedder itself never replaces one by the other.
    """
    return "embedded" if backbone in _embedded_cards(embedded_folder) else "stand-in"


def load_embedder(
    spec: EmbeddingSpec,
    *,
    weights_folder: Path,
    threads: int,
    choice: EngineChoice = EngineChoice(),  # noqa: B008 - frozen
    embedded_folder: Path = EMBEDDED_FOLDER,
) -> Embedder:
    """A working embedder with exactly the weights the spec names; nothing is ever downloaded.

    A relative `file:` path is looked up in `weights_folder`. `choice` decides what computes, never what is computed.

    Raises:
        ParameterInvalid: the backbone is unknown, or the image size out of range.
        WeightsMissing: the file is not there; the message names the command that brings it.
        WeightsDamaged: the file is not what its record says, or does not fit the backbone.
        EngineUnusable: the engine named cannot run on this machine.
    """
    record = BACKBONES.get(spec.backbone)
    if record is None:
        raise ParameterInvalid(
            f"`backbone` of an embedding must be one of {', '.join(BACKBONES)}; got {spec.backbone}."
        )
    configure_torch(threads)
    shapes = tensor_shapes(record.name)
    source = _find(spec, record, shapes, weights_folder, embedded_folder)
    tensors = checked_weights(source.tensors, shapes, backbone=record.name, source=source.described)
    preprocessing = Preprocessing(
        image_size=source.image_size if spec.image_size is None else spec.image_size,
        fit=spec.fit,
        mean=source.mean,
        std=source.std,
    )
    identity = EmbeddingIdentity(
        backbone=record.name,
        weights=spec.weights,
        weights_sha256=tensors_sha256(tensors),
        stages=spec.stages,
        preprocessing=preprocessing,
    )
    network = Network(record.name, identity.weights_sha256, tensors, spec.stages, preprocessing)
    chosen = choose_engine(network, choice, threads)
    return Embedder(identity, chosen.engine, record.stage_widths, chosen.comparable_with)


def _find(
    spec: EmbeddingSpec,
    record: BackboneRecord,
    shapes: dict[str, tuple[int, ...]],
    weights_folder: Path,
    embedded_folder: Path,
) -> _Source:
    if spec.weights == "stand-in":
        tensors = stand_in_weights(record.name, shapes, sum(record.blocks))
        return _Source(tensors, "the stand-in", STAND_IN_IMAGE_SIZE)
    if spec.weights == "embedded":
        return _embedded(record, embedded_folder)
    if spec.weights == "torchvision":
        return _torchvision(record, weights_folder)
    path = weights_folder / spec.weights.removeprefix("file:")
    if not path.is_file():
        raise WeightsMissing(f"`weights` of backbone `{record.name}` must name a file that exists; got {path}.")
    return _Source(read_weights(path), str(path), record.image_size, record.mean, record.std)


def _torchvision(record: BackboneRecord, weights_folder: Path) -> _Source:
    path = weights_folder / record.weights_file
    if not path.is_file():
        raise WeightsMissing(
            f"`weights` of backbone `{record.name}` must be fetched once before they are used; got no "
            f"{path}. Run `oddity weights fetch {record.name}`."
        )
    digest = file_sha256(path)
    if not digest.startswith(record.weights_sha256_prefix):
        raise WeightsDamaged(
            f"`weights` of backbone `{record.name}` must have a SHA-256 that begins with "
            f"{record.weights_sha256_prefix}; got {digest[:16]} for {path}. Delete it and run "
            f"`oddity weights fetch {record.name}`."
        )
    return _Source(read_weights(path), str(path), record.image_size, record.mean, record.std)


def _embedded(record: BackboneRecord, folder: Path) -> _Source:
    card = _embedded_cards(folder).get(record.name)
    if card is None:
        raise WeightsMissing(
            f"`weights` embedded in this copy must include backbone `{record.name}`; got none. Name other "
            "weights (stand-in, torchvision, file:<path>), or run "
            f"`oddity weights fetch {record.name}` and name torchvision."
        )
    path = folder / card.file
    if not path.is_file():
        raise WeightsMissing(f"`weights` embedded in this copy must include {card.file}; got no such file.")
    digest = file_sha256(path)
    if digest != card.sha256:
        raise WeightsDamaged(
            f"`weights` embedded in this copy must have SHA-256 {card.sha256}; got {digest} for {card.file}."
        )
    return _Source(read_weights(path), card.file, card.image_size, card.mean, card.std)


@dataclass(frozen=True, slots=True)
class _EmbeddedCard:
    file: str
    sha256: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def _embedded_cards(folder: Path) -> dict[str, _EmbeddedCard]:
    path = folder / "card.json"
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["weights"]
        cards: dict[str, _EmbeddedCard] = {}
        for entry in entries:
            mean, std = (tuple(float(value) for value in entry[key]) for key in ("mean", "std"))
            card = _EmbeddedCard(
                file=str(entry["file"]),
                sha256=str(entry["sha256"]),
                image_size=int(entry["image_size"]),
                mean=(mean[0], mean[1], mean[2]),
                std=(std[0], std[1], std[2]),
            )
            cards[str(entry["backbone"])] = card
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsDamaged(
            f"`card.json` of the embedded weights must list file, sha256, backbone, image_size, mean and std "
            f"of each; got {path}: {error!r}."
        ) from error
    return cards
