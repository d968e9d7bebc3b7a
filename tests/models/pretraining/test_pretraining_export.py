"""What ships loads, gives the same vectors, and says where it comes from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.backbones.embedder import EmbeddingSpec
from models.backbones.loader import load_embedder
from models.backbones.weights import file_sha256
from models.errors import WeightsDamaged
from models.images import ImageLimits
from models.pretraining import DataRecord, WeightsFacts, export_weights, measured_card
from models.pretraining import export as exporting
from models.pretraining.errors import ExportInvalid
from models.pretraining.student import seeded_student

FACTS: dict[str, Any] = {
    "image_size": 32,
    "data": [DataRecord(name="colours", terms="drawn here", images=32)],
    "terms": "As the images.",
    "recipe": {"seed": 3},
    "command": "oddity pretrain run config.json",
    "commit": "0123456789abcdef",
    "trained_on": "2026-01-02",
    "hours": 0.1,
    "images_seen": 64,
    "hardware": "2 cores",
    "weaknesses": ["It has seen four colours."],
}


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    student = seeded_student("resnet18", classes=2, logits=0, features=0, seed=1)
    generator = torch.Generator().manual_seed(0)
    weights = student.backbone_weights()
    for name, tensor in weights.items():
        if name.endswith(("running_var", "bn2.weight")):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return weights


def test_the_exported_file_gives_the_vectors_of_the_trained_weights(
    weights: dict[str, Tensor], colour_folder: Path, tmp_path: Path
) -> None:
    card = export_weights(weights, tmp_path / "r.safetensors", backbone="resnet18", facts=WeightsFacts(**FACTS))
    torch.save(weights, tmp_path / "full.pth")
    served = load_embedder(EmbeddingSpec(), weights_folder=tmp_path, embedded_folder=tmp_path, threads=1)
    full = load_embedder(
        EmbeddingSpec(weights="file:full.pth", image_size=card.image_size), weights_folder=tmp_path, threads=1
    )
    assert served.identity.preprocessing == full.identity.preprocessing
    data = [path.read_bytes() for path in sorted(colour_folder.rglob("000.png"))]
    first, second = (
        embedder.embed([embedder.prepare(each, ImageLimits()) for each in data]) for embedder in (served, full)
    )
    difference = np.linalg.norm(first - second, axis=1) / np.linalg.norm(second, axis=1)
    assert difference.max() < 5e-3
    apart = np.linalg.norm(second[0] - second[2]) / np.linalg.norm(second[0])
    assert apart > 10 * difference.max()  # images differ by far more than rounding


def test_the_card_describes_the_file(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    card = export_weights(weights, path, backbone="resnet18", facts=WeightsFacts(**FACTS))
    assert card.sha256 == file_sha256(path) and card.bytes == path.stat().st_size <= 24_000_000
    (entry,) = json.loads((tmp_path / "card.json").read_text())["weights"]
    assert entry["file"] == "r.safetensors" and entry["backbone"] == "resnet18" and entry["image_size"] == 32
    assert entry["mean"] == [0.485, 0.456, 0.406] and entry["weaknesses"] == ["It has seen four colours."]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", "r.safetensors"]
    assert path.stat().st_mode == (tmp_path / "card.json").stat().st_mode  # whoever reads one reads both


def test_exporting_again_replaces_the_entry_and_keeps_others(weights: dict[str, Tensor], tmp_path: Path) -> None:
    (tmp_path / "card.json").write_text(json.dumps({"weights": [{"backbone": "resnet50", "file": "other"}]}))
    for hours in (1.0, 2.0):
        facts = WeightsFacts(**(FACTS | {"hours": hours}))
        export_weights(weights, tmp_path / "r.safetensors", backbone="resnet18", facts=facts)
    entries = json.loads((tmp_path / "card.json").read_text())["weights"]
    assert [(entry["backbone"], entry.get("hours")) for entry in entries] == [("resnet18", 2.0), ("resnet50", None)]


def test_figures_are_added_to_the_card(weights: dict[str, Tensor], tmp_path: Path) -> None:
    facts = WeightsFacts(**(FACTS | {"figures": {"old": 0.5}}))
    export_weights(weights, tmp_path / "r.safetensors", backbone="resnet18", facts=facts)
    measured_card(tmp_path / "card.json", backbone="resnet18", figures={"new": 0.75})
    (entry,) = json.loads((tmp_path / "card.json").read_text())["weights"]
    assert entry["figures"] == {"old": 0.5, "new": 0.75}
    with pytest.raises(ExportInvalid, match="an entry of backbone resnet34"):
        measured_card(tmp_path / "card.json", backbone="resnet34", figures={})


def test_a_file_changed_after_export_is_not_loaded(weights: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    export_weights(weights, path, backbone="resnet18", facts=WeightsFacts(**FACTS))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsDamaged, match="SHA-256"):
        load_embedder(EmbeddingSpec(), weights_folder=tmp_path, embedded_folder=tmp_path, threads=1)


def test_weights_that_cannot_ship_are_refused_and_nothing_is_left(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def export(changed: dict[str, Tensor]) -> None:
        export_weights(changed, tmp_path / "r.safetensors", backbone="resnet18", facts=WeightsFacts(**FACTS))

    with pytest.raises(ExportInvalid, match="got none"):
        export({name: tensor for name, tensor in weights.items() if name != "conv1.weight"})
    with pytest.raises(ExportInvalid, match=r"got \(3,\)"):
        export(weights | {"bn1.bias": torch.zeros(3)})
    with pytest.raises(ExportInvalid, match="finite in half precision"):
        export(weights | {"bn1.running_var": torch.full((64,), 1e6)})  # finite, but not in half precision
    monkeypatch.setattr(exporting, "WEIGHTS_BYTES_MAX", 1000)
    with pytest.raises(ExportInvalid, match="at most 1000 bytes"):
        export(weights)
    assert list(tmp_path.iterdir()) == []
