"""What is known about the weights of each backbone: where they come from, under which terms, whether they are here."""

import json
from pathlib import Path
from typing import Any

from models.backbones.loader import EMBEDDED_FOLDER, default_weights
from models.backbones.resnet import BACKBONES


def backbone_cards(weights_folder: Path, *, embedded_folder: Path = EMBEDDED_FOLDER) -> list[dict[str, Any]]:
    """Every backbone that can be built, by name, with the weights there are for it.

    `embedded` is the card that was written when the weights were exported (data, terms, recipe, figures,
    weaknesses), None where this copy carries none.

    Raises:
        WeightsDamaged: the card of the embedded weights cannot be read.
    """
    embedded = _written(embedded_folder)
    return [
        {
            "id": name,
            "stage_widths": list(record.stage_widths),
            "default_weights": default_weights(name, embedded_folder=embedded_folder),
            "embedded": embedded.get(name),
            "torchvision": {
                "file": record.weights_file,
                "licence": record.weights_licence,
                "is_here": (weights_folder / record.weights_file).is_file(),
            },
        }
        for name, record in sorted(BACKBONES.items())
    ]


def _written(folder: Path) -> dict[str, dict[str, Any]]:
    default_weights(embedded_folder=folder)  # says what is wrong with a card that does not serve
    path = folder / "card.json"
    if not path.is_file():
        return {}
    return {str(entry["backbone"]): entry for entry in json.loads(path.read_text(encoding="utf-8"))["weights"]}
