"""The weights that ship: whole, described, and worth more than random ones."""

import json
from pathlib import Path

import pytest

from benchmarks.made_folders import write_digits
from models.backbones.cards import backbone_cards
from models.backbones.embedder import EmbeddingSpec
from models.backbones.loader import EMBEDDED_FOLDER, default_weights, load_embedder
from models.errors import WeightsDamaged
from models.images import ImageLimits
from models.pretraining import NEVER_TRAINED_ON, WeightsCard, embedded_folder, one_vs_rest_auc
from models.pretraining.export import WEIGHTS_BYTES_MAX

NOWHERE = Path("/nowhere")


def test_the_card_says_all_that_a_user_should_know() -> None:
    (entry,) = json.loads((EMBEDDED_FOLDER / "card.json").read_text(encoding="utf-8"))["weights"]
    card = WeightsCard.model_validate(entry)
    assert default_weights(card.backbone) == "embedded"
    assert set(card.excluded_classes) >= NEVER_TRAINED_ON  # classes that figures are published on
    assert (EMBEDDED_FOLDER / card.file).stat().st_size == card.bytes <= WEIGHTS_BYTES_MAX
    assert "research" in card.terms and "oddity pretrain" in card.command and card.figures
    assert {one["id"]: one["embedded"] for one in backbone_cards(NOWHERE)}[card.backbone] == entry
    (only,) = [file.name for file in EMBEDDED_FOLDER.glob("*.safetensors")]
    assert only == card.file


def test_a_card_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    assert all(one["embedded"] is None for one in backbone_cards(NOWHERE, embedded_folder=tmp_path))
    (tmp_path / "card.json").write_text("{}")
    with pytest.raises(WeightsDamaged, match=r"card\.json"):
        backbone_cards(NOWHERE, embedded_folder=tmp_path)


def test_digits_lie_better_apart_than_by_random_weights(tmp_path: Path) -> None:
    digits = write_digits(tmp_path)
    means = {}
    for weights in ("embedded", "stand-in"):
        embedder = load_embedder(EmbeddingSpec(weights=weights, image_size=64), weights_folder=NOWHERE, threads=1)
        bank, asked = (
            embedded_folder(embedder, digits / part, limits=ImageLimits(), per_class=10) for part in ("train", "test")
        )
        areas = one_vs_rest_auc(bank, asked)
        means[weights] = sum(areas.values()) / len(areas)
    assert means["embedded"] > means["stand-in"] + 0.02
