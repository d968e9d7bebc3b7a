"""From what a user named to a working embedder; the source of the weights is never chosen silently."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.backbones.choice import EngineChoice, Network, choose_engine
from models.backbones.embedder import Embedder, EmbeddingIdentity, EmbeddingSpec
from models.backbones.network import tensor_shapes
from models.backbones.openvino_engine import build_graph
from models.backbones.quantisation import has_ranges, range_names
from models.backbones.ranges import measured_ranges
from models.backbones.record import BackboneRecord
from models.backbones.resnet import BACKBONES
from models.backbones.stand_in import stand_in_weights
from models.backbones.weights import checked_weights, file_sha256, read_weights, tensors_sha256
from models.errors import ParameterInvalid, WeightsDamaged, WeightsMissing
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from models.runtime import configure_libraries

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
    ranges: dict[str, float] | None = None  # of activations, for 8-bit integers
    ranges_side: int | None = None


def default_weights(backbone: str = "resnet18", *, embedded_folder: Path = EMBEDDED_FOLDER) -> str:
    """`embedded` where this copy of the service carries trained weights for the backbone, else `stand-in`.

    For whoever fills in a default and shows it; load_embedder itself never replaces one by the other.
    """
    return "embedded" if backbone in _cards(embedded_folder) else "stand-in"


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
    configure_libraries(threads)
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
        pooling=spec.pooling,
    )
    network = Network(
        record.name,
        identity.weights_sha256,
        tensors,
        spec.stages,
        preprocessing,
        source.ranges,
        source.ranges_side,
        spec.pooling,
    )
    chosen = choose_engine(network, choice, threads)
    return Embedder(identity, chosen.engine, record.stage_widths, chosen.comparable_with)


def weights_ranges(path: Path, backbone: str, preprocessing: Preprocessing) -> dict[str, float]:
    """How far activations reach under the weights of a file, for 8-bit integers; nothing is kept.

    Raises:
        WeightsDamaged: the file is not one of weights, or does not fit the backbone.
        EngineUnusable: NNCF or OpenVINO is absent, or refuses the network.
    """
    shapes = tensor_shapes(backbone)
    tensors = checked_weights(read_weights(path), shapes, backbone=backbone, source=str(path))

    def build() -> object:
        return build_graph(backbone, tensors, (4,), preprocessing.image_size)

    return measured_ranges({}, range_names(shapes), build, preprocessing, None)


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
    found = _Source(read_weights(path), str(path), record.image_size, record.mean, record.std)
    card = _cards(path.parent).get(record.name)
    if card is None or card.file != path.name or card.sha256 != file_sha256(path):
        return found
    return replace(found, ranges=_checked_ranges(card, record), ranges_side=card.image_size)


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
    card = _cards(folder).get(record.name)
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
    ranges = _checked_ranges(card, record)
    return _Source(read_weights(path), card.file, card.image_size, card.mean, card.std, ranges, card.image_size)


def _checked_ranges(card: "_Card", record: BackboneRecord) -> dict[str, float] | None:
    if card.ranges is not None and not has_ranges(range_names(tensor_shapes(record.name)), card.ranges):
        raise WeightsDamaged(
            f"`int8.ranges` in the card of {card.file} must be a number above 0 for each block and later convolution; "
            f"got {card.ranges}. Run `oddity pretrain ranges` again."
        )
    return card.ranges


@dataclass(frozen=True, slots=True)
class _Card:
    file: str
    sha256: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    ranges: dict[str, float] | None


def _cards(folder: Path) -> dict[str, _Card]:
    path = folder / "card.json"
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["weights"]
        cards: dict[str, _Card] = {}
        for entry in entries:
            mean, std = (tuple(float(value) for value in entry[key]) for key in ("mean", "std"))
            card = _Card(
                file=str(entry["file"]),
                sha256=str(entry["sha256"]),
                image_size=int(entry["image_size"]),
                mean=(mean[0], mean[1], mean[2]),
                std=(std[0], std[1], std[2]),
                ranges=_ranges(entry),
            )
            cards[str(entry["backbone"])] = card
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise WeightsDamaged(
            f"`card.json` beside weights must list file, sha256, backbone, image_size, mean and std of each; got "
            f"{path}: {error!r}. Mend it, or take it away."
        ) from error
    return cards


def _ranges(entry: Mapping[str, Any]) -> dict[str, float] | None:
    if entry.get("int8") is None:
        return None
    return {str(name): float(top) for name, top in entry["int8"]["ranges"].items()}
