"""Trained weights to the file that ships, and the card that says where it comes from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save
from torch import Tensor

from models.backbones.network import tensor_shapes
from models.backbones.weights import file_sha256
from models.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from models.pretraining.errors import ExportInvalid

WEIGHTS_BYTES_MAX = 24_000_000
CARD = "card.json"


class DataRecord(BaseModel):
    """One source of training images, or a teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    terms: str
    images: int = Field(ge=0)


class Int8Record(BaseModel):
    """What 8-bit integers need to know of a network; see models.backbones.quantisation."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranges: dict[str, float] = Field(description="How far what each block and later convolution takes in reaches.")
    measured_by: str = Field(min_length=1)


class WeightsCard(BaseModel):
    """Everything a user of the weights should know; one entry of `card.json`.

    The service reads `file`, `sha256`, `backbone`, `image_size`, `mean`, `std` and `int8`; people read the rest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    sha256: str
    bytes: int
    backbone: str
    image_size: int = Field(ge=32, description="Side the figures were measured at, and served by default.")
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    data: tuple[DataRecord, ...] = Field(min_length=1)
    excluded_classes: tuple[str, ...]
    teachers: tuple[DataRecord, ...]
    terms: str = Field(min_length=1, description="Under which the weights may be used, in a sentence.")
    recipe: dict[str, Any] = Field(description="The configuration of the run.")
    command: str = Field(min_length=1, description="What to run for the same weights.")
    commit: str = Field(min_length=7)
    trained_on: str = Field(min_length=1, description="Date the run ended.")
    hours: float = Field(ge=0)
    images_seen: int = Field(ge=0)
    hardware: str = Field(min_length=1)
    figures: dict[str, float]
    weaknesses: tuple[str, ...] = Field(min_length=1)
    int8: Int8Record | None = None


class WeightsFacts(BaseModel):
    """What only whoever ran the training knows; the rest of a card is found out while exporting."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_size: int = Field(ge=32)
    data: tuple[DataRecord, ...] = Field(min_length=1)
    excluded_classes: tuple[str, ...] = ()
    teachers: tuple[DataRecord, ...] = ()
    terms: str = Field(min_length=1)
    recipe: dict[str, Any]
    command: str = Field(min_length=1)
    commit: str = Field(min_length=7)
    trained_on: str = Field(min_length=1)
    hours: float = Field(ge=0)
    images_seen: int = Field(ge=0)
    hardware: str = Field(min_length=1)
    figures: dict[str, float] = {}
    weaknesses: tuple[str, ...] = Field(min_length=1)


def export_weights(weights: Mapping[str, Tensor], path: Path, *, backbone: str, facts: WeightsFacts) -> WeightsCard:
    """The card of the weights now written to `path` in half precision, itself written beside them.

    `card.json` keeps the entries of other backbones and replaces the one of this backbone. The weights are
    replaced before the card: between the two moves the loader reports a digest that does not fit.

    Raises:
        ExportInvalid: a tensor is absent, of another shape or not finite in half precision, or the file is
            larger than WEIGHTS_BYTES_MAX.
    """
    half = _half(weights, backbone)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    # Not save_file: it makes files that only their owner can read.
    part.write_bytes(save(half, metadata={"backbone": backbone}))
    size = part.stat().st_size
    if size > WEIGHTS_BYTES_MAX:
        part.unlink()
        raise ExportInvalid(
            f"`weights` to ship must take at most {WEIGHTS_BYTES_MAX} bytes; got {size} for {backbone}."
        )
    part.replace(path)
    card = WeightsCard(
        file=path.name,
        sha256=file_sha256(path),
        bytes=size,
        backbone=backbone,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        **dict(facts),
    )
    _write_card(path.parent / CARD, card)
    return card


def measured_card(
    path: Path, *, backbone: str, figures: Mapping[str, float], int8: Int8Record | None = None
) -> WeightsCard:
    """The card of exported weights with these figures added, and ranges where they are given, now in `card.json`.

    Raises:
        ExportInvalid: `card.json` has no entry of that backbone.
    """
    for entry in _entries(path):
        if entry.get("backbone") == backbone:
            card = WeightsCard.model_validate(entry)
            card = card.model_copy(update={"figures": {**card.figures, **figures}, "int8": int8 or card.int8})
            _write_card(path, card)
            return card
    raise ExportInvalid(f"`{CARD}` must have an entry of backbone {backbone}; got none in {path}.")


def _half(weights: Mapping[str, Tensor], backbone: str) -> dict[str, Tensor]:
    half = {}
    for name, shape in tensor_shapes(backbone).items():
        tensor = weights.get(name)
        if tensor is None or tuple(tensor.shape) != shape:
            got = "none" if tensor is None else str(tuple(tensor.shape))
            raise ExportInvalid(f"`{name}` of backbone {backbone} must be {shape}; got {got}.")
        # A fresh contiguous copy: safetensors keeps no strides and refuses shared memory.
        half[name] = tensor.detach().cpu().to(torch.float16, copy=True).contiguous()
        if not torch.isfinite(half[name]).all():
            raise ExportInvalid(f"`{name}` of backbone {backbone} must be finite in half precision.")
    return half


def _entries(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["weights"]
    except (ValueError, LookupError, TypeError) as error:
        raise ExportInvalid(f"`{CARD}` must list weights; got {path}: {error!r}.") from error
    return entries


def _write_card(path: Path, card: WeightsCard) -> None:
    kept = [entry for entry in _entries(path) if entry.get("backbone") != card.backbone]
    entries = sorted([*kept, card.model_dump(mode="json")], key=lambda entry: str(entry["backbone"]))
    part = path.with_name(f"{path.name}.part")
    part.write_text(json.dumps({"weights": entries}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)
