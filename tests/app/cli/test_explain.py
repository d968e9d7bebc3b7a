"""`oddity explain` says what the service says."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.app.cli.conftest import Oddity


def test_examples_and_maps(oddity: Oddity, folder: Path, tmp_path: Path) -> None:
    where = ("-c", "parts", "--data", tmp_path / "d")
    oddity("ingest", folder / "left", *where)
    oddity("classes", "put", "right", folder / "right" / "0.png", *where)
    shown = oddity("explain", folder / "left" / "0.png", *where, "--neighbours", 2)
    assert shown.code == 0, shown.err
    assert "0  0.png" in shown.out and "normal" in shown.out and "right" in shown.out
    asking = ("explain", folder / "right" / "0.png", folder / "right" / "broken.png", *where, "--json")
    ran = oddity(*asking, "--method", "occlusion", "--out", tmp_path / "maps")
    assert ran.code == 1  # one file is broken
    one, broken = json.loads(ran.out)["results"]
    assert "problem" in broken and one["examples"]["classes"][0]["examples"][0]["distance"] < 1e-4
    overlay = Image.open(one["map_file"])
    assert overlay.size == (32, 32) and np.asarray(overlay).shape[2] == 4 and "1 maps written" in ran.err
    wrong = oddity("explain", folder / "left" / "0.png", *where, "--method", "guess")
    assert wrong.code == 2
